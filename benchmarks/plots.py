"""A result as pictures, PNG and SVG, from what was recorded alone: which figures a suite has, and what is in them."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.drawing import ALONE_INK, COLOURS, OTHERS, OURS, STYLE, Bar, BarPanel, Line, Panel, bar_panels, panels
from benchmarks.fleet_record import MANY, ONE, Details, loads_of
from benchmarks.link_record import ALONE
from benchmarks.loads import Load
from benchmarks.record import Result, Run
from benchmarks.service_record import DRAFTING, PLAIN
from benchmarks.tables.pair import fastest_alone
from benchmarks.tables.typing import first_lines_ms
from outrider.errors import InvalidParameter, MissingExtra

__all__ = ["FIGURES", "draw"]


def draw(result: Result, folder: Path) -> list[Path]:
    """Write the figures of a result's suite into `folder`. Raises MissingExtra, InvalidParameter."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra('figures need matplotlib; run: pip install "outrider[bench]"') from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(STYLE):
            return [path for name, figure in FIGURES[result.suite](result) for path in _write(figure, folder, name)]
    except OSError as error:
        raise InvalidParameter(f"{folder} cannot be written ({error.strerror}); give another folder") from None


def _write(figure: Any, folder: Path, name: str) -> tuple[Path, Path]:
    """By each format's own canvas: `savefig` would draw everything twice for each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    png, svg = (folder / f"{name}.{suffix}" for suffix in ("png", "svg"))
    FigureCanvasAgg(figure).print_png(png)
    figure.set_layout_engine("none")  # as it is laid out now: that takes longer than to write it
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    return png, svg


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
        panels(
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
        panels(
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

    sides = [
        Panel("What a device gets", lines(_speeds), "devices at once", "tokens/s of one device", x_ticks=counts),
        Panel(
            "What the verifier gives", lines(_together), "devices at once", "tokens/s of all devices", x_ticks=counts
        ),
    ]
    yield "capacity-over-devices", panels(sides)
    panel = Panel("", lines(_per_pass), "devices at once", "tokens a pass, for one device", x_ticks=counts)
    yield "tokens-per-pass", panels([panel])
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
    found = []
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
        found.append(Panel(f"guesses {kind}", lines, "drafts a turn", "bytes a token", x_ticks=lengths))
    yield "bytes-per-token", panels(found)


def _typing(result: Result) -> Iterator[tuple[str, Any]]:
    lines = []
    for way in result.names():
        times_ms = sorted(first_lines_ms(result.select(way=way)))
        share = {time_ms: [100 * (number + 1) / len(times_ms)] for number, time_ms in enumerate(times_ms)}
        lines.append(Line(way, {0.0: [0.0]} | {time_ms: each for time_ms, each in share.items() if time_ms < math.inf}))
    yield "first-line-over-time", panels([Panel("", lines, "ms after the key", "keys that have their first line, %")])


def _fleet(result: Result) -> Iterator[tuple[str, Any]]:
    hour = Details.read(result.details).prices.verifier_hour.price

    def over(asked: str, x: str, of: Callable[[Load], float], labels: tuple[str, str], log: str = "") -> Any:
        """A panel a kind, a line a way."""
        found = []
        for kind in result.kinds:
            lines = []
            for way in result.ways:
                loads = loads_of(result.select(prompt=asked, kind=kind, way=way.name))
                points = {getattr(load, x): [of(load)] for load in loads if load.rate > 0}
                lines.append(Line(way.name, points, COLOURS.get(way.role, "")))
            ticks = sorted({place for line in lines for place in line.points})
            found.append(Panel(kind, lines, *labels, x_ticks=ticks, log=log))
        return panels(found)

    def price(load: Load) -> float:
        """Where all devices together have the verifier."""
        return 1e6 * hour / (3600 * load.rate * load.num_devices)

    if result.select(prompt=MANY):
        x_label = "devices on one verifier"
        speed = (x_label, "tokens/s that nine in ten devices get")
        yield "capacity-over-devices", over(MANY, "num_devices", lambda load: load.rate_p10, speed, "x")
        if hour:
            money = (x_label, "verifier's price of a million tokens")
            yield "price-over-devices", over(MANY, "num_devices", price, money, "xy")
    if result.select(prompt=ONE):
        speed = ("round trip, ms", "tokens/s of one device")
        yield "speed-over-rtt", over(ONE, "rtt_ms", lambda load: load.rate, speed)


FIGURES: dict[str, Callable[[Result], Iterator[tuple[str, Any]]]] = {
    "pair": _pair,
    "link": _link,
    "service": _service,
    "export": _export,
    "wire": _wire,
    "typing": _typing,
    "fleet": _fleet,
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
        yield "cost-of-a-pass", panels([panel])


def _bars(result: Result, of: Callable[[str, str], Sequence[float]], label: str, level: float | None = None) -> Any:
    """A panel a kind, a bar a way."""
    found = [
        BarPanel(kind, [Bar(way.name, of(way.name, kind), COLOURS.get(way.role, OTHERS[0])) for way in result.ways])
        for kind in result.kinds
    ]
    return bar_panels(found, label, level)
