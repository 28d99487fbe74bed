"""Evidence without pictures: the studio's people seen by its cameras, keypoints as a detector finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from humanpose3d.camera import camera_to_pixel, world_to_camera
from humanpose3d.checks.evidence import Evidence
from humanpose3d.sample import PoseSample, make_key
from humanpose3d.skeletons import get_skeleton
from humanpose3d.studio.film import cast_scene
from humanpose3d.studio.joint_sets import joints_in

SUBJECTS = ("S1", "S5", "S9")
CAMERAS = (1, 2, 3, 4)
ACTIONS = (2, 14)  # pointing, walking
FRAMES = 10
KEYPOINT_NOISE_PX = 3.0

Change = Callable[[PoseSample], PoseSample]


def samples(skeleton: str = "h36m_17", seed: int = 0) -> Iterator[PoseSample]:
    """240 samples: three people, four cameras, two takes of ten frames."""
    rng = np.random.default_rng(seed)
    for number, subject in enumerate(SUBJECTS):
        for action in ACTIONS:
            scene = cast_scene(subject, 400 + 10 * seed + number, action, 1, seed=seed)
            for camera_id in CAMERAS:
                camera = scene.cameras[camera_id]
                for frame in range(FRAMES):
                    joints = scene.joints_at(frame)
                    joints_cam_m = world_to_camera(joints_in(joints, get_skeleton(skeleton)), camera)
                    keypoints_px = camera_to_pixel(world_to_camera(joints.coco, camera), camera)
                    keypoints_px += rng.normal(0, KEYPOINT_NOISE_PX, keypoints_px.shape)
                    joints_px = camera_to_pixel(joints_cam_m, camera)
                    yield PoseSample(
                        key=make_key("test", subject, action, camera_id, f"{frame:06d}", "p0"),
                        image_size_wh=(256, 256),
                        keypoints_px=keypoints_px.astype(np.float32),
                        keypoint_score=np.full(17, 0.9, np.float32),
                        keypoint_skeleton="coco_17",
                        joints_px=joints_px.astype(np.float32),
                        joints_cam_m=joints_cam_m.astype(np.float32),
                        joint_score=np.ones(len(joints_px), np.float32),
                        skeleton=skeleton,
                        camera=camera,
                        box_px=np.concatenate([joints_px.min(0), joints_px.max(0)]).astype(np.float32),
                        corpus="test",
                        subject=subject,
                        action=str(action),
                        camera_id=str(camera_id),
                        frame_index=frame,
                        fps=50.0,
                    )


def evidence_of(
    skeleton: str, seed: int, change: Change | None = None, *, subject: str | None = None, camera: str | None = None
) -> Evidence:
    """The samples, those of one subject and camera (None: of all) changed."""
    evidence = Evidence()
    for sample in samples(skeleton, seed):
        hit = subject in (None, sample.subject) and camera in (None, sample.camera_id)
        evidence.add(change(sample) if change is not None and hit else sample)
    return evidence
