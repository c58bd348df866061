"""Suite `typing` as a table: a row a way to type."""

import math
import statistics
from collections.abc import Iterator

from benchmarks.record import Result, Run
from benchmarks.tables.common import table

__all__ = ["first_lines_ms", "lines"]


def first_lines_ms(runs: list[Run]) -> list[float]:
    """Infinite where the next key did not wait for it."""
    lines_s = [run.more["first_line_s"] for run in runs]
    return [math.inf if first_s is None else 1000 * first_s for first_s in lines_s]


def lines(result: Result) -> Iterator[str]:
    yield f"{result.settings['target']}, drafter {result.settings['drafter']}; a recorded session, key by key."
    yield ""
    header = ["", "keys", "first line, median", "before the next key", "prompt tokens read, median"]
    yield from table([*header, "known from before"], (_row(result.select(way=way), way) for way in result.names()))
    yield ""
    yield "The median is over all keys: a line that the next key did not wait for was later than all others."


def _row(runs: list[Run], way: str) -> list[str]:
    times_ms = first_lines_ms(runs)
    median_ms = statistics.median(times_ms)
    whole = [run for run in runs if run.more["is_whole"]]
    return [
        way,
        str(len(runs)),
        f"{median_ms:.0f} ms" if median_ms < math.inf else "later than the next key",
        str(sum(time_ms < math.inf for time_ms in times_ms)),
        f"{statistics.median(run.more['num_read'] for run in whole):.0f}" if whole else "-",
        f"{sum(run.more['num_recalled'] > 0 for run in whole)} of {len(whole)}",
    ]
