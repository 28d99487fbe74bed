"""Motion as a BVH file, which Blender, Maya and their like open: a tree of joints, and its angles frame by frame.

Bones keep their mean length; what is told is where they point. The pelvis and the chest have an orientation of their
own (by hips and shoulders), every other joint the shortest turn from how it rests: about its own axis a bone of joints
alone is not known to turn. Centimetres, y up; the rest pose is the T pose.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from humanpose3d.skeletons import H36M_17

CM_PER_M = 100.0
# How bones rest, as they point from the parent: right-handed, x to the person's left, y up, z ahead.
_LEFT, _UP, _DOWN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0)
REST = {
    "spine": _UP, "thorax": _UP, "neck": _UP, "head": _UP,
    **{f"{side}_{joint}": tuple(sign * np.array(_LEFT)) for side, sign in (("left", 1), ("right", -1))
       for joint in ("hip", "shoulder", "elbow", "wrist")},
    **{f"{side}_{joint}": _DOWN for side in ("left", "right") for joint in ("knee", "ankle")},
}  # fmt: skip


def to_bvh(joints_cam_m: np.ndarray, fps: float) -> str:
    """float32 [T 17 3] of Human3.6M's joints, metres, camera frame -> the file. ValueError: other joints, or NaN."""
    joints = np.asarray(joints_cam_m, np.float64) * [1.0, -1.0, -1.0]  # x right of the camera, y up, z to the camera
    if joints.ndim != 3 or joints.shape[1:] != (len(H36M_17), 3) or not len(joints) or not np.isfinite(joints).all():
        raise ValueError(f"motion is [frames {len(H36M_17)} 3] of h36m_17 without holes, not {list(joints.shape)}")
    lengths = np.zeros(len(H36M_17))
    for parent, child in H36M_17.bones:
        lengths[child] = np.linalg.norm(joints[:, child] - joints[:, parent], axis=-1).mean()
    order = list(_depth_first(H36M_17.root_index))
    turns = _local_turns(joints)
    angles = {joint: _euler_zxy(turns[joint]) for joint in order if _children(joint)}
    lines = [" ".join(f"{value:.4f}" for value in row) for row in np.concatenate(
        [CM_PER_M * joints[:, H36M_17.root_index], *(angles[joint] for joint in order if _children(joint))], axis=1
    )]  # fmt: skip
    head = [f"MOTION\nFrames: {len(joints)}\nFrame Time: {1.0 / fps:.6f}"]
    return "\n".join(["HIERARCHY", *_hierarchy(H36M_17.root_index, lengths, 0), *head, *lines, ""])


def _children(joint: int) -> list[int]:
    return [child for parent, child in H36M_17.bones if parent == joint]


def _depth_first(joint: int) -> Iterator[int]:
    yield joint
    for child in _children(joint):
        yield from _depth_first(child)


def _hierarchy(joint: int, lengths: np.ndarray, depth: int) -> list[str]:
    name, indent = H36M_17.joints[joint], "  " * depth
    offset = np.zeros(3) if depth == 0 else CM_PER_M * lengths[joint] * np.array(REST[name])
    told = f"{indent}  OFFSET " + " ".join(f"{value:.4f}" for value in offset)
    if not _children(joint):
        return [f"{indent}End Site", f"{indent}{{", told, f"{indent}}}"]
    turn = "Zrotation Xrotation Yrotation"
    channels = f"6 Xposition Yposition Zposition {turn}" if depth == 0 else f"3 {turn}"
    lines = [
        f"{indent}{'ROOT' if depth == 0 else 'JOINT'} {name}",
        f"{indent}{{",
        told,
        f"{indent}  CHANNELS {channels}",
    ]
    for child in _children(joint):
        lines += _hierarchy(child, lengths, depth + 1)
    return [*lines, f"{indent}}}"]


def _local_turns(joints: np.ndarray) -> np.ndarray:
    """[17 T 3 3]: each joint's turn against its parent's."""
    at = {name: joints[:, column] for column, name in enumerate(H36M_17.joints)}
    world = np.tile(np.eye(3), (len(H36M_17), len(joints), 1, 1))
    local = world.copy()
    for joint in _depth_first(H36M_17.root_index):
        name, children = H36M_17.joints[joint], _children(joint)
        parent = next((parent for parent, child in H36M_17.bones if child == joint), None)
        above = np.tile(np.eye(3), (len(joints), 1, 1)) if parent is None else world[parent]
        if name == "pelvis":
            own = _frame(at["left_hip"] - at["right_hip"], at["spine"] - at["pelvis"])
        elif name == "thorax":
            own = _frame(at["left_shoulder"] - at["right_shoulder"], at["neck"] - at["thorax"])
        elif children:
            [child] = children
            rest = np.array(REST[H36M_17.joints[child]])
            own = _shortest_turn(above @ rest, joints[:, child] - joints[:, joint]) @ above
        else:
            own = above
        world[joint], local[joint] = own, above.transpose(0, 2, 1) @ own
    return local


def _frame(left: np.ndarray, up: np.ndarray) -> np.ndarray:
    """[T 3 3]: columns x along `left`, y as near to `up` as may be."""
    x = _unit(left)
    z = _unit(np.cross(x, up))
    return np.stack([x, np.cross(z, x), z], axis=-1)


def _shortest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """[T 3 3]: of least angle that turns `start` onto `end`."""
    start, end = _unit(start), _unit(end)
    # Two mirrors make a turn: one that swaps start for minus the middle, one that swaps that for end.
    middle = start + end
    aside = np.cross(start, np.where(np.abs(start[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]))
    middle = _unit(np.where(np.linalg.norm(middle, axis=-1, keepdims=True) > 1e-6, middle, aside))
    return _mirror(middle) @ _mirror(start)


def _mirror(normal: np.ndarray) -> np.ndarray:
    return 2.0 * normal[:, :, None] * normal[:, None] - np.eye(3)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _euler_zxy(turns: np.ndarray) -> np.ndarray:
    """[T 3 3] -> [T 3] degrees: R = Rz Rx Ry."""
    x = np.arcsin(np.clip(turns[:, 2, 1], -1.0, 1.0))
    z = np.arctan2(-turns[:, 0, 1], turns[:, 1, 1])
    y = np.arctan2(-turns[:, 2, 0], turns[:, 2, 2])
    return np.degrees(np.stack([z, x, y], axis=-1))
