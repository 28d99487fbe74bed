"""The One-Euro filter: stills tremble less, moves lag little, gaps and holes start it anew."""

import numpy as np

from humanpose3d.smoothing import OneEuro

FPS = 30.0


def filtered(values: np.ndarray, fps: float = FPS) -> np.ndarray:
    smooth = OneEuro()
    return np.array([smooth(value, frame / fps) for frame, value in enumerate(values)])


def test_a_still_person_trembles_less():
    noise = 0.01 * np.random.default_rng(0).normal(size=(300, 17, 3)).astype(np.float32)
    smooth = filtered(noise)
    assert smooth.dtype == np.float32
    assert np.std(np.diff(smooth[30:], axis=0)) < 0.35 * np.std(np.diff(noise[30:], axis=0))
    assert np.std(smooth[30:]) < 0.7 * np.std(noise)


def test_who_moves_fast_is_not_left_behind():
    time = np.arange(90) / FPS
    way = np.stack([2.0 * time, np.zeros(90), np.zeros(90)], axis=-1)[:, None]  # 2 m/s
    lag_m = np.abs(filtered(way) - way)[30:, 0, 0].max()
    assert 0.0 < lag_m < 0.08
    assert np.allclose(filtered(way)[:, 0, 1:], 0.0)


def test_it_is_the_same_at_any_rate_of_frames():
    slow, fast = (filtered(np.sin(np.arange(2 * fps) / fps)[:, None], fps) for fps in (20, 40))
    assert np.abs(slow[38] - fast[76]).max() < 0.02  # at 1.9 s


def test_gaps_and_holes_start_it_anew():
    smooth = OneEuro()
    smooth(np.zeros(2), 0.0)
    assert smooth(np.full(2, 9.0), 5.0).tolist() == [9.0, 9.0]
    held = smooth(np.array([np.nan, 9.0]), 5.1)
    assert np.isnan(held[0]) and held[1] == 9.0
    assert smooth(np.array([1.0, 9.0]), 5.2).tolist() == [1.0, 9.0]
