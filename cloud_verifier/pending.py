"""The drafts that wait right of a frontier: a tree in rows, parents before children; a chain as a rule.

Knows no engine and no epochs. Row numbers and parents as in `outrider.acceptance`.
"""

from collections.abc import Sequence

__all__ = ["Pending"]

UNKNOWN = 0.75  # the confidence of a draft that came without one


class Pending:
    """`parents[i]` is the row that draft i follows, -1 at the frontier."""

    def __init__(
        self, token_ids: Sequence[int] = (), confidences: Sequence[float] = (), parents: Sequence[int] | None = None
    ) -> None:
        self.token_ids = list(token_ids)
        self.confidences = list(confidences) or [UNKNOWN] * len(self.token_ids)
        self.parents = list(range(-1, len(self.token_ids) - 1)) if parents is None else list(parents)

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def is_chain(self) -> bool:
        return self.parents == list(range(-1, len(self.parents) - 1))

    def append(self, token_ids: Sequence[int], confidences: Sequence[float]) -> None:
        """More of a chain, at its end."""
        self.parents += range(len(self.token_ids) - 1, len(self.token_ids) + len(token_ids) - 1)
        self.token_ids += token_ids
        self.confidences += confidences

    def advance(self, token_ids: Sequence[int]) -> bool:
        """The frontier moved over these: keep what follows them. False when other tokens were guessed there."""
        row = -1
        for token_id in token_ids:
            children = [child for child, parent in enumerate(self.parents) if parent == row]
            if not children:
                self._keep_below(len(self.token_ids))
                return True
            found = next((child for child in children if self.token_ids[child] == token_id), None)
            if found is None:
                return False
            row = found
        self._keep_below(row)
        return True

    def _keep_below(self, root: int) -> None:
        """Only the descendants of row `root`, renumbered; all for -1."""
        new_rows = {root: -1}
        kept: list[int] = []
        for row in range(root + 1, len(self.parents)):
            if self.parents[row] in new_rows:
                new_rows[row] = len(kept)
                kept.append(row)
        self.parents = [new_rows[self.parents[row]] for row in kept]
        self.token_ids = [self.token_ids[row] for row in kept]
        self.confidences = [self.confidences[row] for row in kept]

    def first_path(self) -> "Pending":
        """The chain of first children: what an engine without trees can check of a tree."""
        rows: list[int] = []
        for row, parent in enumerate(self.parents):
            if parent == (rows[-1] if rows else -1):
                rows.append(row)
        return Pending([self.token_ids[row] for row in rows], [self.confidences[row] for row in rows])

    def first(self, count: int, max_depth: int) -> "Pending":
        """The first rows, at most `count`, none deeper than `max_depth` (the first draft has depth 1)."""
        if self.is_chain:
            count = max(0, min(count, max_depth))
            return Pending(self.token_ids[:count], self.confidences[:count])
        taken = Pending()
        depths: dict[int, int] = {-1: 0}
        new_rows = {-1: -1}
        for row, parent in enumerate(self.parents):
            depths[row] = depths[parent] + 1
            if parent in new_rows and depths[row] <= max_depth and len(taken) < count:
                new_rows[row] = len(taken)
                taken.parents.append(new_rows[parent])
                taken.token_ids.append(self.token_ids[row])
                taken.confidences.append(self.confidences[row])
        return taken
