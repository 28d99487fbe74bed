"""A folder of images -> 3D people in files: estimators, then the same record, view, collator and model as in training.

Pictures are `visualize.panels`'; the networks that give the cues, `estimators`'.
"""

from __future__ import annotations

import io
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import orjson
import torch

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.dataset.augmentation import fit_view
from humanpose3d.dataset.collator import Human36MCollator
from humanpose3d.dataset.keypoint_batches import KeypointDecoder
from humanpose3d.estimators.cues import CueNetworks
from humanpose3d.estimators.hourglass import HourglassJoints, hand_views
from humanpose3d.estimators.weights import pick_device, sha256_of
from humanpose3d.files import make_folder, write_report, write_whole
from humanpose3d.images import UnreadableImage, ahead, batches, find_images, read_image, without_twins
from humanpose3d.joint_definitions import like_human36m
from humanpose3d.models.checkpoint import LoadedModel, find_packaged, load_model
from humanpose3d.reports import StageReport, progress
from humanpose3d.sample import PoseSample, make_key
from humanpose3d.sidecars import Sidecar
from humanpose3d.skeletons import COCO_17, HAND_21, get_skeleton
from humanpose3d.visualize import panels

JointDefinitions = Literal["auto", "trained", "human36m"]
PEOPLE_AT_ONCE = 64  # through the pose model; bounds memory where a photograph holds a crowd
WRITERS = 2
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92)


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


@dataclass(frozen=True, eq=False)
class Hand:
    """One hand as the hourglass found it."""

    person: int  # whose: number among the people; 0 where the picture shows a hand alone
    side: str  # "left" or "right"
    box_px: np.ndarray  # float32 [4]
    points_px: np.ndarray  # float32 [21 2], hand_21
    score: np.ndarray  # float32 [21]


def infer(
    *,
    input_folder: Path,
    checkpoint_path: str | Path = "lifter",
    output_folder: Path = Path("./inference_results"),
    model_type: str | None = None,
    yolo_model_path: str = "yolo11x-pose",
    keypoints: str = "yolo",
    hands: Path | None = None,
    depth_model_path: str = "apple/DepthPro-hf",
    no_depth: bool = False,
    joint_definitions: JointDefinitions = "auto",
    visualize: bool = False,
    legacy_npy: bool = False,
    fov_deg: float = 55.0,
    device: str = "auto",
    batch_size: int = 8,
    max_bad: float = 0.01,
) -> StageReport:
    """Write <stem>_pred_joints3d.npy and <stem>.json for every image under the input folder, and pictures if asked.

    The .npy holds float32 [people 17 3] metres, camera frame, best detection first; with `legacy_npy` [17 3]
    millimetres of the first person, root at the origin, NaN where nobody was found.
    """
    report = StageReport("infer", max_bad=max_bad)
    source, target = Path(input_folder), Path(output_folder)
    lifter = Lifter(checkpoint_path, device, model_type, joint_definitions)
    names = _list_images(source, target)
    report.inputs = len(names)
    make_folder(target)
    networks = CueNetworks(yolo_model_path, None if no_depth else depth_model_path, device, keypoints)
    hand_network = None if hands is None else HourglassJoints(hands, device)
    if hand_network is not None and hand_network.skeleton is not HAND_21:
        raise ValueError(
            f"{hands} finds {hand_network.skeleton.name}; --hands takes an hourglass trained on {HAND_21.name}"
        )

    def read(name: Path) -> tuple[Path, np.ndarray | str]:
        try:
            return name, read_image(source / name)
        except UnreadableImage as error:
            return name, str(error)

    def write(result: Result) -> None:
        _write_result(target, result, lifter, legacy_npy)
        if visualize:
            _write_pictures(target, result, lifter)

    cameras: Counter[str] = Counter()
    with (
        ThreadPoolExecutor(2) as readers,
        ThreadPoolExecutor(WRITERS) as writers,
        progress("infer", len(names)) as bar,
    ):
        waiting: deque[Future[None]] = deque()
        for batch in batches(ahead(readers, read, without_twins(names, report), 2 * batch_size), batch_size):
            readable = [(name, image) for name, image in batch if isinstance(image, np.ndarray)]
            for name, problem in batch:
                if isinstance(problem, str):
                    report.skip(f"{name} ({problem})", "unreadable image")
            cues = networks.cues([image for _, image in readable]) if readable else []
            for result in lifter.lift(readable, cues, fov_deg):
                if hand_network is not None:
                    result = replace(result, hands=_hands(result, hand_network))
                    report.count("hands", len(result.hands))
                report.count("images")
                report.count("people", len(result.joints_cam_m))
                report.count("images_without_people", not len(result.joints_cam_m))
                cameras[result.camera_source] += 1
                waiting.append(writers.submit(write, result))
            while len(waiting) > batch_size:
                waiting.popleft().result()
            bar.advance(len(batch))
        while waiting:
            waiting.popleft().result()
    rate = report.counts["images"] / max(time.monotonic() - report.started, 1e-9)
    report.facts |= {
        "input": str(source),
        "output": str(target),
        "images_per_s": round(rate, 2),
        "model": lifter.provenance,
        "estimators": networks.provenance,
        "cameras": dict(cameras),
    }
    report.summary = (
        f"found {report.counts['people']} people in {report.counts['images']} of {report.inputs} images; {target}"
    )
    write_report(target, report)
    return report


class Lifter:
    """A trained model and what surrounds it: from an image's cues to people in metres."""

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "auto",
        model_type: str | None = None,
        joint_definitions: JointDefinitions = "auto",
    ) -> None:
        """checkpoint: a file, or the name of one that comes with the package (`models.checkpoint.PACKAGED`).

        joint_definitions: where joints lie; "auto" is "human36m" for the package's own, else "trained".
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
        collator = Human36MCollator if self.sees_pictures else KeypointDecoder
        self.collate = collator(config.skeleton, config.keypoint_skeleton, depth=config.use_depth)
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

    def lift(
        self, images: Sequence[tuple[Path, np.ndarray]], cues: Sequence[Sidecar], fov_deg: float
    ) -> Iterator[Result]:
        """(name, uint8 [H W 3] RGB) and the cues of each -> results in the same order. ValueError: other keypoints."""
        for found in cues:
            if found.people and found.keypoint_skeleton != self.keypoint_skeleton.name:
                raise ValueError(
                    f"the model reads keypoints in {self.keypoint_skeleton.name}, and those found are in "
                    f"{found.keypoint_skeleton}; leave out --keypoints, or train on chunks with such keypoints"
                )
        cameras = [_camera(found, fov_deg) for found in cues]
        views = [
            fit_view(sample, self.loaded.config.input_size) if self.sees_pictures else sample
            for (name, image), found, (camera, _) in zip(images, cues, cameras, strict=True)
            for sample in _samples(name, image, found, camera)
        ]
        joints_cam_m, root_cam_m = self._predict(views)
        if self.joint_definitions == "human36m":
            joints_cam_m = like_human36m(joints_cam_m)
            root_cam_m = joints_cam_m[:, self.skeleton.root_index]
        first = 0
        for (name, image), found, (camera, camera_source) in zip(images, cues, cameras, strict=True):
            mine = slice(first, first + len(found.people))
            first = mine.stop
            yield Result(name, image, found, camera, camera_source, joints_cam_m[mine], root_cam_m[mine])

    def _predict(self, views: Sequence[PoseSample]) -> tuple[np.ndarray, np.ndarray]:
        """(float32 [N J 3] joints, float32 [N 3] roots), camera frame."""
        joints = [np.zeros((0, len(self.skeleton), 3), np.float32)]
        roots = [np.zeros((0, 3), np.float32)]
        for start in range(0, len(views), PEOPLE_AT_ONCE):
            batch = self.collate(views[start : start + PEOPLE_AT_ONCE]).to(self.device)
            with torch.inference_mode():
                prediction = self.loaded.model(batch)
            joints.append(prediction.joints_cam_m.float().cpu().numpy())
            roots.append(prediction.root_cam_m.float().cpu().numpy())
        return np.concatenate(joints), np.concatenate(roots)


def _camera(cues: Sidecar, fov_deg: float) -> tuple[Camera, str]:
    width, height = cues.image_size_wh
    if cues.focal_px is None:
        return Camera.from_fov(cues.image_size_wh, fov_deg), f"assumed field of view of {fov_deg:g} degrees"
    camera = Camera.create(cues.focal_px, ((width - 1) / 2, (height - 1) / 2))
    return camera, "focal length estimated by the depth network"


def _samples(name: Path, image: np.ndarray, cues: Sidecar, camera: Camera) -> list[PoseSample]:
    return [
        PoseSample(
            key=make_key(*name.with_suffix("").parts, f"p{number}"),
            image=image,
            image_size_wh=cues.image_size_wh,
            depth_m=cues.depth_m,
            keypoints_px=person.keypoints_px,
            keypoint_score=person.keypoint_score,
            keypoint_skeleton=cues.keypoint_skeleton,
            camera=camera,
            box_px=person.box_px,
        )
        for number, person in enumerate(cues.people)
    ]


def _hands(result: Result, network: HourglassJoints) -> list[Hand]:
    views = hand_views(result.image, result.cues.people if result.cues.keypoint_skeleton == COCO_17.name else ())
    found = network.find([view for _, _, view in views])
    return [
        Hand(person, side, view.box_px.astype(np.float32), points, score)
        for (person, side, view), (points, score) in zip(views, found, strict=True)
    ]


def _list_images(source: Path, target: Path) -> list[Path]:
    if target.resolve() == source.resolve():
        raise ValueError(f"{target} is the input folder too; give another --output_folder, since results hold images")
    names = list(find_images(source, leave_out=[target]))
    if not names:
        raise ValueError(f"no images in {source}; it needs image files (jpg, png, ...), in subfolders or directly")
    return names


def _write_result(target: Path, result: Result, lifter: Lifter, legacy_npy: bool) -> None:
    folder, stem = target / result.name.parent, result.name.stem
    make_folder(folder)
    joints = result.joints_cam_m
    if legacy_npy:
        shape = (len(lifter.skeleton), 3)
        first = 1e3 * (joints[0] - result.root_cam_m[0]) if len(joints) else np.full(shape, np.nan)
        joints = first.astype(np.float32)
    buffer = io.BytesIO()
    np.save(buffer, joints, allow_pickle=False)
    write_whole(folder / f"{stem}_pred_joints3d.npy", buffer.getvalue())
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    write_whole(folder / f"{stem}.json", orjson.dumps(_to_json(result, lifter), option=options))


def _to_json(result: Result, lifter: Lifter) -> dict[str, Any]:
    cues = result.cues
    return {
        "image": str(result.name),
        "image_size": list(cues.image_size_wh),
        "camera": {
            "focal_px": result.camera.focal_px,
            "center_px": result.camera.K[:2, 2].tolist(),
            "source": result.camera_source,
        },
        "frame": "camera: x right, y down, z forward, metres",
        "skeleton": lifter.skeleton.name,
        "joints": list(lifter.skeleton.joints),
        "keypoint_skeleton": cues.keypoint_skeleton,
        "people": [
            {
                "box": person.box_px,
                "score": person.score,
                "keypoints": np.ascontiguousarray(person.keypoints_px),
                "confidences": np.ascontiguousarray(person.keypoint_score),
                "root_cam_m": np.ascontiguousarray(root),
                "joints_cam_m": np.ascontiguousarray(joints),
                "joints_px": camera_to_pixel(joints, result.camera).astype(np.float32),
            }
            for person, joints, root in zip(cues.people, result.joints_cam_m, result.root_cam_m, strict=True)
        ],
        "hands": [
            {
                "person": hand.person,
                "side": hand.side,
                "box": hand.box_px,
                "keypoints": np.ascontiguousarray(hand.points_px),
                "confidences": np.ascontiguousarray(hand.score),
            }
            for hand in result.hands
        ],
        "depth_used": cues.depth_m is not None and lifter.loaded.config.use_depth,
        "model": lifter.provenance,
        "estimators": cues.estimators,
    }


def _write_pictures(target: Path, result: Result, lifter: Lifter) -> None:
    """<stem>_original.jpg, _2d_overlay.jpg, _depth.png, _3d_pose.png, _combined_viz.png."""
    people = result.cues.people
    keypoints = [person.keypoints_px for person in people]
    scores = [person.keypoint_score for person in people]
    boxes = [person.box_px for person in people]
    overlay = panels.draw_keypoints(result.image, keypoints, scores, lifter.keypoint_skeleton, boxes)
    if result.hands:
        points, strengths = [hand.points_px for hand in result.hands], [hand.score for hand in result.hands]
        overlay = panels.draw_keypoints(overlay, _scaled(points, result.image, overlay), strengths, HAND_21)
    joints = list(result.joints_cam_m)
    original = panels.shrunk(result.image, panels.PICTURE_LIMIT_PX)[0]
    height, width = original.shape[:2]
    combined = panels.combined_panel(
        result.image,
        keypoints,
        scores,
        result.cues.depth_m,
        joints,
        boxes_px=boxes,
        keypoint_skeleton=lifter.keypoint_skeleton,
        skeleton=lifter.skeleton,
        title=result.name.name,
    )
    pictures = {
        "original.jpg": original,
        "2d_overlay.jpg": overlay,
        "depth.png": panels.draw_depth(result.cues.depth_m, (width, height)),
        "3d_pose.png": panels.draw_pose3d(joints, (800, 800), lifter.skeleton),
        "combined_viz.png": combined,
    }
    for ending, picture in pictures.items():
        path = target / result.name.parent / f"{result.name.stem}_{ending}"
        write_whole(path, panels.encode_png(picture) if path.suffix == ".png" else _encode_jpeg(picture))


def _scaled(points: Sequence[np.ndarray], image: np.ndarray, picture: np.ndarray) -> list[np.ndarray]:
    """Points of an image -> of the picture of it, which may be smaller."""
    scale = picture.shape[1] / image.shape[1]
    return [(each + 0.5) * scale - 0.5 for each in points]


def _encode_jpeg(picture: np.ndarray) -> bytes:
    done, buffer = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), JPEG)
    assert done
    return buffer.tobytes()
