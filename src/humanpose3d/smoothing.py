"""Steadier poses from frame to frame: the One-Euro filter, a low-pass whose cut-off rises with speed.

Casiez, Roussel and Vogel 2012, "1 Euro Filter: a simple speed-based low-pass filter for noisy input in interactive
systems". What is slow is smoothed much, so that a still person does not tremble; what is fast hardly, so that it does
not lag. It looks at the past alone.
"""

from __future__ import annotations

import numpy as np

CUTOFF_HZ = 1.2  # of what stands still
CUTOFF_PER_SPEED = 2.0  # Hz more for each metre a second
SPEED_CUTOFF_HZ = 1.0  # of the speed itself
FORGOTTEN_S = 1.0  # after a gap as long as this it starts anew


class OneEuro:
    """Filters arrays of one shape, number by number."""

    def __init__(self) -> None:
        self._value: np.ndarray | None = None
        self._speed: np.ndarray | None = None
        self._time_s = 0.0

    def __call__(self, value: np.ndarray, time_s: float) -> np.ndarray:
        """The value at a time, later than all before, smoothed. NaN passes, and what follows it starts anew."""
        passed_s = time_s - self._time_s
        if self._value is None or self._speed is None or not 0.0 < passed_s < FORGOTTEN_S:
            self._value, self._speed = value.astype(np.float64), np.zeros(value.shape)
        else:
            before = np.where(np.isfinite(self._value), self._value, value)
            speed = (value - before) / passed_s
            keep = _share(SPEED_CUTOFF_HZ, passed_s)
            self._speed = np.where(np.isfinite(speed), keep * speed + (1.0 - keep) * self._speed, 0.0)
            share = _share(CUTOFF_HZ + CUTOFF_PER_SPEED * np.abs(self._speed), passed_s)
            self._value = share * value + (1.0 - share) * before
        self._time_s = time_s
        return self._value.astype(value.dtype)


def _share(cutoff_hz: float | np.ndarray, passed_s: float) -> np.ndarray:
    """Of the new value, in a first-order low-pass."""
    angle = 2.0 * np.pi * np.asarray(cutoff_hz) * passed_s
    return angle / (angle + 1.0)
