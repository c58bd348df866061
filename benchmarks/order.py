"""In which order ways take their turns: each once a prompt, and each at every place of the order in its turn."""

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["rotated"]

T = TypeVar("T")


def rotated(ways: Sequence[T], number: int) -> list[T]:
    """The order for prompt `number`: whoever came first comes last the next time.

    >>> rotated(["a", "b", "c"], 4)
    ['b', 'c', 'a']
    """
    first = number % len(ways) if ways else 0
    return [*ways[first:], *ways[:first]]
