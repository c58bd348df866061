"""A result as pictures, PNG and SVG: dark on white, lines and bars named where they are, ours in one colour throughout.

Made from what was recorded alone. matplotlib is loaded when something is drawn, and draws without a screen.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.link_record import ALONE
from benchmarks.record import Result, Run
from benchmarks.service_record import DRAFTING, PLAIN
from benchmarks.tables.pair import fastest_alone
from outrider.errors import InvalidParameter, MissingExtra

__all__ = ["Line", "draw"]

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


def draw(result: Result, folder: Path) -> list[Path]:
    """Write the figures of a result's suite into `folder`. Raises MissingExtra, InvalidParameter."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra('figures need matplotlib; run: pip install "outrider[bench]"') from None
    matplotlib.use("Agg")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(STYLE):
            return [path for name, figure in FIGURES[result.suite](result) for path in _write(figure, folder, name)]
    except OSError as error:
        raise InvalidParameter(f"{folder} cannot be written ({error.strerror}); give another folder") from None


def _write(figure: Any, folder: Path, name: str) -> Iterator[Path]:
    from matplotlib import pyplot

    for suffix in ("png", "svg"):
        path = folder / f"{name}.{suffix}"
        figure.savefig(path, dpi=160, bbox_inches="tight", metadata={"Date": None} if suffix == "svg" else None)
        yield path
    pyplot.close(figure)


def _pair(result: Result) -> Iterator[tuple[str, Any]]:
    best = {kind: fastest_alone(result, kind) for kind in result.kinds}
    yield (
        "speed",
        _bars(
            result, lambda way, kind: result.ratios(way, best[kind], kind=kind), "times the fastest target alone", 1.0
        ),
    )
    yield (
        "tokens-per-pass",
        _bars(result, lambda way, kind: _per_pass(result.select(way=way, kind=kind)), "tokens a pass"),
    )
    yield from _cost(result)


def _link(result: Result) -> Iterator[tuple[str, Any]]:
    rtts_ms = sorted({run.rtt_ms for run in result.runs if run.rtt_ms is not None})

    def lines(kind: str, of: Callable[[str, float], Sequence[float]]) -> list[Line]:
        return [
            Line(way.name, {rtt_ms: of(way.name, rtt_ms) for rtt_ms in rtts_ms}, COLOURS.get(way.role, ""))
            for way in result.ways
        ]

    x_label = "round trip, ms"
    yield (
        "speed-over-rtt",
        _panels(
            Panel(
                kind,
                lines(kind, lambda way, rtt_ms, kind=kind: result.ratios(way, ALONE, kind=kind, rtt_ms=rtt_ms)),  # type: ignore[misc]
                x_label,
                "tokens/s relative to the target alone",
                x_ticks=rtts_ms,
            )
            for kind in result.kinds
        ),
    )
    yield (
        "tokens-per-pass",
        _panels(
            Panel(
                kind,
                lines(kind, lambda way, rtt_ms, kind=kind: _per_pass(result.select(way=way, kind=kind, rtt_ms=rtt_ms))),  # type: ignore[misc]
                x_label,
                "tokens a pass of the target",
                x_ticks=rtts_ms,
            )
            for kind in result.kinds
        ),
    )
    yield from _cost(result)


def _service(result: Result) -> Iterator[tuple[str, Any]]:
    counts = sorted({run.num_sessions for run in result.runs if run.num_sessions is not None})

    def lines(of: Callable[[list[Run]], list[float]]) -> list[Line]:
        return [
            Line(name, {count: of(result.select(way=way, num_sessions=count)) for count in counts}, colour)
            for way, name, colour in (
                (PLAIN, "devices that listen", ALONE_INK),
                (DRAFTING, "devices that draft", OURS),
            )
        ]

    panels = [
        Panel("What a device gets", lines(_speeds), "devices at once", "tokens/s of one device", x_ticks=counts),
        Panel(
            "What the verifier gives", lines(_together), "devices at once", "tokens/s of all devices", x_ticks=counts
        ),
    ]
    yield "capacity-over-devices", _panels(panels)
    panel = Panel("", lines(_per_pass), "devices at once", "tokens a pass, for one device", x_ticks=counts)
    yield "tokens-per-pass", _panels([panel])
    yield from _cost(result)


def _export(result: Result) -> Iterator[tuple[str, Any]]:
    depths = list(result.runs[0].more["tokens_per_pass"])
    yield (
        "tokens-per-pass",
        _bars(
            result,
            lambda way, kind: [run.more["tokens_per_pass"][depths[0]] for run in result.select(way=way, kind=kind)],
            f"tokens a pass, {depths[0]} drafts",
        ),
    )
    yield from _cost(result)


def _wire(result: Result) -> Iterator[tuple[str, Any]]:
    panels = []
    for kind in result.kinds:
        lines = []
        for is_padded in (True, False):
            runs = [
                run
                for run in result.select(kind=kind)
                if run.more["is_padded"] == is_padded and run.more["num_drafts"] > 0
            ]
            for name in ("up", "down"):
                points = {
                    float(run.more["num_drafts"]): [(getattr(run, f"bytes_{name}") or 0) / run.num_tokens]
                    for run in runs
                }
                lines.append(Line(f"{name}, {'padded' if is_padded else 'bare'}", points))
        lengths = [length for length in result.settings["lengths"] if length]
        panels.append(Panel(f"guesses {kind}", lines, "drafts a turn", "bytes a token", x_ticks=lengths))
    yield "bytes-per-token", _panels(panels)


FIGURES: dict[str, Callable[[Result], Iterator[tuple[str, Any]]]] = {
    "pair": _pair,
    "link": _link,
    "service": _service,
    "export": _export,
    "wire": _wire,
}


def _speeds(runs: Sequence[Run]) -> list[float]:
    return [run.tokens_per_s for run in runs]


def _together(runs: Sequence[Run]) -> list[float]:
    """Of all devices, where each gets the median."""
    return [statistics.median(_speeds(runs)) * (runs[0].num_sessions or 1)] if runs else []


def _per_pass(runs: Sequence[Run]) -> list[float]:
    return [run.tokens_per_pass for run in runs if run.tokens_per_pass is not None]


def _cost(result: Result) -> Iterator[tuple[str, Any]]:
    """What a pass costs by the tokens in it, as profiled, where that is stored."""
    if result.profiles:
        lines = [
            Line(name, {float(rows): [ms] for rows, ms in sorted(cost_ms.items())})
            for name, cost_ms in result.profiles.items()
        ]
        panel = Panel("", lines, "tokens in a pass", "milliseconds a pass", x_ticks=[1, 4, 8, 16, 24, 32])
        yield "cost-of-a-pass", _panels([panel])


def _panels(panels: Iterator[Panel] | Sequence[Panel]) -> Any:
    """Side by side, one y axis."""
    from matplotlib import pyplot

    panels = list(panels)
    shares_y = len({panel.y_label for panel in panels}) == 1
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(6.4 * len(panels), 4.2), sharey=shares_y, squeeze=False, layout="constrained"
    )
    named: list[tuple[Any, list[tuple[str, float, str]]]] = []
    for number, (axis, panel) in enumerate(zip(axes[0], panels, strict=True)):
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
        if panel.x_ticks:
            _ticks(axis, panel.x_ticks)
        if number == 0 or not shares_y:
            axis.set_ylabel(panel.y_label)
        axis.margins(x=0.02)
        named.append((axis, ends))
    for axis, _ in named:
        axis.set_ylim(bottom=0)
    for axis, ends in named:  # now that all heights are known
        _names(axis, ends)
    return figure


def _line(axis: Any, points: Mapping[float, Sequence[float]], colour: str) -> None:
    xs = list(points)
    middle = [statistics.median(values) for values in points.values()]
    axis.plot(xs, middle, color=colour, linewidth=2.4 if colour == OURS else 1.5, marker="o", markersize=4, zorder=3)
    if any(len(values) > 1 for values in points.values()):
        low, high = [min(values) for values in points.values()], [max(values) for values in points.values()]
        axis.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0, zorder=2)


def _ticks(axis: Any, ticks: Sequence[float]) -> None:
    """At what was measured; a name that would touch the one before is left out."""
    axis.set_xticks(list(ticks))
    span, last, names = max(ticks) - min(ticks), -math.inf, []
    for tick in ticks:
        is_clear = tick - last >= 0.04 * span
        names.append(f"{tick:g}" if is_clear else "")
        last = tick if is_clear else last
    axis.set_xticklabels(names)


def _names(axis: Any, ends: Sequence[tuple[str, float, str]]) -> None:
    """Beside the end of each line, pushed apart where they would touch."""
    bottom, top = axis.get_ylim()
    heights: list[float] = []
    for _, value, _ in sorted(ends, key=lambda end: end[1]):
        place = (value - bottom) / ((top - bottom) or 1.0)
        heights.append(max(place, heights[-1] + LABEL_GAP) if heights else place)
    if heights and heights[-1] > 1:
        for number in range(len(heights) - 1, -1, -1):
            ceiling = 1.0 if number == len(heights) - 1 else heights[number + 1] - LABEL_GAP
            heights[number] = min(heights[number], ceiling)
    for height, (name, value, colour) in zip(heights, sorted(ends, key=lambda end: end[1]), strict=True):
        place = (value - bottom) / ((top - bottom) or 1.0)
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


def _bars(result: Result, of: Callable[[str, str], Sequence[float]], label: str, level: float | None = None) -> Any:
    """A panel a kind, a bar a way, its range, and its median in figures."""
    from matplotlib import pyplot

    ways, kinds = result.ways, result.kinds
    num_columns = min(len(kinds), MAX_COLUMNS)
    num_rows = -(-len(kinds) // num_columns)
    size = (3.2 + 3.6 * num_columns, num_rows * (0.9 + 0.36 * len(ways)))
    figure, axes = pyplot.subplots(
        num_rows, num_columns, figsize=size, sharey=True, sharex=True, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(kinds) :]:
        axis.set_visible(False)
    for axis, kind in zip(axes.flat, kinds, strict=False):
        for place, way in enumerate(ways):
            if not (values := list(of(way.name, kind))):
                continue
            median = statistics.median(values)
            axis.barh(place, median, color=COLOURS.get(way.role, OTHERS[0]), height=0.66, zorder=2)
            if len(values) > 1:
                axis.plot([min(values), max(values)], [place, place], color=INK, linewidth=1, zorder=3)
            axis.annotate(
                f"{median:.2f}",
                (max(values), place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        axis.set_title(kind)
        axis.set_xlabel(label)
        axis.set_yticks(range(len(ways)), [way.name for way in ways])
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelbottom=True)
        axis.grid(axis="x", color=FAINT, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.margins(x=0.14)
        if level is not None:
            axis.axvline(level, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes[0][0].invert_yaxis()
    return figure
