"""A folder of images -> 3D people in files: what `pipeline.py` finds in each, and pictures of it.

Pictures are `visualize.panels`'.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import orjson

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.files import make_folder, sole_writer, write_report, write_whole
from humanpose3d.images import (
    UnreadableImage,
    absolute,
    ahead,
    batches,
    common_folder,
    exif_focal_px,
    find_images,
    find_inputs,
    read_image,
    usable,
)
from humanpose3d.models.checkpoint import load_model
from humanpose3d.models.onnx_export import export_onnx
from humanpose3d.pipeline import BODY_MODEL, Bodies, Chosen, JointDefinitions, Lifter, Picture, Pipeline, Result, Seen
from humanpose3d.reports import Progress, StageReport, progress
from humanpose3d.skeletons import HAND_21
from humanpose3d.takes import Videos, finished_frames
from humanpose3d.tracks import with_tracks
from humanpose3d.video import split_frame_path
from humanpose3d.visualize import panels
from humanpose3d.visualize.heatmaps import draw_heat
from humanpose3d.visualize.mesh import mesh_panel
from humanpose3d.visualize.mesh_export import write_mesh
from humanpose3d.visualize.rerun_log import RerunRecording
from humanpose3d.visualize.viewer import MOST_SCENES, Scene, make_scene, viewer_html
from humanpose3d.webcam import film_webcam, webcam_number

WRITERS = 2
VIEWER, RERUN, GATHERED = "viewer.html", "people.rrd", "predictions.npz"
JOINTS = "_pred_joints3d.npy"  # ends the name of an image's joints
RECORDINGS = "recordings"  # of webcams
KINDS = {"image": np.str_, "person": np.int32, "track": np.int32}  # of predictions.npz; the others are float32
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92)


def infer(
    *,
    input_folder: Path | None = None,
    input: Sequence[str] = (),
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
    viewer: bool = False,
    rerun: bool = False,
    smooth: bool = False,
    export: Sequence[Literal["bvh", "onnx", "obj", "glb"]] = (),
    body_model: Path = Path(BODY_MODEL),
    overwrite: bool = False,
    frame_step: int = 1,
    webcam_seconds: float = 10.0,
    legacy_npy: bool = False,
    focal_px: float | None = None,
    fov_deg: float | None = None,
    person: Chosen = "all",
    max_people: int = 0,
    min_score: float = 0.25,
    flip_test: bool = False,
    device: str = "auto",
    batch_size: int = 8,
    max_bad: float = 0.01,
) -> StageReport:
    """Write <stem>_pred_joints3d.npy and <stem>.json for every image under the input folder, and pictures if asked.

    input: in the folder's place, or beside it: folders, images, videos (every `frame_step`-th frame) and patterns;
    results lie as the inputs do below their common folder, those of clip.mp4 in clip.mp4/000000.json, ...
    webcam:0 films the first webcam for `webcam_seconds`, as recordings/webcam_0.mp4. What an
    earlier run with the same settings finished is left as it is, unless `overwrite`. viewer: write viewer.html, what
    this run found, to turn and zoom in a browser; rerun: people.rrd, the same for the rerun viewer. smooth: people of
    videos, by the One-Euro filter.
    export: "bvh" for the motion of each person of a video, clip.mp4/person_1.bvh; "onnx" for the lifter
    as <checkpoint>.onnx; "obj" and "glb" for the mesh of each person, by a body regressor (whose SMPL files are
    body_model's): <stem>_person_0.glb. predictions.npz gathers everything.
    The .npy holds float32 [people 17 3] metres, camera frame, best detection first; with `legacy_npy` [17 3]
    millimetres of the first person, root at the origin, NaN where nobody was found.
    """
    report = StageReport("infer", max_bad=max_bad)
    target = Path(output_folder)
    pipeline = Pipeline(
        checkpoint_path, yolo_model=yolo_model_path, depth_model=None if no_depth else depth_model_path,
        keypoints=keypoints, hands=hands, model_type=model_type, joint_definitions=joint_definitions,
        focal_px=focal_px, fov_deg=fov_deg, person=person, max_people=max_people, min_score=min_score, device=device,
        flip_test=flip_test, body_model=body_model,
    )  # fmt: skip
    lifter = pipeline.lifter
    meshes = [kind for kind in ("obj", "glb") if kind in export]
    if meshes and lifter.body is None:
        raise ValueError(
            f"--export {meshes[0]} writes bodies, and {checkpoint_path} gives joints; take a checkpoint of "
            "main.py --model-type hps"
        )
    recording = RerunRecording(target / RERUN, lifter.skeleton) if rerun else nullcontext()
    input = [_filmed(each, target, webcam_seconds) for each in input]
    source, names = _list_images(input_folder, input, target, frame_step)
    settings = {
        "visualize": visualize,
        "viewer": viewer,
        "rerun": rerun,
        "smooth": smooth,
        "export": sorted(set(export) - {"onnx"}),
        "legacy_npy": legacy_npy,
    } | pipeline.settings
    request = hashlib.sha256(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    report.inputs = len(names)
    names = list(usable(names, report, by_folder=False))
    make_folder(target)
    cameras: Counter[str] = Counter()
    scenes: list[Scene] = []
    with sole_writer(target):
        if "onnx" in export:
            path = target / f"{Path(checkpoint_path).stem}.onnx"
            off_m = export_onnx(load_model(checkpoint_path).model, path)
            told = f"{path}: ONNX Runtime agrees to {off_m:.1g} m with the network"
            moved = (
                "" if lifter.joint_definitions == "trained" else ", whose joints infer.py moves (--joint-definitions)"
            )
            report.note(told + moved)
        complete = set() if overwrite else _complete(source, names, target, request, report)

        def write(result: Result) -> None:
            make_folder(target / result.name.parent)
            if visualize:
                _write_pictures(target, result, lifter)
            _write_meshes(target, result, lifter, meshes)
            _write_result(target, result, lifter, legacy_npy, request)

        with (
            Videos(
                source,
                target,
                smooth=smooth,
                draws=visualize,
                exports_bvh="bvh" in export,
                skeletons=(lifter.keypoint_skeleton, lifter.skeleton),
                request=request,
            ) as videos,
            recording as recorded,
            ThreadPoolExecutor(WRITERS) as writers,
            progress("infer", len(names)) as bar,
        ):
            waiting: deque[Future[None]] = deque()
            seen = _looked_at(pipeline, source, names, complete, batch_size, report, bar)
            seen = with_tracks(seen, source, window=lifter.window, frame_step=frame_step)
            for result in _lifted(pipeline, seen, batch_size):
                result = videos.follow(result)
                _count(result, report)
                cameras[result.camera_source] += 1
                if viewer and len(scenes) < MOST_SCENES:
                    scenes.append(_scene(result, lifter))
                if recorded is not None:
                    recorded.add(*_shown(result), numbers=_numbers(result))
                waiting.append(writers.submit(write, result))
                while len(waiting) > batch_size:
                    waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
        if scenes:
            write_whole(target / VIEWER, viewer_html(scenes, lifter.skeleton).encode())
            report.facts["viewer"] = str(target / VIEWER)
            if report.counts["images"] > len(scenes):
                report.note(f"{VIEWER} shows the first {len(scenes)} of {report.counts['images']} images")
        if rerun and report.counts["images"]:
            report.note(f"{RERUN} opens with: rerun {target / RERUN}")
        write_whole(target / GATHERED, _gathered(target, names))
        rate = report.counts["images"] / max(time.monotonic() - report.started, 1e-9)
        report.facts |= {
            "input": str(source),
            "output": str(target),
            "images_per_s": round(rate, 2),
            "model": lifter.provenance,
            "estimators": pipeline.networks.provenance,
            "cameras": dict(cameras),
        }
        report.summary = _summary(report, target)
        write_report(target, report)
    return report


def _looked_at(
    pipeline: Pipeline,
    source: Path,
    names: Iterable[Path],
    complete: Collection[Path],
    batch_size: int,
    report: StageReport,
    bar: Progress,
) -> Iterator[Seen]:
    """All images that are not complete and can be read, in order; two threads read ahead."""

    def read(name: Path) -> Picture | tuple[Path, str] | None:
        if name in complete:
            return None
        try:
            return Picture(name, read_image(source / name), exif_focal_px(source / name))
        except UnreadableImage as error:
            return name, str(error)

    with ThreadPoolExecutor(2) as readers:
        for batch in batches(ahead(readers, read, names, 2 * batch_size), batch_size):
            for each in batch:
                if each is not None and not isinstance(each, Picture):
                    report.skip(f"{each[0]} ({each[1]})", "unreadable image")
            yield from pipeline.look([each for each in batch if isinstance(each, Picture)])
            bar.advance(len(batch))


def _lifted(pipeline: Pipeline, seen: Iterable[Seen], batch_size: int) -> Iterator[Result]:
    for some in batches(seen, batch_size):
        yield from pipeline.lift(some)


def _count(result: Result, report: StageReport) -> None:
    report.count("hands", len(result.hands))
    report.count("images")
    report.count("people", len(result.joints_cam_m))
    report.count("images_without_people", not len(result.joints_cam_m))


def _summary(report: StageReport, target: Path) -> str:
    counts = report.counts
    complete = f", {counts['complete_before']} were complete" if counts["complete_before"] else ""
    return f"found {counts['people']} people in {counts['images']} of {report.inputs} images{complete}; {target}"


def _scene(result: Result, lifter: Lifter) -> Scene:
    in_video = split_frame_path(result.name)
    return make_scene(
        *_shown(result),
        numbers=_numbers(result),
        shot=str(in_video[0]) if in_video else "",
        bodies_cam_m=None if result.bodies is None else result.bodies.vertices_cam_m,
        faces=None if lifter.body is None else lifter.body.faces.cpu().numpy(),
    )


def _shown(result: Result) -> tuple[str, list[np.ndarray], Camera, np.ndarray, np.ndarray | None]:
    return str(result.name), list(result.joints_cam_m), result.camera, result.image, result.cues.depth_m


def _numbers(result: Result) -> list[str]:
    """Of a video's people: those of their tracks."""
    return [str(track or "?") for track in result.tracks]


def _gathered(target: Path, names: Sequence[Path]) -> bytes:
    """predictions.npz: a row a person of all images whose results are there."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("image", "person", "track", "score", "box", "joints_cam_m", "root_cam_m", "focal_px")
    }
    joints: list[str] = []
    for name in names:
        try:
            told = orjson.loads((target / name.parent / f"{name.stem}.json").read_bytes())
        except FileNotFoundError:
            continue  # it was left out
        if told["image"] != str(name):
            continue  # of another run's image, with another ending
        joints = told["joints"]
        for number, person in enumerate(told["people"]):
            values = {**person, "image": str(name), "person": number, "focal_px": told["camera"]["focal_px"]}
            for column, gathered in columns.items():
                gathered.append(
                    np.asarray(-1 if values[column] is None else values[column], KINDS.get(column, np.float32))
                )
    shapes = {"box": (4,), "joints_cam_m": (len(joints), 3), "root_cam_m": (3,)}
    arrays: dict[str, Any] = {
        name: np.array(of, KINDS.get(name, np.float32)).reshape(len(of), *shapes.get(name, ()))
        for name, of in columns.items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, joints=np.array(joints, np.str_), **arrays)
    return buffer.getvalue()


def _filmed(request: str, target: Path, seconds: float) -> str:
    """An input; a webcam's pictures as the video that is made of them now."""
    number = webcam_number(request)
    if number is None:
        return request
    path = target / RECORDINGS / f"webcam_{number}.mp4"
    make_folder(path.parent)
    film_webcam(number, path, seconds)
    return str(path)


def _list_images(folder: Path | None, inputs: Sequence[str], target: Path, frame_step: int) -> tuple[Path, list[Path]]:
    """(the folder that all lie in, their names below it)"""
    if folder is None and not inputs:
        raise ValueError("say what to look at: --input_folder DIR, or --input with folders, images, videos or patterns")
    for source in ([] if folder is None else [folder], [Path(each) for each in inputs if Path(each).is_dir()]):
        if any(target.resolve() == each.resolve() for each in source):
            raise ValueError(
                f"{target} is the input folder too; give another --output_folder, since results hold images"
            )
    if folder is not None and not inputs:
        names = list(find_images(folder, leave_out=[target]))
        if not names:
            raise ValueError(f"no images in {folder}; it needs image files (jpg, png, ...), in subfolders or directly")
        return folder, names
    found = find_inputs(
        [*([] if folder is None else [str(folder)]), *inputs], leave_out=[target], frame_step=frame_step
    )
    is_one = folder is None and len(inputs) == 1 and Path(inputs[0]).is_dir()
    base = absolute(Path(inputs[0])) if is_one else common_folder(found)
    in_video = split_frame_path(base / "000000")
    base = in_video[0].parent if in_video else base  # the results of a video lie in a folder of its name
    for place, path in enumerate(found):  # where they stand: a second list of a large folder is not made
        found[place] = path.relative_to(base)
    return base, found


def _complete(source: Path, names: Sequence[Path], target: Path, request: str, report: StageReport) -> set[Path]:
    """Those that need not be done again, and of videos that are done the frames that cannot be read, named anew.

    A video is done as a whole: who is who follows from all its frames.
    """
    done = {name for name in names if _is_complete(source, name, target, request)}
    unreadable: set[Path] = set()
    videos: dict[Path, list[Path]] = {}
    for name in names:
        if split_frame_path(name):
            videos.setdefault(name.parent, []).append(name)
    for video, frames in videos.items():
        finished = finished_frames(target / video, request)
        missing = [name for name in frames if name not in done]
        if finished is None or finished != {name.name for name in frames} - {name.name for name in missing}:
            done.difference_update(frames)
            continue
        for name in missing:
            report.skip(f"{name} (as before)", "unreadable image")
        unreadable.update(missing)
    report.count("complete_before", len(done))
    return done | unreadable


def _is_complete(source: Path, name: Path, target: Path, request: str) -> bool:
    """An earlier run with the same settings has written the result, and the image is no newer."""
    in_video = split_frame_path(source / name)
    image, result = in_video[0] if in_video else source / name, target / name.parent / f"{name.stem}.json"
    try:
        if image.stat().st_mtime > result.stat().st_mtime or not result.with_name(f"{name.stem}{JOINTS}").exists():
            return False
        told = orjson.loads(result.read_bytes())
        return told["request"] == request and told["image"] == str(name)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _write_result(target: Path, result: Result, lifter: Lifter, legacy_npy: bool, request: str) -> None:
    """The JSON last: it says that all is there."""
    folder, stem = target / result.name.parent, result.name.stem
    joints = result.joints_cam_m
    if legacy_npy:
        shape = (len(lifter.skeleton), 3)
        first = 1e3 * (joints[0] - result.root_cam_m[0]) if len(joints) else np.full(shape, np.nan)
        joints = first.astype(np.float32)
    buffer = io.BytesIO()
    np.save(buffer, joints, allow_pickle=False)
    write_whole(folder / f"{stem}{JOINTS}", buffer.getvalue())
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    write_whole(folder / f"{stem}.json", orjson.dumps(_to_json(result, lifter) | {"request": request}, option=options))


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
                "track": track,
                "keypoints": np.ascontiguousarray(person.keypoints_px),
                "confidences": np.ascontiguousarray(person.keypoint_score),
                "root_cam_m": np.ascontiguousarray(root),
                "joints_cam_m": np.ascontiguousarray(joints),
                "joints_px": camera_to_pixel(joints, result.camera).astype(np.float32),
                **_smpl(result.bodies, number),
            }
            for number, (person, track, joints, root) in enumerate(
                zip(
                    cues.people,
                    result.tracks or [None] * len(cues.people),
                    result.joints_cam_m,
                    result.root_cam_m,
                    strict=True,
                )
            )
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


def _smpl(bodies: Bodies | None, person: int) -> dict[str, Any]:
    """A body's numbers; its mesh is their surface."""
    if bodies is None:
        return {}
    names = ("pose_rad", "betas", "trans_m")
    return {"smpl": {name: np.ascontiguousarray(getattr(bodies, name)[person]) for name in names}}


def _write_pictures(target: Path, result: Result, lifter: Lifter) -> None:
    """<stem>_original.jpg, _2d_overlay.jpg, _depth.png, _3d_pose.png, _combined_viz.png; of bodies _mesh.png.

    Where an hourglass found the keypoints, _heatmaps.png.
    """
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
    heats = [person.heat for person in people if person.heat is not None]
    if heats:
        pictures["heatmaps.png"] = draw_heat(result.image, boxes, heats)
    if result.bodies is not None and lifter.body is not None:
        pictures["mesh.png"] = mesh_panel(
            result.image, result.bodies.vertices_cam_m, lifter.body.faces.cpu().numpy(), result.camera,
            title=result.name.name, up=panels.upwards(joints, lifter.skeleton),
        )  # fmt: skip
    for ending, picture in pictures.items():
        path = target / result.name.parent / f"{result.name.stem}_{ending}"
        write_whole(path, panels.encode_png(picture) if path.suffix == ".png" else _encode_jpeg(picture))


def _write_meshes(target: Path, result: Result, lifter: Lifter, kinds: Sequence[str]) -> None:
    """<stem>_person_0.obj, ..."""
    if result.bodies is None or lifter.body is None:
        return
    for number, vertices_m in enumerate(result.bodies.vertices_cam_m):
        for kind in kinds:
            path = target / result.name.parent / f"{result.name.stem}_person_{number}.{kind}"
            write_mesh(path, vertices_m, lifter.body.faces.cpu().numpy())


def _scaled(points: Sequence[np.ndarray], image: np.ndarray, picture: np.ndarray) -> list[np.ndarray]:
    """Points of an image -> of the picture of it, which may be smaller."""
    scale = picture.shape[1] / image.shape[1]
    return [(each + 0.5) * scale - 0.5 for each in points]


def _encode_jpeg(picture: np.ndarray) -> bytes:
    done, buffer = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), JPEG)
    assert done
    return buffer.tobytes()
