"""Axis-angle vectors and rotation matrices, against hand-computed ones, SciPy's, and each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from humanpose3d.rotations import axis_angle_to_matrix, matrix_to_axis_angle

directions = arrays(np.float64, 3, elements=st.floats(-1, 1)).filter(lambda v: np.linalg.norm(v) > 0.1)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_a_quarter_turn_about_z_takes_x_to_y():
    matrix = axis_angle_to_matrix(np.array([0.0, 0.0, np.pi / 2]))
    np.testing.assert_allclose(matrix @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(matrix_to_axis_angle(matrix), [0.0, 0.0, np.pi / 2], atol=1e-15)


def test_no_turn_is_the_identity():
    assert np.array_equal(axis_angle_to_matrix(np.zeros(3)), np.eye(3))
    assert np.array_equal(matrix_to_axis_angle(np.eye(3)), np.zeros(3))


@settings(max_examples=200)
@given(directions, st.floats(0.0, 12.0))
def test_matrices_are_those_of_scipy(direction, angle):
    vector = angle * unit(direction)
    np.testing.assert_allclose(axis_angle_to_matrix(vector), Rotation.from_rotvec(vector).as_matrix(), atol=1e-12)


@settings(max_examples=300)
@given(
    directions,
    st.one_of(st.floats(0.0, np.pi), st.floats(0.0, 1e-9), st.floats(np.pi - 1e-9, np.pi), st.sampled_from([1e-160])),
)
def test_there_and_back_is_the_same_rotation_at_any_angle(direction, angle):
    vector = angle * unit(direction)
    back = matrix_to_axis_angle(axis_angle_to_matrix(vector))
    if np.pi - angle < 1e-7 and back @ vector < 0:  # the same turn the other way round
        back = -back
    np.testing.assert_allclose(back, vector, atol=3e-8 if np.pi - angle < 1e-7 else 1e-12)
    np.testing.assert_allclose(axis_angle_to_matrix(back), axis_angle_to_matrix(vector), atol=1e-12)


@settings(max_examples=50)
@given(directions, st.floats(1e-16, 1e-5))
def test_a_tiny_turn_keeps_its_size(direction, angle):
    vector = angle * unit(direction)
    np.testing.assert_allclose(matrix_to_axis_angle(axis_angle_to_matrix(vector)), vector, rtol=0, atol=1e-10 * angle)


def test_more_than_half_a_turn_comes_back_as_the_shorter_way_round():
    back = matrix_to_axis_angle(axis_angle_to_matrix(np.array([0.0, 1.5 * np.pi, 0.0])))
    np.testing.assert_allclose(back, [0.0, -0.5 * np.pi, 0.0], atol=1e-12)


@pytest.mark.parametrize("axis", np.concatenate([np.eye(3), [[0.6, 0.8, 0.0], [0.48, 0.6, 0.64]]]))
def test_half_a_turn_keeps_its_axis(axis):
    found = matrix_to_axis_angle(2.0 * np.outer(axis, axis) - np.eye(3))
    np.testing.assert_allclose(np.abs(found), np.pi * np.abs(axis), atol=1e-12)
    np.testing.assert_allclose(axis_angle_to_matrix(found), 2.0 * np.outer(axis, axis) - np.eye(3), atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (24, 3), (5, 24, 3), (0, 3)])
def test_any_number_of_leading_axes_goes_through(shape):
    vectors = np.random.default_rng(0).uniform(-1.5, 1.5, shape).astype(np.float32)  # less than pi
    matrices = axis_angle_to_matrix(vectors)
    assert matrices.shape == (*shape, 3) and matrices.dtype == np.float64
    np.testing.assert_allclose(matrix_to_axis_angle(matrices), vectors, atol=1e-6)


def test_a_missing_rotation_stays_missing_and_spoils_no_other():
    vectors = np.array([[np.nan, 0.0, 0.0], [0.1, 0.2, 0.3]])
    back = matrix_to_axis_angle(axis_angle_to_matrix(vectors))
    assert np.isnan(back[0]).any()
    np.testing.assert_allclose(back[1], vectors[1], atol=1e-12)
