"""An image -> the people in it, in metres: the networks for its cues, the lifter, and the camera that it is seen by.

    from humanpose3d import Pipeline
    people = Pipeline().predict("photo.jpg")

What infer.py does for a folder, for one picture; folders and files are `inference.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.dataset.augmentation import fit_view
from humanpose3d.dataset.collator import DEFAULT_FOV_DEG, Human36MCollator
from humanpose3d.dataset.keypoint_batches import KeypointDecoder
from humanpose3d.estimators.cues import CueNetworks
from humanpose3d.estimators.hourglass import HourglassJoints, hand_views
from humanpose3d.estimators.weights import pick_device, sha256_of
from humanpose3d.images import exif_focal_px, read_image
from humanpose3d.joint_definitions import like_human36m
from humanpose3d.model_config import BodyConfig
from humanpose3d.models.checkpoint import LoadedModel, find_packaged, load_model
from humanpose3d.models.hps import BodyPrediction
from humanpose3d.models.smpl_body import SmplBody, load_bodies
from humanpose3d.rotations import matrix_to_axis_angle
from humanpose3d.sample import PoseSample, make_key
from humanpose3d.sidecars import Person, Sidecar
from humanpose3d.skeletons import HAND_21, get_skeleton

JointDefinitions = Literal["auto", "trained", "human36m"]
Chosen = Literal["all", "largest", "first"]
BODY_MODEL = "data/body_models"
PEOPLE_AT_ONCE = 64  # through the pose model; bounds memory where a photograph holds a crowd


class Picture(NamedTuple):
    """An image on its way through."""

    name: Path
    image: np.ndarray  # uint8 [H W 3] RGB, upright
    exif_focal_px: float | None = None  # what its file says of the lens


@dataclass(frozen=True, eq=False)
class Seen:
    """What the networks say of one image, before anything is lifted."""

    picture: Picture
    cues: Sidecar
    camera: Camera
    camera_source: str
    tracks: Sequence[int | None] = ()  # of a video's frame: each person's number through it
    keypoint_windows: Sequence[np.ndarray] = ()  # float32 [T Jin 3] each: x, y, score in the frames around
    window_fps: float | None = None


@dataclass(frozen=True, eq=False)
class Bodies:
    """SMPL's people of one image, by a body regressor; the neutral body."""

    pose_rad: np.ndarray  # float32 [people 24 3], axis-angle; the root's orientation in the camera frame
    betas: np.ndarray  # float32 [people 10]
    trans_m: np.ndarray  # float32 [people 3], camera frame
    vertices_cam_m: np.ndarray  # float32 [people V 3]

    def __getitem__(self, some: slice) -> Bodies:
        return Bodies(self.pose_rad[some], self.betas[some], self.trans_m[some], self.vertices_cam_m[some])


@dataclass(frozen=True, eq=False)
class Result:
    """What is known about one image in the end."""

    name: Path  # relative to the input folder
    image: np.ndarray  # uint8 [H W 3] RGB, upright
    cues: Sidecar
    camera: Camera
    camera_source: str  # where the focal length comes from, in words
    joints_cam_m: np.ndarray  # float32 [people J 3], camera frame
    root_cam_m: np.ndarray  # float32 [people 3]
    hands: Sequence[Hand] = ()
    tracks: Sequence[int | None] = ()  # of a video's frame: each person's number through it
    bodies: Bodies | None = None  # by a body regressor

    def people(self, joints: tuple[str, ...]) -> list[PersonPose]:
        """One by one; `joints`: the names of the model's."""
        return [
            PersonPose(
                person.box_px, person.score, person.keypoints_px, person.keypoint_score, joints_cam_m, root_cam_m,
                camera_to_pixel(joints_cam_m, self.camera).astype(np.float32), joints,
            )
            for person, joints_cam_m, root_cam_m in zip(
                self.cues.people, self.joints_cam_m, self.root_cam_m, strict=True
            )
        ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Hand:
    """One hand as the hourglass found it."""

    person: int  # whose: number among the people; 0 where the picture shows a hand alone
    side: str  # "left" or "right"
    box_px: np.ndarray  # float32 [4]
    points_px: np.ndarray  # float32 [21 2], hand_21
    score: np.ndarray  # float32 [21]


@dataclass(frozen=True, eq=False)
class PersonPose:
    """One person in one picture."""

    box_px: np.ndarray  # float32 [4], x0 y0 x1 y1
    score: float  # of the box, 0..1
    keypoints_px: np.ndarray  # float32 [Jin 2], as the 2D network found them
    keypoint_score: np.ndarray  # float32 [Jin]
    joints_cam_m: np.ndarray  # float32 [J 3], metres, camera frame: x right, y down, z forward
    root_cam_m: np.ndarray  # float32 [3]
    joints_px: np.ndarray  # float32 [J 2], the joints' projection
    joints: tuple[str, ...]  # their names


class Pipeline:
    """Everything between a picture and its people, loaded once."""

    def __init__(
        self,
        checkpoint: str | Path = "lifter",
        *,
        yolo_model: str = "yolo11x-pose",
        depth_model: str | None = "apple/DepthPro-hf",
        keypoints: str = "yolo",
        hands: str | Path | None = None,
        model_type: str | None = None,
        joint_definitions: JointDefinitions = "auto",
        focal_px: float | None = None,
        fov_deg: float | None = None,
        person: Chosen = "all",
        max_people: int = 0,
        min_score: float = 0.25,
        flip_test: bool = False,
        body_model: str | Path = BODY_MODEL,
        device: str = "auto",
    ) -> None:
        """checkpoint: a file of main.py, or the name of one that comes with the package. depth_model: None for none.

        keypoints: "yolo" or "hourglass:CHECKPOINT". hands: an hourglass of hands. The lens: `focal_px` or `fov_deg`
        (along the longer side) of every picture, else what the picture's EXIF says, else the depth network's estimate,
        else 55 degrees. person: all of them, the one with the largest box, or the one that the detector is surest of;
        max_people: at most so many, the surest; 0 for no limit. min_score: of a person's box.
        flip_test: keypoints by the picture and its mirror image.
        ValueError, FileNotFoundError: what cannot be loaded, in one line.
        """
        if focal_px is not None and fov_deg is not None:
            raise ValueError("give the focal length or the field of view, not both")
        self.lifter = Lifter(checkpoint, device, model_type, joint_definitions, body_model)
        self.networks = CueNetworks(yolo_model, depth_model, device, keypoints, min_score, flip_test=flip_test)
        self.hands = None if hands is None else HourglassJoints(hands, device)
        if self.hands is not None and self.hands.skeleton is not HAND_21:
            raise ValueError(
                f"{hands} finds {self.hands.skeleton.name}; --hands takes an hourglass trained on {HAND_21.name}"
            )
        self.focal_px, self.fov_deg = focal_px, fov_deg
        self.person, self.max_people = person, max_people

    @property
    def settings(self) -> dict[str, Any]:
        """What its answers depend on, as plain values."""
        return {
            "model": self.lifter.provenance,
            "networks": list(self.networks.names[:2]),
            "keypoints": self.networks.hourglass,
            "hands": None if self.hands is None else self.hands.provenance,
            "lens": [self.focal_px, self.fov_deg],
            "people": [self.person, self.max_people, self.networks.min_score],
            **({"flip_test": True} if self.networks.flip_test else {}),  # results of earlier versions stay complete
        }

    def predict(self, image: str | Path | np.ndarray) -> list[PersonPose]:
        """A picture, as a path or as uint8 [H W 3] RGB -> its people, the surest first. ValueError: no picture."""
        if isinstance(image, np.ndarray):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(f"an image is uint8 [H W 3] RGB, not {image.dtype} {list(image.shape)}")
            picture = Picture(Path("image"), image)
        else:
            picture = Picture(Path(image), read_image(Path(image)), exif_focal_px(Path(image)))
        [result] = self.run([picture])
        return result.people(self.lifter.skeleton.joints)

    def run(self, pictures: Sequence[Picture]) -> Iterator[Result]:
        """Pictures of any sizes through the networks at once -> results in the same order."""
        yield from self.lift(self.look(pictures))

    def look(self, pictures: Sequence[Picture]) -> list[Seen]:
        """The first half of `run`: who is where in the pictures, in 2D."""
        if not pictures:
            return []
        cues = [self._chosen(found) for found in self.networks.cues([picture.image for picture in pictures])]
        return [
            Seen(picture, found, *self._camera(picture, found)) for picture, found in zip(pictures, cues, strict=True)
        ]

    def lift(self, seen: Sequence[Seen]) -> Iterator[Result]:
        """The second half: in 3D, and the hands."""
        for result in self.lifter.lift(seen):
            yield result if self.hands is None else replace(result, hands=_hands(result, self.hands))

    def _chosen(self, cues: Sidecar) -> Sidecar:
        people = list(cues.people)
        if self.person == "largest" and people:
            people = [max(people, key=_area)]
        elif self.person == "first":
            people = people[:1]
        return replace(cues, people=people[: self.max_people or None])

    def _camera(self, picture: Picture, cues: Sidecar) -> tuple[Camera, str]:
        width, height = cues.image_size_wh
        for focal_px, source in (
            (self.focal_px, "focal length as given"),
            (None if self.fov_deg is not None else picture.exif_focal_px, "focal length by the picture's EXIF"),
            (None if self.fov_deg is not None else cues.focal_px, "focal length estimated by the depth network"),
        ):
            if focal_px is not None:
                return Camera.create(focal_px, ((width - 1) / 2, (height - 1) / 2)), source
        fov_deg = DEFAULT_FOV_DEG if self.fov_deg is None else self.fov_deg
        source = f"{'assumed' if self.fov_deg is None else 'given'} field of view of {fov_deg:g} degrees"
        return Camera.from_fov(cues.image_size_wh, fov_deg), source


def _area(person: Person) -> float:
    return float(np.prod(person.box_px[2:] - person.box_px[:2]))


class Lifter:
    """A trained model and what surrounds it: from an image's cues to people in metres."""

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "auto",
        model_type: str | None = None,
        joint_definitions: JointDefinitions = "auto",
        body_model: str | Path = BODY_MODEL,
    ) -> None:
        """checkpoint: a file, or the name of one that comes with the package (`models.checkpoint.PACKAGED`).

        joint_definitions: where joints lie; "auto" is "human36m" for the package's own, else "trained". body_model:
        SMPL's files, for the checkpoint of a body regressor.
        ValueError where the checkpoint is not ours, or holds another kind of model than `model_type`.
        """
        self.device = pick_device(device)
        self.loaded: LoadedModel = load_model(checkpoint, self.device)
        config = self.loaded.config
        if model_type is not None and model_type != config.model_type:
            raise ValueError(
                f"{checkpoint} holds a {config.model_type}, not a {model_type}; leave --model_type out or correct it"
            )
        if config.model_type == "hourglass":
            raise ValueError(
                f"{checkpoint} is an hourglass, which finds 2D joints: give it as --keypoints hourglass:{checkpoint} "
                "(of hands: --hands), beside the checkpoint of a lifter"
            )
        self.skeleton = get_skeleton(config.skeleton)
        self.keypoint_skeleton = get_skeleton(config.keypoint_skeleton)
        if joint_definitions == "auto":
            joint_definitions = "human36m" if find_packaged(checkpoint) is not None else "trained"
        if joint_definitions == "human36m" and config.skeleton != "h36m_17":
            raise ValueError(f"{checkpoint} answers in {config.skeleton}; --joint-definitions human36m needs h36m_17")
        self.joint_definitions = joint_definitions
        self.window = 1 if self.sees_pictures else getattr(config, "window", 1)  # frames of keypoints it looks at
        self.body = None
        if isinstance(config, BodyConfig):
            self.body = load_bodies(body_model).neutral.to(self.device).eval()
        self.collate = (
            Human36MCollator(
                config.skeleton, config.keypoint_skeleton, depth=config.use_depth, keypoints=config.reads_keypoints
            )
            if self.sees_pictures
            else KeypointDecoder(config.skeleton, config.keypoint_skeleton, depth=config.use_depth, window=self.window)
        )
        self.provenance = {
            "model_type": config.model_type,
            "model_size": config.size,
            "checkpoint": str(checkpoint),
            "sha256": sha256_of(find_packaged(checkpoint) or Path(checkpoint)),
            "joint_definitions": joint_definitions,
        }

    @property
    def sees_pictures(self) -> bool:
        """False for a network that needs the cues alone."""
        return "image" in self.loaded.config.needs

    def lift(self, seen: Sequence[Seen]) -> Iterator[Result]:
        """Results in the same order. ValueError: other keypoints than the model's."""
        for found in (each.cues for each in seen if self.loaded.config.reads_keypoints):
            if found.people and found.keypoint_skeleton != self.keypoint_skeleton.name:
                raise ValueError(
                    f"the model reads keypoints in {self.keypoint_skeleton.name}, and those found are in "
                    f"{found.keypoint_skeleton}; leave out --keypoints, or train on chunks with such keypoints"
                )
        views = [
            fit_view(sample, self.loaded.config.input_size) if self.sees_pictures else sample
            for each in seen
            for sample in _samples(each)
        ]
        joints_cam_m, root_cam_m, bodies = self._predict(views)
        if self.joint_definitions == "human36m":
            joints_cam_m = like_human36m(joints_cam_m)
            root_cam_m = joints_cam_m[:, self.skeleton.root_index]
        first = 0
        for each in seen:
            mine = slice(first, first + len(each.cues.people))
            first = mine.stop
            yield Result(
                each.picture.name, each.picture.image, each.cues, each.camera, each.camera_source,
                joints_cam_m[mine], root_cam_m[mine], tracks=each.tracks,
                bodies=None if bodies is None else bodies[mine],
            )  # fmt: skip

    def _predict(self, views: Sequence[PoseSample]) -> tuple[np.ndarray, np.ndarray, Bodies | None]:
        """(float32 [N J 3] joints, float32 [N 3] roots, the bodies of a body regressor), camera frame."""
        joints = [np.zeros((0, len(self.skeleton), 3), np.float32)]
        roots = [np.zeros((0, 3), np.float32)]
        bodies: list[Bodies] = []
        for start in range(0, len(views), PEOPLE_AT_ONCE):
            batch = self.collate(views[start : start + PEOPLE_AT_ONCE]).to(self.device)
            with torch.inference_mode():
                prediction = self.loaded.model(batch)
                if self.body is not None:
                    posed = self._posed(self.body, prediction)
                    bodies.append(posed[0])
                    joints.append(posed[1])
                else:
                    joints.append(prediction.joints_cam_m.float().cpu().numpy())
            roots.append(prediction.root_cam_m.float().cpu().numpy())
        return np.concatenate(joints), np.concatenate(roots), _together(bodies) if bodies else None

    def _posed(self, body: SmplBody, prediction: BodyPrediction) -> tuple[Bodies, np.ndarray]:
        """(the bodies, float32 [N 24 3] their joints), the pelvis where it was answered to be."""
        surface = body(prediction.rotations, prediction.betas)
        trans_m = (prediction.root_cam_m - surface.joints_m[:, self.skeleton.root_index])[:, None]
        pose_rad = matrix_to_axis_angle(prediction.rotations.double().cpu().numpy()).astype(np.float32)
        vertices_m, joints_m = (
            part.cpu().numpy() for part in (surface.vertices_m + trans_m, surface.joints_m + trans_m)
        )
        return Bodies(pose_rad, prediction.betas.cpu().numpy(), trans_m[:, 0].cpu().numpy(), vertices_m), joints_m


def _together(bodies: Sequence[Bodies]) -> Bodies:
    return Bodies(*(np.concatenate([getattr(each, part.name) for each in bodies]) for part in fields(Bodies)))


def _samples(seen: Seen) -> list[PoseSample]:
    return [
        PoseSample(
            key=make_key(*seen.picture.name.with_suffix("").parts, f"p{number}"),
            image=seen.picture.image,
            image_size_wh=seen.cues.image_size_wh,
            depth_m=seen.cues.depth_m,
            keypoints_px=person.keypoints_px,
            keypoint_score=person.keypoint_score,
            keypoint_skeleton=seen.cues.keypoint_skeleton,
            keypoint_window=seen.keypoint_windows[number] if seen.keypoint_windows else None,
            window_fps=seen.window_fps,
            camera=seen.camera,
            box_px=person.box_px,
        )
        for number, person in enumerate(seen.cues.people)
    ]


def _hands(result: Result, network: HourglassJoints) -> list[Hand]:
    views = hand_views(result.image, result.cues.people, get_skeleton(result.cues.keypoint_skeleton))
    found = network.find([view for _, _, view in views])
    return [
        Hand(person, side, view.box_px.astype(np.float32), points, score)
        for (person, side, view), (points, score, _) in zip(views, found, strict=True)
    ]
