"""Drafts against the target's choices: the longest agreeing prefix, and the choice after it, become verified.

A draft is accepted if and only if it equals the target's choice at its place. Nothing else decides: no probabilities,
no random number. So the tokens that come out are the target's own, whatever the drafts were. Pure; knows no engine.
"""

from collections.abc import Callable, Sequence

__all__ = ["accept_chain", "accept_tree"]


def accept_chain(drafts: Sequence[int], choice_at: Callable[[int], int]) -> list[int]:
    """The verified tokens a chain of drafts earns: its accepted drafts, then one more choice of the target.

    `choice_at(i)` is the target's choice after the first i drafts, asked in order and only as far as needed.

    >>> accept_chain([5, 6, 9], lambda i: [5, 6, 7, 8][i])
    [5, 6, 7]
    """
    verified: list[int] = []
    for index in range(len(drafts) + 1):
        verified.append(choice_at(index))
        if index < len(drafts) and drafts[index] != verified[index]:
            break
    return verified


def accept_tree(
    drafts: Sequence[int], parents: Sequence[int], choice_at: Callable[[int], int]
) -> tuple[list[int], list[int]]:
    """The same for a tree: (verified tokens, rows of the accepted drafts from the root down).

    `parents[i]` is the row that draft i follows, or -1 at the root; a parent stands before its children.
    `choice_at(row)` is the target's choice after draft `row`, `choice_at(-1)` at the root.

    >>> accept_tree([5, 6, 7, 8], [-1, -1, 1, 1], lambda row: {-1: 6, 1: 8, 3: 4}[row])
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
