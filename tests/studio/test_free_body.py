"""The free body: a shape space of the studio's people, posed with them."""

import numpy as np
import pytest

from humanpose3d.skeletons import SMPL_24
from humanpose3d.studio.free_body import BETAS, free_body, rest_vertices, write_free_body
from humanpose3d.studio.people import random_person


def people(number: int):
    rng = np.random.default_rng(5)
    return [random_person(rng).body for _ in range(number)]


def test_ten_numbers_describe_a_new_person_to_millimetres():
    body = free_body()
    for person in people(20):
        off_m = body.vertices_m(body.betas_of(person)) - rest_vertices(person)
        assert np.linalg.norm(off_m, axis=-1).mean() < 0.003


def test_betas_are_in_standard_deviations():
    betas = np.array([free_body().betas_of(person) for person in people(200)])
    np.testing.assert_allclose(betas.std(0), 1.0, atol=0.25)
    np.testing.assert_allclose(betas.mean(0), 0.0, atol=0.3)


def test_the_mesh_is_closed_and_faces_outwards():
    body = free_body()
    edges = np.concatenate([body.faces[:, [0, 1]], body.faces[:, [1, 2]], body.faces[:, [2, 0]]])
    assert {tuple(edge) for edge in edges.tolist()} == {(b, a) for a, b in edges.tolist()}  # each edge, both ways
    corners = body.template_m[body.faces]
    volume_m3 = np.einsum("fc,fc->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6.0
    assert 0.04 < volume_m3 < 0.12  # of an adult, where parts overlap counted twice


def test_weights_and_regressors_sum_to_one():
    body = free_body()
    np.testing.assert_allclose(body.weights.sum(1), 1.0)
    assert (body.weights >= 0).all() and body.weights.shape == (len(body.template_m), len(SMPL_24))
    for rows in body.regressors.values():
        np.testing.assert_allclose(rows.sum(1), 1.0)


def test_the_file_is_the_same_every_time(tmp_path):
    report = write_free_body(tmp_path / "first")
    write_free_body(tmp_path / "second")
    assert report.facts["betas"] == BETAS
    for name in ("SMPL_NEUTRAL", "SMPL_FEMALE", "SMPL_MALE"):
        assert (tmp_path / "first" / f"{name}.npz").read_bytes() == (tmp_path / "second" / f"{name}.npz").read_bytes()


@pytest.mark.parametrize("height_m", [1.6, 1.9])
def test_a_taller_person_has_a_taller_body(height_m):
    nearest = min(people(60), key=lambda person: abs(person.height - height_m))
    body = free_body()
    vertices_m = body.vertices_m(body.betas_of(nearest))
    assert np.ptp(vertices_m[:, 1]) == pytest.approx(nearest.height, abs=0.06)
