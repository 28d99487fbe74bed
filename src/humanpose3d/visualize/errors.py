"""The picture of an evaluation: the error by joint, by action and by kind of pose, as bars. Takes figures, draws."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from humanpose3d.visualize.panels import SIDE_COLOURS, Colour

BAR_INCHES = 0.23
WIDTH_INCHES = 11.0
DOTS = 110
MOST_BARS = 40  # of a panel; more cannot be read
PLAIN: Colour = (96, 96, 96)
MEAN_LINE: Colour = (204, 121, 167)  # Okabe and Ito's reddish purple: apart from blue, orange and grey for every eye


@dataclass(frozen=True)
class Bars:
    """One panel of bars."""

    title: str
    values: Mapping[str, float]  # NaN: drawn as none
    sides: Sequence[str] = ()  # "left", "right" or "centre" of each bar; plain where empty
    hatched: frozenset[str] = frozenset()  # bars that no mean counts
    notes: Mapping[str, str] = field(default_factory=dict)  # behind a bar's number


def draw_errors(title: str, unit: str, mean: float, panels: Sequence[Bars]) -> bytes:
    """A PNG: panels in two columns, the first alone on the left; a line at the mean of all frames.

    Left and right joints have the colours they have everywhere (blue and orange); each bar also bears its number, so
    that nothing is told by colour alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    first, others = panels[0], panels[1:]
    heights = [max(len(panel.values), 1) + 2.5 for panel in others] or [1.0]
    rows = max(len(first.values) + 2.5, sum(heights))
    figure = Figure(
        figsize=(WIDTH_INCHES, BAR_INCHES * rows + 1.1), layout=ConstrainedLayoutEngine(w_pad=0.12), dpi=DOTS
    )
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    columns = figure.subfigures(1, 2 if others else 1, squeeze=False, wspace=0.03)[0]
    top = max((value for panel in panels for value in panel.values.values() if math.isfinite(value)), default=1.0)
    limit = 1.22 * max(top, 1e-9)
    axes = [(columns[0].subplots(), first)]
    if others:
        grid = columns[1].subplots(len(others), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        axes += list(zip(grid[:, 0], others, strict=True))
    for axis, panel in axes:
        _draw_bars(axis, panel, unit, mean, limit)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_bars(axis, panel: Bars, unit: str, mean: float, limit: float) -> None:
    names = list(panel.values)
    places = range(len(names))
    values = [panel.values[name] if math.isfinite(panel.values[name]) else 0.0 for name in names]
    sides = list(panel.sides) or ["centre"] * len(names)
    colours = [_rgb(SIDE_COLOURS.get(side, PLAIN)) for side in sides]
    bars = axis.barh(places, values, color=colours, height=0.72, zorder=2)
    for bar, name in zip(bars, names, strict=True):
        if name in panel.hatched:
            bar.set(facecolor="white", edgecolor=_rgb(PLAIN), hatch="///")
        value = panel.values[name]
        text = f"{value:.1f}" if math.isfinite(value) else "none"
        note = f"  {panel.notes[name]}" if name in panel.notes else ""
        axis.text(
            bar.get_width() + 0.012 * limit,
            bar.get_y() + bar.get_height() / 2,
            text + note,
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},  # over the mean's line
        )
    axis.axvline(mean, color=_rgb(MEAN_LINE), linewidth=1.4, linestyle="--", zorder=1.5)
    axis.set_yticks(places, [name.replace("_", " ") for name in names], fontsize=9)
    axis.set_xlim(0, limit)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_title(panel.title, fontsize=10, loc="left")
    axis.set_xlabel(unit, fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="0.9", zorder=0)
    for spine in ("top", "right", "left"):
        axis.spines[spine].set_visible(False)


def _rgb(colour: Colour) -> tuple[float, float, float]:
    return tuple(part / 255 for part in colour)  # type: ignore[return-value]
