"""A suite's tables, from what was recorded alone: Markdown, for a terminal and for a page."""

import importlib
from collections.abc import Iterator

from benchmarks.record import Result
from benchmarks.tables.common import foot, head

__all__ = ["SUITES", "lines"]

SUITES = ("pair", "link", "service", "export", "wire")


def lines(result: Result) -> Iterator[str]:
    """Everything there is to say, line by line."""
    yield from head(result)
    yield ""
    yield from importlib.import_module(f"benchmarks.tables.{result.suite}").lines(result)
    yield from foot(result)
