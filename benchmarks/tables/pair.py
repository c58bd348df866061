"""Suite `pair` as a table: a row a way, speeds relative to the fastest way to run the target alone."""

import statistics
from collections.abc import Iterator

from benchmarks.record import Result
from benchmarks.tables.common import acceptance, spread, table

__all__ = ["fastest_alone", "lines"]


def fastest_alone(result: Result, kind: str) -> str:
    """The way of the target alone, of this program's, that is fastest on prompts of this kind."""
    return max(
        result.names("alone"),
        key=lambda way: statistics.median(run.tokens_per_s for run in result.select(way=way, kind=kind)),
    )


def lines(result: Result) -> Iterator[str]:
    best = {kind: fastest_alone(result, kind) for kind in result.kinds}
    header = [""]
    for kind in result.kinds:
        header += [f"{kind}: together", "each", "tokens a pass", "accepted"]
    yield from table(header, (_row(result, way, best) for way in result.names()))
    yield ""
    absolute = []
    for kind, way in best.items():
        speeds = [run.tokens_per_s for run in result.select(way=way, kind=kind)]
        absolute.append(f"{statistics.median(speeds):.1f} tokens/s on {kind} ({way})")
    yield f"1.00x is the fastest target alone: {', '.join(absolute)}."
    count = max(len({run.prompt for run in result.select(kind=kind)}) for kind in result.kinds)
    yield (
        f"Speed: tokens a second after the first, {count} prompts of each kind as one, and each alone: median (range); "
        f"at most {result.settings['max_tokens']} tokens an answer, greedy; ways took turns prompt by prompt."
    )
    if notes := [f"- {way.name}: {note}" for way in result.ways if (note := _note(result, way.name, way.note))]:
        yield ""
        yield from notes


def _row(result: Result, way: str, best: dict[str, str]) -> list[str]:
    cells = [way]
    for kind in result.kinds:
        runs = result.select(way=way, kind=kind)
        per_pass = [run.tokens_per_pass for run in runs if run.tokens_per_pass is not None]
        together = result.together(way, best[kind], kind=kind)
        cells += [
            f"{together:.2f}x" if together else "-",
            spread(result.ratios(way, best[kind], kind=kind), unit="x"),
            f"{statistics.mean(per_pass):.1f}" if per_pass else "-",
            acceptance(runs),
        ]
    return cells


def _note(result: Result, way: str, note: str) -> str:
    chosen = {kind: {run.setting for run in result.select(way=way, kind=kind)} for kind in result.kinds}
    settings = ", ".join(f"{next(iter(each))} on {kind}" for kind, each in chosen.items() if each not in (set(), {""}))
    return "; ".join(filter(None, [note, settings and f"its best setting: {settings}"]))
