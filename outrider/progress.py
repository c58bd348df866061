"""How long work tells how far it is. Knows no screen; the command line draws it."""

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called with a stage's name, what is done of it and its total, in any unit; `done == total` ends the stage.

    A total of 0 means that it is not known.
    """

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
