"""What every command shares: how progress, errors and JSON reach the person. Knows no model.

Answers go to standard output, everything else to standard error. Progress bars are drawn only on a terminal; elsewhere
each stage is one line when it begins and nothing after.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from outrider.errors import InvalidParameter
from outrider.progress import Progress

__all__ = ["STEERING", "console", "print_json", "show_progress", "write_private"]

# What would steer the terminal instead of being read on it. Line ends and tabs stay.
STEERING = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")})


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        """What is told may come from anywhere, a verifier's sentences among it: no part of it steers."""
        super().print(*(each.translate(STEERING) if isinstance(each, str) else each for each in objects), **options)


# Names, paths, texts: none of it is markup.
console = _Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """One object, one line, on standard output."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def write_private(path: Path, data: bytes) -> None:
    """A file for its owner's eyes alone. Raises InvalidParameter."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise InvalidParameter(f"{path} cannot be written ({error.strerror}); ask again with another file") from None


@contextmanager
def show_progress() -> Iterator[Progress]:
    """A callback that draws one bar a stage while the block runs."""
    if not console.is_terminal:
        begun: set[str] = set()

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in begun:
                begun.add(stage)
                console.print(f"{stage} ...")

        yield tell
        return

    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console) as bars:

        def draw(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield draw
