"""Residuals gathered: means by hand, percentiles to a bin, the same after a stop."""

import json

import numpy as np
import pytest

from humanpose3d.residuals import BIN, Residuals
from humanpose3d.skeletons import H36M_17


def gathered(distances: np.ndarray) -> Residuals:
    residuals = Residuals()
    for person in distances:
        residuals.add(H36M_17, person)
    return residuals


def test_mean_and_percentiles_are_those_of_all_known_joints() -> None:
    distances = np.random.default_rng(0).gamma(2.0, 3.0, (50, 17))
    distances[:, H36M_17.index("head")] = np.nan
    residuals, known = gathered(distances), distances[np.isfinite(distances)]
    assert residuals.count == known.size and residuals.mean == pytest.approx(known.mean())
    for share in (0.5, 0.95):
        assert residuals.percentile(share) == pytest.approx(np.percentile(known, 100 * share), abs=2 * BIN)
    assert residuals.by_joint()["left_wrist"] == pytest.approx(distances[:, H36M_17.index("left_wrist")].mean())
    assert "head" not in residuals.by_joint()


def test_what_is_taken_away_was_never_there() -> None:
    distances = np.random.default_rng(0).gamma(2.0, 3.0, (3, 17))
    residuals = gathered(distances)
    residuals.add(H36M_17, distances[2], times=-1)
    assert residuals.facts() == gathered(distances[:2]).facts()


def test_it_goes_through_json_and_adds_up() -> None:
    distances = np.random.default_rng(0).gamma(2.0, 3.0, (4, 17))
    first, second = gathered(distances[:2]), gathered(distances[2:])
    restored = Residuals.from_dict(json.loads(json.dumps(first.to_dict())))
    restored.add_all(second)
    assert restored.facts() == gathered(distances).facts()


def test_of_nothing_there_is_nothing_to_tell() -> None:
    assert (Residuals().facts(), Residuals().line("mm")) == (None, "")
    far = gathered(np.full((1, 17), 1e9))
    assert far.mean == 1e9 and far.line("mm").startswith("1000000000.0 mm")
