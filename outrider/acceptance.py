"""Drafts against the target's choices: the longest agreeing prefix, and the choice after it, become verified.

A draft is accepted if and only if it equals the target's choice at its place. Nothing else decides: no probabilities,
no random number. So the tokens that come out are the target's own, whatever the drafts were. Pure; knows no engine.
"""

from collections.abc import Callable, Sequence

__all__ = ["accept"]


def accept(
    drafts: Sequence[int], parents: Sequence[int], choice_at: Callable[[int], int]
) -> tuple[list[int], list[int]]:
    """What drafts earn: (verified tokens, rows of the accepted drafts from the root down).

    `parents[i]` is the row that draft i follows, or -1 at the root; a parent stands before its children. A chain is
    -1, 0, 1, ... `choice_at(row)` is the target's choice after draft `row`, `choice_at(-1)` at the root, asked only as
    far as needed. The verified tokens are the accepted drafts and the one choice after them.

    >>> accept([5, 6, 9], [-1, 0, 1], lambda row: [5, 6, 7, 8][row + 1])
    ([5, 6, 7], [0, 1])
    >>> accept([5, 6, 7, 8], [-1, -1, 1, 1], lambda row: {-1: 6, 1: 8, 3: 4}[row])
    ([6, 8, 4], [1, 3])
    """
    children: dict[tuple[int, int], int] = {}
    first: list[int] = []  # the row that a row repeats, or itself: equal siblings are one node
    for row, (draft, parent) in enumerate(zip(drafts, parents, strict=True)):
        first.append(children.setdefault((first[parent] if parent >= 0 else -1, draft), row))
    verified: list[int] = []
    path: list[int] = []
    row = -1
    while True:
        choice = choice_at(row)
        verified.append(choice)
        found = children.get((row, choice))
        if found is None:
            return verified, path
        path.append(found)
        row = found
