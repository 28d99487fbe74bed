"""Meshes written and read back: the same corners in the same order, upright in y-up programs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from humanpose3d.studio.free_body import free_body
from humanpose3d.visualize.mesh_export import FORMATS, write_mesh

VERTICES = free_body().template_m * [1.0, -1.0, -1.0] + [0.5, 0.2, 4.0]  # facing the camera
FACES = free_body().faces


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_mesh_read_back_is_the_same_and_upright(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"body{suffix}"
    write_mesh(path, VERTICES.astype(np.float32), FACES)
    found = trimesh.load(path, force="mesh", process=False)
    np.testing.assert_array_equal(found.faces, FACES)
    np.testing.assert_allclose(found.vertices, VERTICES * [1, -1, -1], atol=1e-5)
    assert found.vertices[found.vertices[:, 1].argmax()] @ [0, 1, 0] > 0  # the head is at the top
    assert found.volume > 0.04  # faces still look outwards
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_glb_has_the_colour_asked_for(tmp_path: Path) -> None:
    write_mesh(tmp_path / "body.glb", VERTICES, FACES, colour=(230, 159, 0))
    found = trimesh.load(tmp_path / "body.glb", force="mesh", process=False)
    np.testing.assert_array_equal(found.visual.material.baseColorFactor[:3], (230, 159, 0))


def test_the_same_mesh_gives_the_same_bytes(tmp_path: Path) -> None:
    for suffix in FORMATS:
        first, second = (tmp_path / f"{name}{suffix}" for name in ("first", "second"))
        write_mesh(first, VERTICES, FACES)
        write_mesh(second, VERTICES, FACES)
        assert first.read_bytes() == second.read_bytes()


def test_another_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"body\.stl.*\.obj or \.glb"):
        write_mesh(tmp_path / "body.stl", VERTICES, FACES)


def test_without_trimesh_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(ValueError, match=r"humanpose3d\[body\]"):
        write_mesh(tmp_path / "body.obj", VERTICES, FACES)
