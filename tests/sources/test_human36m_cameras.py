"""Human3.6M's camera files, written here; the real cameras of the samples where they are."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from humanpose3d.camera import camera_to_pixel, world_to_camera
from humanpose3d.sources.human36m_cameras import find_rig, rotation_of
from humanpose3d.sources.reading import BrokenFile
from humanpose3d.studio.human36m_archives import (
    LENSES,
    angles_of,
    archive_scene,
    camera_parameters,
    metadata_xml,
    with_lens,
)

SIZE, SEED = 100, 4
FILES = {
    "metadata.xml": metadata_xml(SIZE, SEED),
    "camera-parameters.json": json.dumps(camera_parameters(SIZE, SEED)).encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_the_studios_cameras_are_read_from_each_file(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    rig = find_rig([tmp_path / "nowhere", tmp_path])
    for subject in ("S1", "S8", "S11"):
        for camera_id, camera in archive_scene(subject, 2, 1, SIZE, SEED).cameras.items():
            found = rig.camera(subject, ("54138969", "55011271", "58860488", "60457274")[camera_id - 1])
            np.testing.assert_allclose(found.R, camera.R, atol=1e-12)
            np.testing.assert_allclose(found.t_m, camera.t_m, atol=1e-12)
            np.testing.assert_allclose(found.K, camera.K, atol=1e-9)
            np.testing.assert_array_equal(found.distortion, LENSES[camera_id])


def test_the_angles_turn_about_x_then_the_turned_y_then_the_turned_z():
    angles = np.array([-1.3, 0.4, 2.8])
    np.testing.assert_allclose(rotation_of(angles), Rotation.from_euler("XYZ", angles).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(angles_of(rotation_of(angles)), angles)


def test_the_tangential_coefficients_are_in_the_corpuss_order():
    """Its own projection, written out, differs from ours by half of one small term and from swapped ones by more."""
    camera = with_lens(archive_scene("S1", 2, 1, 1000, SEED).cameras[1], 1)
    points = np.random.default_rng(0).uniform([-1, -1, 0], [1, 1, 2], (50, 3))
    k1, k2, p1, p2, k3 = camera.distortion
    in_camera = world_to_camera(points, camera)
    x, y = (in_camera[:, :2] / in_camera[:, 2:]).T
    r2 = x**2 + y**2
    stretch = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
    theirs = np.stack([x * stretch + p2 * r2, y * stretch + p1 * r2], -1) @ camera.K[:2, :2].T + camera.K[:2, 2]
    ours = camera_to_pixel(in_camera, camera)
    swapped = np.stack([x * stretch + p1 * r2, y * stretch + p2 * r2], -1) @ camera.K[:2, :2].T + camera.K[:2, 2]
    assert np.abs(ours - theirs).mean() < 0.15 < np.abs(swapped - theirs).mean()


def test_image_sizes_are_read_as_width_and_height(tmp_path):
    text = FILES["metadata.xml"].decode().replace("[100 100;100 100;", "[1002 1000;1000 1000;")
    (tmp_path / "metadata.xml").write_text(text)
    sizes = find_rig([tmp_path]).sizes_wh
    assert (sizes["S1", "54138969"], sizes["S1", "55011271"]) == ((1000, 1002), (1000, 1000))


def test_metadata_is_found_in_the_folder_of_the_corpuss_code(tmp_path):
    (tmp_path / "Release-v1.1").mkdir()
    (tmp_path / "Release-v1.1" / "metadata.xml").write_bytes(FILES["metadata.xml"])
    assert find_rig([tmp_path]).path.parent.name == "Release-v1.1"


def test_without_a_camera_file_the_error_says_which_to_get(tmp_path):
    with pytest.raises(FileNotFoundError, match="metadata.xml of the corpus's own code there, or a camera-parameters"):
        find_rig([tmp_path])


@pytest.mark.parametrize("name", FILES)
def test_half_a_camera_file_is_named(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name][: len(FILES[name]) // 2])
    with pytest.raises(BrokenFile, match=f"{name}: not whole"):
        find_rig([tmp_path])


def test_parameters_that_are_no_object_are_a_broken_file(tmp_path):
    parameters = camera_parameters(SIZE, SEED) | {"extrinsics": []}
    (tmp_path / "camera-parameters.json").write_text(json.dumps(parameters))
    with pytest.raises(BrokenFile, match="intrinsics or extrinsics are no JSON object"):
        find_rig([tmp_path])


def test_too_few_camera_numbers_are_counted(tmp_path):
    root = ElementTree.fromstring(FILES["metadata.xml"])
    numbers = root.find("w0")
    numbers.text = "[" + " ".join(numbers.text.strip("[]").split()[:-1]) + "]"
    (tmp_path / "metadata.xml").write_bytes(ElementTree.tostring(root))
    with pytest.raises(BrokenFile, match="w0 has 299 numbers, expected 300 for 11 subjects and 4 cameras"):
        find_rig([tmp_path])


@pytest.mark.parametrize(
    "change",
    [
        lambda R, t: (R, -R.T @ t),  # the camera's centre, taken for the translation
        lambda R, t: (R, t / 1000),  # metres
        lambda R, t: (-R, -t),
    ],
)
def test_another_convention_or_unit_is_refused(change, tmp_path):
    parameters = camera_parameters(SIZE, SEED)
    pose = parameters["extrinsics"]["S1"]["55011271"]
    R, t = change(np.array(pose["R"]), np.array(pose["t"]))
    parameters["extrinsics"]["S1"]["55011271"] = {"R": R.tolist(), "t": t.tolist()}
    (tmp_path / "camera-parameters.json").write_text(json.dumps(parameters))
    rig = find_rig([tmp_path])
    with pytest.raises(BrokenFile, match="does not see the middle of the room|not a rotation"):
        rig.camera("S1", "55011271")
    rig.camera("S1", "54138969")
    rig.camera("S5", "55011271")


def test_the_third_convention_is_refused(tmp_path):
    """R^T (X - T) in metres, under the names that mean R (X - T) in millimetres."""
    for camera_id, camera in archive_scene("S1", 2, 1, SIZE, SEED).cameras.items():
        centre_m = -camera.R.T @ camera.t_m
        values = {"R": camera.R.T.tolist(), "T": centre_m.tolist(), "f": [100, 100], "c": [50, 50]}
        (tmp_path / "Human36M_subject1_camera.json").write_text(json.dumps({str(camera_id): values}))
        with pytest.raises(BrokenFile, match="does not see the middle of the room"):
            find_rig([tmp_path]).camera("S1", ("54138969", "55011271", "58860488", "60457274")[camera_id - 1])


def test_real_cameras_come_back_from_the_corpuss_form(samples, tmp_path):
    moon = find_rig([samples / "human36m" / "annotations"])
    root = ElementTree.fromstring(FILES["metadata.xml"])
    numbers = np.array([float(number) for number in root.find("w0").text.strip("[]").split()])
    ids = ("54138969", "55011271", "58860488", "60457274")
    for number, camera_id in enumerate(ids):
        for subject in (1, 5, 7, 8):
            camera = moon.camera(f"S{subject}", camera_id)
            start = 6 * (11 * number + subject - 1)
            numbers[start : start + 6] = [*angles_of(camera.R), *(-1000 * camera.R.T @ camera.t_m)]
            numbers[264 + 9 * number :][:4] = [camera.K[0, 0], camera.K[1, 1], *camera.K[:2, 2]]
    root.find("w0").text = "[" + " ".join(map(repr, numbers.tolist())) + "]"
    (tmp_path / "metadata.xml").write_bytes(ElementTree.tostring(root))
    rig = find_rig([tmp_path])
    for camera_id in ids:
        for subject in ("S1", "S5", "S7", "S8"):
            found, camera = rig.camera(subject, camera_id), moon.camera(subject, camera_id)
            np.testing.assert_allclose(found.R, camera.R, atol=1e-9)
            np.testing.assert_allclose(found.t_m, camera.t_m, atol=1e-9)
            np.testing.assert_allclose(found.K, camera.K, atol=1e-9)
