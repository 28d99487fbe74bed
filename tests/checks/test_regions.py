"""Who is accused: the group whose cells have the sign, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from humanpose3d.checks.columns import Cell
from humanpose3d.checks.regions import accused, regions, steps

CELLS: list[Cell] = [(subject, camera) for subject in ("S1", "S5", "S9") for camera in ("a", "b", "c", "d")]


def places(found) -> list[tuple[str | None, str | None]]:
    regions_found = [getattr(one, "region", one) for one in found]
    return [(region.subject, region.camera_id) for region in regions_found]


def hit(cell: Cell, place: tuple[str | None, str | None]) -> bool:
    return place[0] in (None, cell[0]) and place[1] in (None, cell[1])


@pytest.mark.parametrize("place", [("S5", None), (None, "c"), ("S9", "b"), (None, None)])
@pytest.mark.parametrize("seed", range(5))
def test_votes_of_a_tenth_the_wrong_way_accuse_exactly_the_group(place, seed: int) -> None:
    rng = np.random.default_rng(seed)
    votes = {cell: np.where(rng.random(8) < 0.1, -1.0, 1.0) * (1.0 if hit(cell, place) else -1.0) for cell in CELLS}
    assert places(accused(votes)) == [place]


def test_few_votes_accuse_nobody() -> None:
    votes = {cell: -np.ones(8) for cell in CELLS} | {("S1", "a"): np.ones(3)}
    assert places(accused(votes)) == []


def test_cells_without_an_opinion_go_with_their_group() -> None:
    votes = {cell: np.ones(8) if cell[0] == "S5" else -np.ones(8) for cell in CELLS}
    votes["S5", "b"] = np.zeros(8)
    assert places(accused(votes)) == [("S5", None)]


def test_two_groups_are_accused_one_after_the_other() -> None:
    votes = {cell: np.ones(8) if cell[0] == "S5" or cell == ("S1", "a") else -np.ones(8) for cell in CELLS}
    assert places(accused(votes)) == [("S5", None), ("S1", "a")]


@pytest.mark.parametrize("place", [("S5", None), (None, "c"), ("S9", "b")])
@pytest.mark.parametrize("seed", range(5))
def test_a_step_is_seen_against_the_others_habit(place, seed: int) -> None:
    """All groups are off by 0.03 in one direction: that is the estimator's habit. One is off by 0.03 more."""
    rng = np.random.default_rng(seed)
    values = {
        cell: np.array([0.03, 0.0]) + rng.normal(0, 0.002, 2) + (np.array([0.0, 0.03]) if hit(cell, place) else 0.0)
        for cell in CELLS
    }
    errors = dict.fromkeys(CELLS, 0.002)
    found = steps(values, errors, floor=0.015, own_spread=0.002)
    assert places(found) == [place]
    np.testing.assert_allclose(found[0].value - found[0].others, [0.0, 0.03], atol=0.005)


@pytest.mark.parametrize("seed", range(5))
def test_cells_that_all_differ_accuse_nobody(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {cell: rng.normal(0, 0.01, 2) for cell in CELLS}
    assert steps(values, dict.fromkeys(CELLS, 0.002), floor=0.04, own_spread=0.002) == []


def test_of_two_groups_the_one_farther_from_zero_is_accused() -> None:
    values = {(subject, camera): np.array([off]) for subject, off in (("S1", 0.002), ("S5", 0.03)) for camera in "ab"}
    found = steps(values, dict.fromkeys(values, 0.002), floor=0.015, own_spread=0.002)
    assert places(found) == [("S5", None)]


def test_with_one_camera_the_subject_is_named_and_with_one_subject_the_camera() -> None:
    one_camera = regions([("S1", "a"), ("S5", "a")])
    assert [(region.subject, region.camera_id) for region in one_camera] == [(None, None), ("S1", None), ("S5", None)]
    one_subject = regions([("S1", "a"), ("S1", "b")])
    assert [(region.subject, region.camera_id) for region in one_subject] == [(None, None), (None, "a"), (None, "b")]


def test_a_subject_of_one_camera_among_several_is_its_cell() -> None:
    found = regions([("S1", "a"), ("S1", "b"), ("S5", "a")])
    assert {(region.subject, region.camera_id) for region in found if region.cells == (("S5", "a"),)} == {("S5", "a")}
