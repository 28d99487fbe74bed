"""The studio written as Human3.6M's own archives and as VideoPose3D's file: 32 joints a frame, 50 frames a second.

"official"  S1/MyPoseFeatures/D3_Positions/Directions 1.cdf, S1/Videos/Directions 1.54138969.mp4, metadata.xml
"npz"       annotations/data_3d_h36m.npz, annotations/camera-parameters.json, and the frames as images:
            images/S1/S1_Directions_1.54138969/S1_Directions_1.54138969_000001.jpg
Both of their camera files have one lens for each camera, whatever the subject, and lenses that distort.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from humanpose3d.camera import Camera, pixel_to_ray
from humanpose3d.files import scratch_folder, write_whole
from humanpose3d.reports import StageReport, progress
from humanpose3d.skeletons import H36M_32
from humanpose3d.studio.film import CAPTURE_FPS, SUBACTIONS, Scene, cast_scene, film_scene
from humanpose3d.studio.joint_sets import joints_in
from humanpose3d.studio.motion import ACTIONS
from humanpose3d.studio.shoot import claim, encode_jpeg, even, in_processes
from humanpose3d.video import write_video

CAMERA_NAMES = {1: "54138969", 2: "55011271", 3: "58860488", 4: "60457274"}
ALL_SUBJECTS = tuple(f"S{number}" for number in range(1, 12))  # in metadata.xml; seven of them are in the studio
ACTION_NAMES = ("Miscellaneous", *(name for name, _ in ACTIONS.values()))
CDF_REAL4 = 21  # the format's number for float32

# How each camera's lens distorts: k1 k2 p1 p2 k3. Of the strength of the corpus's, and no two numbers the same.
LENSES = {
    1: (-0.20, 0.24, -0.0014, 0.0021, -0.003),
    2: (-0.19, 0.25, -0.0027, -0.0016, 0.007),
    3: (-0.21, 0.26, 0.0008, 0.0024, -0.002),
    4: (-0.18, 0.22, 0.0018, -0.0006, -0.009),
}

# What the corpus calls take 1 and 2, where that is not "<action> 1" and "<action>" ("-" for nothing).
TAKE_NAMES = """
S1 Eating 2 -  S1 Sitting 1 2  S1 SittingDown 2 -
S5 Directions 1 2  S5 Discussion 2 3  S5 Greeting 1 2  S5 SittingDown - 1  S5 Photo - 2  S5 Waiting 1 2
S6 Eating 1 2  S6 Posing 2 -  S6 Sitting 1 2  S6 Photo - 1  S6 Waiting 3 -
S7 Phoning 2 -  S7 SittingDown - 1  S7 Photo - 1  S7 Waiting 1 2  S7 Walking 1 2
S8 SittingDown - 1  S8 WalkTogether 1 2
S9 Discussion 1 2  S9 SittingDown - 1
S11 Discussion 1 2  S11 Greeting 2 -  S11 Phoning 3 2  S11 SittingDown - 1  S11 Smoking 2 -
"""


def take_file(subject: str, action: int, subaction: int, *, own_spelling: bool = True) -> str:
    """The name of a take's files: "Directions 1". Subject 1 has its own spelling of two actions, in the archives."""
    words = TAKE_NAMES.split()
    exceptions = {tuple(words[i : i + 2]): words[i + 2 : i + 4] for i in range(0, len(words), 4)}
    name = ACTIONS[action][0]
    number = exceptions.get((subject, name), ["1", "-"])[subaction - 1]
    if own_spelling and subject == "S1":
        name = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog"}.get(name, name)
    return name if number == "-" else f"{name} {number}"


@dataclass(frozen=True)
class _Job:
    """What one worker films: a take through all cameras."""

    out: Path
    subject: str
    action: int
    subaction: int
    cameras: tuple[int, ...]
    frames: int
    size: int
    seed: int

    @property
    def scene(self) -> Scene:
        return archive_scene(self.subject, self.action, self.subaction, self.size, self.seed)


def archive_scene(subject: str, action: int, subaction: int, size: int, seed: int) -> Scene:
    """The take as in the other layout, at the capture's rate. Cameras stand where they do for the subject, but have the
    lens that camera has for everybody; filming is without its distortion, `through_lens` adds it."""
    number = int(subject[1:])
    scene = cast_scene(subject, number, action, subaction, size=size, seed=seed, fps=CAPTURE_FPS)
    of_all = cast_scene("S1", 1, action, subaction, size=size, seed=seed, fps=CAPTURE_FPS).cameras
    return replace(scene, cameras={i: replace(camera, K=of_all[i].K) for i, camera in scene.cameras.items()})


def with_lens(camera: Camera, camera_id: int) -> Camera:
    """The camera with its lens' distortion."""
    return replace(camera, distortion=np.array(LENSES[camera_id]))


def write_archives(
    out: Path,
    subjects: Sequence[str],
    actions: Sequence[int],
    subactions: Sequence[int],
    frames_per_take: int,
    cameras: Sequence[int],
    *,
    size: int,
    seed: int,
    workers: int,
    layout: str,
) -> StageReport:
    """layout: "official" or "npz". The arguments are checked by `write_human36m`."""
    claim(out, {"seed": seed, "size": size, "layout": layout, "frames_per_take": frames_per_take})
    jobs = [
        _Job(out, subject, action, subaction, tuple(cameras), frames_per_take, size, seed)
        for subject in subjects
        for action in actions
        for subaction in subactions
    ]
    report = StageReport("fake")
    report.inputs = len(jobs) * len(cameras) * frames_per_take
    with progress("filming", report.inputs) as bar:
        for written, kept in in_processes(_film_videos if layout == "official" else _film_images, jobs, workers):
            report.count("images", written)
            report.count("already there", kept)
            bar.advance(written + kept)
    if layout == "official":
        _write_archive_labels(out, jobs, size, seed)
    else:
        _write_npz_labels(out / "annotations", jobs, size, seed)
    report.summary = (
        f"filmed {report.counts['images']} images of {len(subjects)} subjects and {len(actions)} actions"
        f" ({report.counts['already there']} were there) in {out}"
    )
    report.facts |= {
        "out": str(out), "subjects": list(subjects), "fps": CAPTURE_FPS, "frame_step": 1, "seed": seed, "size": size,
        "layout": layout,
    }  # fmt: skip
    return report


# --------------------------------------------------------------------------------------------------------- pictures


def _film_videos(job: _Job) -> tuple[int, int]:
    """(images written, images that were there)."""
    written = kept = 0
    for camera in job.cameras:
        name = f"{take_file(job.subject, job.action, job.subaction)}.{CAMERA_NAMES[camera]}.mp4"
        path = job.out / job.subject / "Videos" / name
        if path.exists():
            kept += job.frames
        else:
            written += write_video(path, even(_images(job, camera)), CAPTURE_FPS)
    return written, kept


def _film_images(job: _Job) -> tuple[int, int]:
    """(images written, images that were there)."""
    written = kept = 0
    for camera in job.cameras:
        name = take_file(job.subject, job.action, job.subaction).replace(" ", "_")
        folder = f"{job.subject}_{name}.{CAMERA_NAMES[camera]}"
        paths = [
            job.out / "images" / job.subject / folder / f"{folder}_{frame + 1:06d}.jpg" for frame in range(job.frames)
        ]
        missing = [frame for frame, path in enumerate(paths) if not path.exists()]
        for frame, image in zip(missing, _images(job, camera, missing), strict=True):
            write_whole(paths[frame], encode_jpeg(image))
        written, kept = written + len(missing), kept + len(paths) - len(missing)
    return written, kept


def _images(job: _Job, camera_id: int, frames: Sequence[int] | None = None) -> Iterator[np.ndarray]:
    """uint8 [H W 3] RGB of the take's frames, or of some, through one camera and its lens."""
    scene = job.scene
    places = lens_places(scene.cameras[camera_id], camera_id, job.size)
    for frame in range(job.frames) if frames is None else frames:
        yield through_lens(film_scene(scene, camera_id, frame, seed=job.seed).image, places)


def lens_places(camera: Camera, camera_id: int, size: int) -> np.ndarray:
    """float64 [size size 2]: where the pinhole image has what the lens brings to each pixel."""
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)
    rays = pixel_to_ray(pixels, with_lens(camera, camera_id))
    return rays @ camera.K[:2, :2].T + camera.K[:2, 2]


def through_lens(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A pinhole image as the lens of `places` shows it; beyond its edge, the edge goes on."""
    # Not by cv2.remap: its rounding depends on the number of threads, and the same request must give the same bytes.
    places = np.clip(places, 0, np.array(image.shape[1::-1]) - 1.001)
    columns, rows = np.moveaxis(places.astype(int), -1, 0)
    right, down = np.moveaxis(places - np.floor(places), -1, 0)[..., None]
    upper = (1 - right) * image[rows, columns] + right * image[rows, columns + 1]
    lower = (1 - right) * image[rows + 1, columns] + right * image[rows + 1, columns + 1]
    return np.rint((1 - down) * upper + down * lower).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------ labels


def _joints_world_m(job: _Job) -> np.ndarray:
    """float64 [T 32 3]."""
    scene = job.scene
    return np.array([joints_in(scene.joints_at(frame), H36M_32) for frame in range(job.frames)])


def _write_archive_labels(out: Path, jobs: Sequence[_Job], size: int, seed: int) -> None:
    for job in jobs:
        name = f"{take_file(job.subject, job.action, job.subaction)}.cdf"
        pose_mm = (1000.0 * _joints_world_m(job)).astype(np.float32).reshape(1, job.frames, -1)
        write_whole(out / job.subject / "MyPoseFeatures/D3_Positions" / name, cdf_bytes("Pose", pose_mm))
    write_whole(out / "metadata.xml", metadata_xml(size, seed))


def _write_npz_labels(folder: Path, jobs: Sequence[_Job], size: int, seed: int) -> None:
    positions: dict[str, dict[str, np.ndarray]] = {}
    for job in jobs:
        name = take_file(job.subject, job.action, job.subaction, own_spelling=False)
        positions.setdefault(job.subject, {})[name] = _joints_world_m(job).astype(np.float32)
    content = io.BytesIO()
    np.savez_compressed(content, positions_3d=np.array(positions, dtype=object))
    write_whole(folder / "data_3d_h36m.npz", content.getvalue())
    write_whole(folder / "camera-parameters.json", json.dumps(camera_parameters(size, seed), indent=2).encode())


def cdf_bytes(variable: str, values: np.ndarray) -> bytes:
    """A .cdf file of one float32 variable [1 ...], as MATLAB writes it: one record."""
    from cdflib.cdfwrite import CDF

    with scratch_folder() as folder:
        path = folder / "pose.cdf"
        file = CDF(str(path), cdf_spec={"Majority": "row_major"})
        file.write_var(
            {
                "Variable": variable,
                "Data_Type": CDF_REAL4,
                "Num_Elements": 1,
                "Rec_Vary": True,
                "Dim_Sizes": list(values.shape[1:]),
                "Compress": 0,
            },
            var_data=values,
        )
        file.close()
        return path.read_bytes()


def metadata_xml(size: int, seed: int) -> bytes:
    """The corpus's own table of takes, image sizes and cameras: all eleven subjects, whoever was filmed."""
    root = ElementTree.Element("a")
    mapping = ElementTree.SubElement(root, "mapping")
    _row(mapping, "Action", "subaction", *ALL_SUBJECTS)
    for subaction in SUBACTIONS:
        _row(mapping, "1", str(subaction), *["_ALL 1" if subaction == 1 else "_ALL"] * len(ALL_SUBJECTS))
    for action in ACTIONS:
        for subaction in SUBACTIONS:
            names = (take_file(subject, action, subaction) for subject in ALL_SUBJECTS)
            _row(mapping, str(action), str(subaction), *names)
    _row(mapping, "Action", "subaction", *["studio"] * len(ALL_SUBJECTS))
    side = size // 2 * 2  # a video's
    _row(mapping, "", "", *[f"[{';'.join([f'{side} {side}'] * len(CAMERA_NAMES))}]"] * len(ALL_SUBJECTS))
    ElementTree.SubElement(root, "w0").text = f"[{' '.join(repr(float(number)) for number in _w0(size, seed))}]"
    cameras = ElementTree.SubElement(ElementTree.SubElement(root, "dbcameras"), "index2id")
    for name in CAMERA_NAMES.values():
        ElementTree.SubElement(cameras, "item").text = name
    actions = ElementTree.SubElement(root, "actionnames")
    for name in ACTION_NAMES:
        ElementTree.SubElement(actions, "item").text = name
    ElementTree.indent(root, "   ")
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _row(mapping: ElementTree.Element, *cells: str) -> None:
    row = ElementTree.SubElement(mapping, "tr")
    for cell in cells:
        ElementTree.SubElement(row, "td").text = cell or None


def _w0(size: int, seed: int) -> list[float]:
    """For each camera of each subject three angles and the centre in mm; for each camera f, c, k1 k2 k3, p1 p2."""
    numbers: list[float] = []
    for camera_id in CAMERA_NAMES:
        for subject in ALL_SUBJECTS:
            camera = _cameras(subject, size, seed)[camera_id]
            numbers += [*angles_of(camera.R), *(-1000.0 * camera.R.T @ camera.t_m)]
    for camera_id in CAMERA_NAMES:
        K = _cameras("S1", size, seed)[camera_id].K
        k1, k2, p1, p2, k3 = LENSES[camera_id]
        numbers += [K[0, 0], K[1, 1], K[0, 2], K[1, 2], k1, k2, k3, p1, p2]
    return numbers


def angles_of(R: np.ndarray) -> list[float]:
    """[a, b, c] with R = Rx(a) Ry(b) Rz(c)."""
    return [
        float(np.arctan2(-R[1, 2], R[2, 2])),
        float(np.arcsin(np.clip(R[0, 2], -1.0, 1.0))),
        float(np.arctan2(-R[0, 1], R[0, 0])),
    ]


def camera_parameters(size: int, seed: int) -> dict[str, Any]:
    """{"intrinsics": {camera: ...}, "extrinsics": {subject: {camera: R, t in mm}}}, X_cam = R X + t."""
    intrinsics, extrinsics = {}, {}
    for camera_id, name in CAMERA_NAMES.items():
        K = _cameras("S1", size, seed)[camera_id].K
        intrinsics[name] = {"calibration_matrix": K.tolist(), "distortion": list(LENSES[camera_id])}
    for subject in ALL_SUBJECTS:
        extrinsics[subject] = {
            CAMERA_NAMES[camera_id]: {"R": camera.R.tolist(), "t": (1000.0 * camera.t_m)[:, None].tolist()}
            for camera_id, camera in _cameras(subject, size, seed).items()
        }
    return {"intrinsics": intrinsics, "extrinsics": extrinsics}


def _cameras(subject: str, size: int, seed: int) -> dict[int, Camera]:
    """Which take it is does not matter: cameras stand still."""
    return archive_scene(subject, min(ACTIONS), 1, size, seed).cameras
