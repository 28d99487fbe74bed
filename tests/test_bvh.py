"""Motion as BVH: read back by the format's own rules, every joint is where it was, but for its bones' mean lengths."""

from __future__ import annotations

import numpy as np
import pytest

from humanpose3d.bvh import to_bvh
from humanpose3d.skeletons import H36M_17
from humanpose3d.studio.motion import ACTIONS, make_take, solve
from humanpose3d.studio.people import random_person


def walked(action: int, frames: int = 20) -> np.ndarray:
    """float64 [T 17 3] of the studio, camera frame of a level camera."""
    rng = np.random.default_rng(action)
    body = random_person(rng).body
    take = make_take(action, body, rng)
    joints = np.array([solve(take.pose_at(frame / 10.0), body).h36m for frame in range(frames)])
    return joints[..., [0, 2, 1]] * [1.0, -1.0, 1.0] + [0.0, 1.0, 5.0]


def read_bvh(text: str) -> tuple[list[str], np.ndarray, float]:
    """(names, metres [T J 3] in the file's axes, seconds a frame), written from the format's description."""
    head, motion = text.split("MOTION")
    words = head.split()
    names, offsets, parents, channels, stack, i = [], [], [], [], [], 0
    while i < len(words):
        if words[i] in ("ROOT", "JOINT", "End"):
            names.append(words[i + 1])
            parents.append(stack[-1] if stack else None)
            channels.append(0)
        elif words[i] == "{":
            stack.append(len(names) - 1)
        elif words[i] == "}":
            stack.pop()
        elif words[i] == "OFFSET":
            offsets.append([float(word) for word in words[i + 1 : i + 4]])
        elif words[i] == "CHANNELS":
            channels[-1] = int(words[i + 1])
        i += 1
    lines = motion.strip().splitlines()
    assert lines[0] == f"Frames: {len(lines) - 2}"
    rows = np.array([[float(word) for word in line.split()] for line in lines[2:]])
    assert rows.shape[1] == sum(channels)

    def about(axis: int, degrees: np.ndarray) -> np.ndarray:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.tile(np.eye(3), (len(degrees), 1, 1))
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[:, a, a], turn[:, a, b], turn[:, b, a], turn[:, b, b] = c, -s, s, c
        return turn

    places, turns, at = [], [], 0
    for number, parent in enumerate(parents):
        if parent is None:
            places.append(rows[:, :3])
            at, above = 3, np.tile(np.eye(3), (len(rows), 1, 1))
        else:
            above = turns[parent]
            places.append(places[parent] + above @ np.array(offsets[number]))
        if channels[number]:
            z, x, y = rows[:, at : at + 3].T
            at += 3
            turns.append(above @ about(2, z) @ about(0, x) @ about(1, y))
        else:
            turns.append(above)
    return names, np.stack(places, axis=1) / 100.0, float(lines[1].split()[-1])


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_joints_are_where_they_were(action):
    joints = walked(action)
    names, found, frame_s = read_bvh(to_bvh(joints.astype(np.float32), 10.0))
    assert frame_s == pytest.approx(0.1)
    expected = joints * [1.0, -1.0, -1.0]
    order = [name for name in names if name != "Site"]
    assert order[0] == "pelvis" and set(order) <= set(H36M_17.joints)
    for place, name in zip(found.transpose(1, 0, 2), names, strict=True):
        if name != "Site":
            error_m = np.linalg.norm(place - expected[:, H36M_17.index(name)], axis=-1)
            # Hips and shoulders are off the pelvis' and the chest's own axes in some poses: by the mean that is little.
            assert error_m.max() < 0.06, name


def test_turned_straight_over_and_holes():
    joints = walked(14, 3)
    arm = [H36M_17.index(f"left_{joint}") for joint in ("shoulder", "elbow", "wrist")]
    joints[:, arm[2]] = joints[:, arm[1]] - (joints[:, arm[1]] - joints[:, arm[0]])  # folded back upon itself
    assert "nan" not in to_bvh(joints, 25.0)
    joints[1, 3] = np.nan
    with pytest.raises(ValueError, match="without holes"):
        to_bvh(joints, 25.0)
    with pytest.raises(ValueError, match=r"not \[4, 16, 3\]"):
        to_bvh(np.zeros((4, 16, 3)), 25.0)
