"""What every suite's output has: where it was measured, whether it can be trusted, what could not run."""

import statistics
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.record import Result, Run

__all__ = ["acceptance", "foot", "head", "row", "spread", "table"]


def head(result: Result) -> Iterator[str]:
    where = result.environment
    memory = "" if where.memory_gib is None else f", {where.memory_gib:g} GiB"
    yield f"{where.processor}, {where.cores} cores{memory}, {where.threads} threads a model; {where.system}."
    versions = ", ".join(f"{name} {version}" for name, version in where.versions.items())
    yield f"Python {where.python}, {versions}{f', commit {where.commit}' if where.commit else ''}; {where.date}."
    if result.partial:
        yield f"PARTIAL: it was stopped, or it still runs; {result.partial}."
    if words := result.disturbed():
        yield f"Not a quiet machine: {'; '.join(words)}. Run it again."


def foot(result: Result) -> Iterator[str]:
    yield ""
    if result.num_checked:
        untrue = result.untrue()
        yield f"Tokens as they must be in all {result.num_checked} runs of ours: {'NO' if untrue else 'yes'}."
        yield from (f"Other tokens: {run}." for run in untrue)
    if not result.partial:
        yield f"It took {result.elapsed_s / 60:.1f} minutes."
    if result.missing:
        yield "\nCould not run here:\n"
        yield from (f"- {each.name}: {each.reason}" for each in result.missing)
    if result.published:
        yield "\nPublished elsewhere, on other machines and other texts; compare with nothing above:\n"
        yield from table(
            ["", "figure", "conditions", "source"],
            ([each.name, each.figure, each.conditions, each.source] for each in result.published),
        )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield row(header)
    yield "|" + "---|" * len(header)
    yield from map(row, rows)


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def spread(values: Sequence[float], digits: int = 2, unit: str = "") -> str:
    """Median and range; one value has none.

    >>> spread([1.0, 3.0, 2.0], unit="x")
    '2.00x (1.00-3.00)'
    """
    if not values:
        return "-"
    median = f"{statistics.median(values):.{digits}f}{unit}"
    return median if len(values) == 1 else f"{median} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def acceptance(runs: Sequence[Run]) -> str:
    """The share of drafts that the target agreed with."""
    drafted = sum(run.drafted or 0 for run in runs)
    return f"{sum(run.accepted or 0 for run in runs) / drafted:.0%}" if drafted else "-"
