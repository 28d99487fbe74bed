"""Sets filmed by the studio, without networks: keypoints are the true ones with a little noise."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from humanpose3d.sample import PoseSample, make_key
from humanpose3d.studio.film import FPS, StudioFrame, film
from humanpose3d.warp import in_view
from tests.chunks.sets import write_set

SIZE = 128
SUBJECTS, CAMERAS, ACTIONS, FRAMES = ("S1", "S9"), (1, 2, 3), (3, 14), 6


@lru_cache(maxsize=1)
def studio_samples() -> tuple[PoseSample, ...]:
    """72 samples: two people, three cameras, two takes of six frames."""
    rng = np.random.default_rng(0)
    return tuple(
        _sample(film(subject, action, 1, camera, frame, SIZE), rng)
        for subject in SUBJECTS
        for action in ACTIONS
        for camera in CAMERAS
        for frame in range(FRAMES)
    )


def _sample(frame: StudioFrame, rng: np.random.Generator) -> PoseSample:
    action, camera_id = f"{frame.action_name} {frame.subaction}", f"cam{frame.camera_id}"
    noise = rng.normal(scale=0.004 * SIZE, size=frame.keypoints_px.shape)
    return PoseSample(
        key=make_key("h36m", frame.subject, action, camera_id, f"{frame.frame_index:06d}", "p0"),
        image=frame.image,
        image_size_wh=(SIZE, SIZE),
        depth_m=cv2.resize(frame.depth_m, (SIZE // 2, SIZE // 2), interpolation=cv2.INTER_NEAREST),
        keypoints_px=(frame.keypoints_px + noise).astype(np.float32),
        keypoint_score=rng.uniform(0.7, 1.0, len(frame.keypoints_px)).astype(np.float32),
        keypoint_skeleton="coco_17",
        joints_px=frame.joints_px,
        joints_cam_m=frame.joints_cam_m,
        joint_score=np.ones(17, np.float32),
        joint_in_view=in_view(frame.joints_px, (SIZE, SIZE)),
        skeleton="h36m_17",
        camera=frame.camera,
        box_px=np.clip(frame.box_px, 0, SIZE - 1).astype(np.float32),
        corpus="human36m",
        subject=frame.subject,
        action=action,
        camera_id=camera_id,
        frame_index=frame.frame_index,
        fps=FPS,
        provenance={"image_file": f"{frame.subject}/{action}/{camera_id}/{frame.frame_index:06d}.jpg"},
    )


def swapped(sample: PoseSample) -> PoseSample:
    """Left and right changed over in the labels."""
    from humanpose3d.skeletons import H36M_17

    order = H36M_17.flip_permutation
    assert sample.joints_cam_m is not None and sample.joints_px is not None
    return sample.with_(joints_cam_m=sample.joints_cam_m[order], joints_px=sample.joints_px[order])


def write_studio_set(location: str | Path, samples=None, **settings) -> None:
    """A finished set of these samples, or of all."""
    write_set(location, studio_samples() if samples is None else samples, chunk_size=25, **settings)
