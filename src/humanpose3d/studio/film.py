"""Filming: one frame of a named subject's take, or of a random scene, with every label exact.

Everything follows from the seed: the same request gives the same frame, bit for bit, in whatever order it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel, world_to_camera
from humanpose3d.sample import normalise_subject
from humanpose3d.skeletons import COCO_17, H36M_17
from humanpose3d.studio.motion import ACTIONS, Joints, Stool, Take, make_take, solve
from humanpose3d.studio.people import Person, random_person
from humanpose3d.studio.render import Picture, View, make_view, render
from humanpose3d.studio.room import CAMERA_IDS, Room, make_cameras, random_room

SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
TRAIN_SUBJECTS, TEST_SUBJECTS = SUBJECTS[:5], SUBJECTS[5:]
SUBACTIONS = (1, 2)
CAPTURE_FPS, FRAME_STEP = 50.0, 16  # Human3.6M's rate, and how many of its frames lie between two of ours
FPS = CAPTURE_FPS / FRAME_STEP
OCCLUSION_MARGIN_M = 0.05  # beyond the limb's own radius, before a joint counts as hidden
BOX_MARGIN = 1.2  # person boxes are the joints' extent times this, as in the 3DMPPE annotations
_ROOM, _PERSON, _CAMERAS, _TAKE, _GRAIN, _RANDOM = range(6)  # what a random stream is for

# How deep a joint lies under the skin or the cloth, metres at most, for its visibility.
_JOINT_DEPTH_M = {
    "shoulder": 0.09,
    "elbow": 0.06,
    "wrist": 0.05,
    "hip": 0.13,
    "knee": 0.08,
    "ankle": 0.06,
    "nose": 0.02,
    "eye": 0.02,
    "ear": 0.03,
}


@dataclass(frozen=True, eq=False)
class StudioFrame:
    """One filmed frame: picture, depth and labels."""

    subject: str
    action: int  # Human3.6M's number, 2 to 16
    action_name: str
    subaction: int
    camera_id: int
    frame_index: int  # 0-based, in the take
    fps: float
    image: np.ndarray  # uint8 [H W 3] RGB
    depth_m: np.ndarray  # float32 [H W], camera z at the pixel centres
    person: np.ndarray  # bool [H W]: pixels that show the person
    camera: Camera  # without distortion
    joints_world_m: np.ndarray  # float32 [17 3], H36M_17
    joints_cam_m: np.ndarray  # float32 [17 3]
    joints_px: np.ndarray  # float32 [17 2]
    keypoints_px: np.ndarray  # float32 [17 2], COCO_17
    keypoint_flag: np.ndarray  # int64 [17]: 0 out of the image, 1 hidden, 2 seen
    box_px: np.ndarray  # float32 [4] x0 y0 x1 y1 around the person's pixels


@dataclass(frozen=True, eq=False)
class Scene:
    """Someone's take in a room, with the cameras that film it."""

    subject: str
    action: int
    subaction: int
    person: Person
    take: Take
    room: Room
    room_seed: tuple[int, ...]
    cameras: dict[int, Camera]
    size: int  # pixels, the images' side
    fps: float = FPS
    moved_m: tuple[float, float] = (0.0, 0.0)  # world x, y: how far from the room's middle the take is played

    def joints_at(self, frame: int) -> Joints:
        """The joints of the take's frame, whatever the camera."""
        joints, by_m = solve(self.take.pose_at(frame / self.fps), self.person.body), (*self.moved_m, 0.0)
        return replace(joints, h36m=joints.h36m + by_m, coco=joints.coco + by_m, head_centre=joints.head_centre + by_m)

    @property
    def stool(self) -> Stool | None:
        stool, (x, y) = self.take.stool, self.moved_m
        return None if stool is None else replace(stool, x=stool.x + x, y=stool.y + y)


def _stream(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(numbers)


def subject_number(subject: str | int) -> int:
    """9 of 'S9', 's09' or 9. ValueError for people who are not in the studio."""
    name = normalise_subject(subject)
    if name not in SUBJECTS:
        raise ValueError(f"the studio has no subject '{subject}'; it has {', '.join(SUBJECTS)}")
    return int(name[1:])


@lru_cache(maxsize=64)
def make_scene(subject: str | int, action: int, subaction: int, *, size: int = 256, seed: int = 0) -> Scene:
    """A take of one of the seven subjects. All of them share one room; each has cameras calibrated anew."""
    number = subject_number(subject)
    return cast_scene(f"S{number}", number, action, subaction, size=size, seed=seed)


@lru_cache(maxsize=64)
def cast_scene(
    name: str, number: int, action: int, subaction: int, *, size: int = 256, seed: int = 0, fps: float = FPS
) -> Scene:
    """A take of person `number` of this seed, called `name`, at `fps` frames a second; room and cameras as above."""
    person = random_person(_stream(seed, _PERSON, number))
    return Scene(
        subject=name,
        action=action,
        subaction=subaction,
        person=person,
        take=make_take(action, person.body, _stream(seed, _TAKE, number, action, subaction)),
        room=random_room(_stream(seed, _ROOM)),
        room_seed=(seed, _ROOM),
        cameras=make_cameras(_stream(seed, _CAMERAS, number), size),
        size=size,
        fps=fps,
    )


def random_scene(seed: int, *, size: int = 256) -> Scene:
    """Anybody, dressed anyhow, doing anything in any room before less regular cameras: variety to train networks on."""
    rng = _stream(seed, _RANDOM)
    person, action = random_person(rng), int(rng.choice(list(ACTIONS)))
    return Scene(
        subject=f"random{seed}",
        action=action,
        subaction=1,
        person=person,
        take=make_take(action, person.body, rng),
        room=random_room(rng),
        room_seed=(seed, _RANDOM, _ROOM),
        cameras=make_cameras(rng, size, spread=2.5),
        size=size,
    )


def film(
    subject: str | int, action: int, subaction: int, camera: int, frame: int, size: int = 256, *, seed: int = 0
) -> StudioFrame:
    """One frame of a subject's take through camera 1 to 4."""
    return film_scene(make_scene(subject, action, subaction, size=size, seed=seed), camera, frame, seed=seed)


def film_scene(scene: Scene, camera_id: int, frame: int, *, seed: int = 0) -> StudioFrame:
    """One frame of a scene. `seed` only changes the sensor noise here."""
    if camera_id not in scene.cameras:
        raise ValueError(f"the studio has cameras {', '.join(map(str, CAMERA_IDS))}, not {camera_id}")
    camera, joints = scene.cameras[camera_id], scene.joints_at(frame)
    view = _view(scene, camera_id)
    grain = _stream(seed, _GRAIN, scene.action, scene.subaction, camera_id, frame)
    picture = render(view, scene.person, joints, scene.stool, grain)
    joints_cam_m, coco_cam_m = world_to_camera(joints.h36m, camera), world_to_camera(joints.coco, camera)
    keypoints_px = camera_to_pixel(coco_cam_m, camera)
    joints_px = camera_to_pixel(joints_cam_m, camera)
    return StudioFrame(
        subject=scene.subject,
        action=scene.action,
        action_name=ACTIONS[scene.action][0],
        subaction=scene.subaction,
        camera_id=camera_id,
        frame_index=frame,
        fps=scene.fps,
        image=picture.image,
        depth_m=picture.depth_m,
        person=picture.person,
        camera=camera,
        joints_world_m=joints.h36m.astype(np.float32),
        joints_cam_m=joints_cam_m.astype(np.float32),
        joints_px=joints_px.astype(np.float32),
        keypoints_px=keypoints_px.astype(np.float32),
        keypoint_flag=_keypoint_flags(keypoints_px, coco_cam_m, picture, scene.person.body.girth),
        box_px=_box(picture.person, joints_px),
    )


def film_group(people: Sequence[tuple[Scene, int]], camera_id: int, *, seed: int = 0) -> list[StudioFrame]:
    """Several people in one picture: (scene, frame of its take) of each -> as many frames, which all show all of them.

    The room and its cameras are the first one's. Each is filmed alone, and of everything the nearest is seen.
    """
    place = people[0][0]
    alone = [
        film_scene(replace(scene, room=place.room, room_seed=place.room_seed, cameras=place.cameras), camera_id, frame,
                   seed=seed + number)
        for number, (scene, frame) in enumerate(people)
    ]  # fmt: skip
    depths = np.stack([frame.depth_m for frame in alone])
    nearest, depth_m = depths.argmin(0), depths.min(0)
    image = np.take_along_axis(np.stack([frame.image for frame in alone]), nearest[None, ..., None], 0)[0]
    is_room = (depths == depth_m).all(0)
    image[is_room] = np.min([frame.image[is_room] for frame in alone], axis=0)  # everybody's shadow
    return [
        replace(
            frame,
            image=image,
            depth_m=depth_m,
            person=(seen := frame.person & (frame.depth_m == depth_m)),
            keypoint_flag=_behind_others(frame, depth_m),
            box_px=_box(seen, frame.joints_px),
        )
        for frame in alone
    ]


def _behind_others(frame: StudioFrame, depth_m: np.ndarray) -> np.ndarray:
    """The keypoints' flags where this is the depth of all there is: what others are before is not seen."""
    flags = frame.keypoint_flag.copy()
    columns, rows = np.round(frame.keypoints_px[flags == 2]).astype(int).T
    flags[flags == 2] = np.where(depth_m[rows, columns] < frame.depth_m[rows, columns], 1, 2)
    return flags


_VIEWS: dict[tuple, View] = {}
_VIEWS_KEPT = 28  # all cameras of all subjects; 7 MB each at 256 px


def _view(scene: Scene, camera_id: int) -> View:
    """The empty room through one camera, kept for the next frames."""
    camera = scene.cameras[camera_id]
    key = (scene.room_seed, camera.K.tobytes(), camera.R.tobytes(), camera.t_m.tobytes(), scene.size)
    view = _VIEWS.pop(key, None)
    if view is None:
        while len(_VIEWS) >= _VIEWS_KEPT:
            _VIEWS.pop(next(iter(_VIEWS)))
        # The walls' unevenness belongs to the room, so that all cameras see the same.
        view = make_view(scene.room, camera, scene.size, _stream(*scene.room_seed, 1))
    _VIEWS[key] = view  # last: the longest unused goes first
    return view


def _keypoint_flags(keypoints_px: np.ndarray, coco_cam_m: np.ndarray, picture: Picture, girth: float) -> np.ndarray:
    """int64 [17]: 2 where the joint's own limb is seen at it, 1 where something hides it, 0 off the image."""
    size = picture.depth_m.shape[0]
    columns, rows = np.round(np.nan_to_num(keypoints_px, nan=-9.0)).astype(int).T
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    depth = picture.depth_m[np.clip(rows, 0, size - 1), np.clip(columns, 0, size - 1)]
    under = np.array([_JOINT_DEPTH_M[name.split("_")[-1]] for name in COCO_17.joints]) * girth
    seen = depth > coco_cam_m[:, 2] - under - OCCLUSION_MARGIN_M
    return np.where(inside, np.where(seen, 2, 1), 0).astype(np.int64)


def _box(person: np.ndarray, joints_px: np.ndarray) -> np.ndarray:
    """float32 [4]: the outer edges of the person's pixels; of the joints where no pixel shows."""
    x, y, width, height = cv2.boundingRect(person.astype(np.uint8))
    if width == 0:
        return np.concatenate([np.nanmin(joints_px, 0), np.nanmax(joints_px, 0)]).astype(np.float32)
    return np.array([x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5], np.float32)


def mean_pose(subjects: tuple[str, ...] = TRAIN_SUBJECTS, *, frames: int = 8, seed: int = 0) -> np.ndarray:
    """float64 [17 3]: the mean root-relative pose in the camera frame over takes and cameras, metres."""
    return np.mean(
        [root_relative for _, root_relative in root_relative_poses(subjects, frames=frames, seed=seed)], axis=0
    )


def root_relative_poses(subjects: tuple[str, ...], *, frames: int = 8, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """(subject, float64 [17 3] root-relative camera-frame joints) of every action, both subactions, all cameras."""
    poses = []
    for subject in subjects:
        for action in ACTIONS:
            for subaction in SUBACTIONS:
                scene = make_scene(subject, action, subaction, seed=seed)
                for frame in range(frames):
                    joints = scene.joints_at(frame).h36m
                    root = joints[H36M_17.root_index]
                    poses += [(scene.subject, (joints - root) @ camera.R.T) for camera in scene.cameras.values()]
    return poses
