"""A suite's tables, from what was recorded alone: Markdown, for a terminal and for a page."""

import importlib
from collections.abc import Iterator

from benchmarks.record import Result
from benchmarks.tables.common import foot, head
from outrider.errors import InvalidParameter

__all__ = ["SUITES", "lines"]

SUITES = ("pair", "link", "service", "export", "wire", "typing", "fleet")


def lines(result: Result) -> Iterator[str]:
    """Everything there is to say, line by line. Raises InvalidParameter for a suite that is not known here."""
    if result.suite not in SUITES:
        raise InvalidParameter(f"no suite is called {result.suite!r}; there are {', '.join(SUITES)}")
    yield from head(result)
    yield ""
    yield from importlib.import_module(f"benchmarks.tables.{result.suite}").lines(result)
    yield from foot(result)
