"""Pictures for the studio's networks to learn from, and others to measure them on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from humanpose3d.camera import Camera
from humanpose3d.reports import progress
from humanpose3d.studio.film import (
    SUBACTIONS,
    TEST_SUBJECTS,
    TRAIN_SUBJECTS,
    StudioFrame,
    film,
    film_group,
    make_scene,
    random_scene,
)
from humanpose3d.studio.motion import ACTIONS
from humanpose3d.studio.room import CAMERA_IDS
from humanpose3d.studio.shoot import encode_jpeg

IMAGE_SIZE = 256  # pixels, of a picture
DEPTH_SIZE = 128  # pixels, of its depth map
FIRST_GUEST = 20_000  # of a group, among the seeds' random scenes
SPREAD_M, APART_M = 1.4, 0.45  # of a group: how far from the room's middle it stands, and from each other at least
FEWEST_SEEN = 4  # joints of somebody in a group, who else is no example
TRAIN, VAL = "train", "val"


def film_lessons(
    folder: Path,
    images: int,
    *,
    seed: int,
    groups_share: float = 0.0,
    val_images: int = 120,
    size: int = IMAGE_SIZE,
) -> None:
    """`train/` and `val/` in the folder, unless they are there; other seeds film other pictures. size: pixels."""
    for part, count, part_seed in ((TRAIN, images, seed + 1), (VAL, val_images, seed + 2)):
        if count and not (folder / part / "depth.npz").exists():
            film_training_set(folder / part, count, seed=part_seed, groups_share=groups_share, size=size)


def film_training_set(
    folder: Path,
    count: int,
    *,
    seed: int,
    subjects_share: float = 0.5,
    groups_share: float = 0.0,
    size: int = IMAGE_SIZE,
) -> None:
    """`count` pictures with labels: `images/*.jpg`, `labels/*.txt` (YOLO pose) and `depth.npz`.

    A share shows the training subjects in their room, the rest random people in random rooms; a share of both shows
    two to four people.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    depths, people, focals = [], [], []
    with progress("filming", count) as bar:
        for number in range(count):
            people_in_it = _draw_people(rng, seed, number, subjects_share, groups_share, size)
            frame, name = people_in_it[0], f"{number:06d}"
            (folder / "images" / f"{name}.jpg").write_bytes(encode_jpeg(frame.image))
            labels = [yolo_label(each) for each in people_in_it if len(people_in_it) == 1 or is_in_sight(each)]
            (folder / "labels" / f"{name}.txt").write_text("".join(labels))
            depths.append(
                cv2.resize(frame.depth_m, (DEPTH_SIZE, DEPTH_SIZE), interpolation=cv2.INTER_NEAREST).astype(np.float16)
            )
            people.append(
                cv2.resize(
                    np.any([each.person for each in people_in_it], axis=0).astype(np.uint8),
                    (DEPTH_SIZE, DEPTH_SIZE),
                    interpolation=cv2.INTER_NEAREST,
                )
                > 0
            )
            focals.append(frame.camera.K[0, 0])
            bar.advance()
    np.savez(folder / "depth.npz", depth_m=np.array(depths), person=np.array(people), focal_px=np.array(focals))


def _draw_people(
    rng: np.random.Generator, seed: int, number: int, subjects_share: float, groups_share: float, size: int
) -> list[StudioFrame]:
    """A picture: one frame, or one for each of a group."""
    frame = int(rng.integers(0, 200))
    if rng.random() < subjects_share:
        subject, action = str(rng.choice(TRAIN_SUBJECTS)), int(rng.choice(list(ACTIONS)))
        scene, camera = (
            make_scene(subject, action, int(rng.choice(SUBACTIONS)), size=size),
            int(rng.choice(CAMERA_IDS)),
        )
    else:  # three frames in a row share a scene and a camera: seeing an empty room costs more than a frame
        scene, camera = random_scene(100_000 * seed + number // 3, size=size), CAMERA_IDS[number // 3 % 4]
    people = [(scene, frame)]
    if groups_share and rng.random() < groups_share:
        people += [
            (
                random_scene(100_000 * seed + FIRST_GUEST + 3 * number + guest, size=size),
                int(rng.integers(0, 200)),
            )
            for guest in range(rng.integers(1, 4))
        ]
        spots_m = _draw_spots(rng, len(people), scene.cameras[camera])
        people = [(replace(who, moved_m=spot_m), when) for (who, when), spot_m in zip(people, spots_m, strict=True)]
    return film_group(people, camera, seed=number)


def _draw_spots(rng: np.random.Generator, people: int, camera: Camera) -> list[tuple[float, float]]:
    """World x, y: somewhere before the camera, beside, before and behind each other, and not inside."""
    ahead = camera.R[2, :2] / np.linalg.norm(camera.R[2, :2])
    spots: list[np.ndarray] = []
    while len(spots) < people:
        spot = rng.uniform(-SPREAD_M, SPREAD_M) * camera.R[0, :2] + rng.uniform(-SPREAD_M, SPREAD_M) * ahead
        if all(np.linalg.norm(spot - other) > APART_M for other in spots):
            spots.append(spot)
    return [(float(x), float(y)) for x, y in spots]


def is_in_sight(frame: StudioFrame) -> bool:
    """Whether somebody in a group is to be found: at least so many joints in the picture that nothing hides."""
    return int((frame.keypoint_flag == 2).sum()) >= FEWEST_SEEN


def yolo_label(frame: StudioFrame) -> str:
    """A line of YOLO pose format: class, box centre and size, then x, y, flag of each joint, as shares of the image."""
    height, width = frame.depth_m.shape
    low, high = np.clip(frame.box_px.reshape(2, 2) + 0.5, 0, [width, height])
    box = [*((low + high) / 2 / [width, height]), *((high - low) / [width, height])]
    # Shares are measured from the image's edge, our pixels from the first pixel's centre.
    joints = np.clip((frame.keypoints_px + 0.5) / [width, height], 0, 1)
    flags = frame.keypoint_flag
    values = [f"{x:.6f} {y:.6f} {flag}" if flag else "0 0 0" for (x, y), flag in zip(joints, flags, strict=True)]
    return " ".join(["0", *(f"{value:.6f}" for value in box), *values]) + "\n"


def read_lesson(path: Path) -> np.ndarray:
    """uint8 [H W 3] RGB."""
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f"{path} is missing or no image; empty the workplace and film it anew")
    return image[..., ::-1]


def unseen_frames(count: int = 240) -> list[StudioFrame]:
    """Frames of S9 and S11 spread over actions, subactions, cameras and time."""
    frames, actions = [], list(ACTIONS)
    for number in range(count):
        subject, action = TEST_SUBJECTS[number % 2], actions[number // 2 % len(actions)]
        frames.append(
            film(subject, action, 1 + number // 30 % 2, 1 + (number + number // 4) % 4, (7 * number) % 40, IMAGE_SIZE)
        )
    return frames
