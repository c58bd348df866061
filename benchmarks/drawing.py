"""Panels of lines and of bars: dark on white, each named where it is, ours in one colour throughout.

Knows points, names and colours; no suite. matplotlib is loaded when something is drawn.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "ALONE_INK",
    "COLOURS",
    "OTHERS",
    "OURS",
    "STYLE",
    "Bar",
    "BarPanel",
    "Line",
    "Panel",
    "bar_panels",
    "panels",
]

INK, FAINT, OURS = "#1a1a1a", "#d9d9d9", "#0b5fa5"
ALONE_INK = "#6b6b6b"
OTHERS = ("#c2571a", "#2e7d4f", "#8e44ad", "#a07b00", "#b03060", "#3c8d93")  # for eyes of all kinds
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.hashsalt": "outrider",
    "svg.fonttype": "none",  # text stays text
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
COLOURS = {"ours": OURS, "alone": ALONE_INK}
MAX_COLUMNS = 3
DPI = 160
MARGIN = 0.1  # inches
MAX_DOTS = 16  # of a line; more would run together
LABEL_GAP = 0.062  # of an axis's height, between the names of two lines


@dataclass(frozen=True)
class Line:
    """Points of one way: x to the values there, one a prompt."""

    name: str
    points: Mapping[float, Sequence[float]]
    colour: str = ""  # "": one that no other line of the panel has


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Sequence[Line]
    x_label: str
    y_label: str
    x_ticks: Sequence[float] = field(default_factory=list)
    log: str = ""  # the axes that are logarithmic: "x", "y" or "xy"


@dataclass(frozen=True)
class Bar:
    """One way, and its values, one a prompt."""

    name: str
    values: Sequence[float]
    colour: str


@dataclass(frozen=True)
class BarPanel:
    title: str
    bars: Sequence[Bar]  # the same names in every panel


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=MARGIN, h_pad=MARGIN))


def panels(given: Iterable[Panel]) -> Any:
    """Side by side, one y axis."""
    several = list(given)
    shares_y = len({panel.y_label for panel in several}) == 1
    figure = _figure(6.4 * len(several), 4.2)
    axes = figure.subplots(1, len(several), sharey=shares_y, squeeze=False)
    named: list[tuple[Any, list[tuple[str, float, str]]]] = []
    for number, (axis, panel) in enumerate(zip(axes[0], several, strict=True)):
        others = iter(OTHERS * (1 + len(panel.lines) // len(OTHERS)))
        ends: list[tuple[str, float, str]] = []
        for line in panel.lines:
            if points := {x: values for x, values in line.points.items() if values}:
                colour = line.colour or next(others)
                _line(axis, points, colour)
                ends.append((line.name, statistics.median(list(points.values())[-1]), colour))
        axis.set_title(panel.title)
        axis.set_xlabel(panel.x_label)
        axis.grid(axis="y", color=FAINT, linewidth=0.6)
        axis.set_axisbelow(True)
        if "x" in panel.log:
            axis.set_xscale("log", base=2)
        if panel.x_ticks:
            _ticks(axis, panel.x_ticks)
        if number == 0 or not shares_y:
            axis.set_ylabel(panel.y_label)
        axis.margins(x=0.02)
        named.append((axis, ends))
    for (axis, _), panel in zip(named, several, strict=True):
        if "y" in panel.log:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
        else:
            axis.set_ylim(bottom=0)
    for axis, ends in named:  # now that all heights are known
        _names(axis, ends)
    return figure


def _line(axis: Any, points: Mapping[float, Sequence[float]], colour: str) -> None:
    xs = list(points)
    middle = [statistics.median(values) for values in points.values()]
    axis.plot(
        xs,
        middle,
        color=colour,
        linewidth=2.4 if colour == OURS else 1.5,
        marker="o" if len(xs) <= MAX_DOTS else "",
        markersize=4,
        zorder=3,
    )
    if any(len(values) > 1 for values in points.values()):
        low, high = [min(values) for values in points.values()], [max(values) for values in points.values()]
        axis.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0, zorder=2)


def _ticks(axis: Any, ticks: Sequence[float]) -> None:
    """At what was measured; a name that would touch the one before is left out."""
    axis.set_xticks(list(ticks))
    places = axis.get_xaxis().get_transform().transform(list(ticks))
    span, last, names = max(places) - min(places), -math.inf, []
    for tick, place in zip(ticks, places, strict=True):
        is_clear = place - last >= 0.04 * span
        names.append(f"{tick:g}" if is_clear else "")
        last = place if is_clear else last
    axis.set_xticklabels(names)


def _names(axis: Any, ends: Sequence[tuple[str, float, str]]) -> None:
    """Beside the end of each line, pushed apart where they would touch."""
    in_order = sorted(ends, key=lambda end: end[1])
    bottom, top, *values = axis.get_yaxis().get_transform().transform([*axis.get_ylim(), *(end[1] for end in in_order)])
    places = [(value - bottom) / ((top - bottom) or 1.0) for value in values]
    heights: list[float] = []
    for place in places:
        heights.append(max(place, heights[-1] + LABEL_GAP) if heights else place)
    if heights and heights[-1] > 1:
        for number in range(len(heights) - 1, -1, -1):
            ceiling = 1.0 if number == len(heights) - 1 else heights[number + 1] - LABEL_GAP
            heights[number] = min(heights[number], ceiling)
    for height, place, (name, _, colour) in zip(heights, places, in_order, strict=True):
        axis.plot(
            [1.0, 1.03], [place, height], transform=axis.transAxes, color=colour, linewidth=0.7, clip_on=False, zorder=1
        )
        axis.annotate(
            name,
            (1.04, height),
            xycoords="axes fraction",
            color=colour,
            va="center",
            fontweight="bold" if colour == OURS else "normal",
            annotation_clip=False,
        )


def bar_panels(given: Iterable[BarPanel], label: str, level: float | None = None) -> Any:
    """A bar a way, its range, and its median in figures; `level` is a line to compare with."""
    several = list(given)
    num_columns = min(len(several), MAX_COLUMNS)
    num_rows = -(-len(several) // num_columns)
    names = [bar.name for bar in several[0].bars]
    figure = _figure(3.2 + 3.6 * num_columns, num_rows * (0.9 + 0.36 * len(names)))
    axes = figure.subplots(num_rows, num_columns, sharey=True, sharex=True, squeeze=False)
    for axis in axes.flat[len(several) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, several, strict=False):
        for place, bar in enumerate(panel.bars):
            if bar.values:
                _bar(axis, place, bar)
        axis.set_title(panel.title)
        axis.set_xlabel(label)
        axis.set_yticks(range(len(names)), names)
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelbottom=True)
        axis.grid(axis="x", color=FAINT, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.margins(x=0.14)
        if level is not None:
            axis.axvline(level, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes[0][0].invert_yaxis()
    return figure


def _bar(axis: Any, place: int, bar: Bar) -> None:
    median, high = statistics.median(bar.values), max(bar.values)
    axis.barh(place, median, color=bar.colour, height=0.66, zorder=2)
    if len(bar.values) > 1:
        axis.plot([min(bar.values), high], [place, place], color=INK, linewidth=1, zorder=3)
    axis.annotate(
        f"{median:.2f}",
        (high, place),
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )
