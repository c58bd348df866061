"""The drafts that wait right of a frontier: a tree in rows, parents before children; a chain as a rule.

A chain that is about to be checked may end in drafts of the verifier's own. Knows no engine and no epochs. Row numbers
and parents as in `outrider.acceptance`.
"""

from collections.abc import Sequence, Set

from cloud_verifier.pacing import DEVICE, OWN

__all__ = ["Pending"]

UNKNOWN = 0.75  # the confidence of a draft that came without one


class Pending:
    """`parents[i]` is the row that draft i follows, -1 at the frontier. The last `num_own` are not the device's."""

    def __init__(
        self, token_ids: Sequence[int] = (), confidences: Sequence[float] = (), parents: Sequence[int] | None = None
    ) -> None:
        self.token_ids = list(token_ids)
        self.confidences = list(confidences) or [UNKNOWN] * len(self.token_ids)
        self.parents = list(range(-1, len(self.token_ids) - 1)) if parents is None else list(parents)
        self.num_own = 0

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def num_of_device(self) -> int:
        return len(self.token_ids) - self.num_own

    @property
    def about(self) -> list[tuple[str, float]]:
        """Of each draft: who made it, how sure they were."""
        sources = [DEVICE] * self.num_of_device + [OWN] * self.num_own
        return list(zip(sources, self.confidences, strict=True))

    @property
    def is_chain(self) -> bool:
        return self.parents == list(range(-1, len(self.parents) - 1))

    def append(self, token_ids: Sequence[int], confidences: Sequence[float]) -> None:
        """More of a chain, at its end."""
        self.parents += range(len(self.token_ids) - 1, len(self.token_ids) + len(token_ids) - 1)
        self.token_ids += token_ids
        self.confidences += confidences

    def with_own(self, token_ids: Sequence[int], confidences: Sequence[float]) -> "Pending":
        """This chain, and drafts of the verifier's own after it."""
        both = Pending([*self.token_ids, *token_ids], [*self.confidences, *confidences])
        both.num_own = self.num_own + len(token_ids)
        return both

    def advance(self, token_ids: Sequence[int]) -> bool:
        """The frontier moved over these: keep what follows them. False when other tokens were guessed there.

        Equal siblings are one node: what follows any of them is kept.
        """
        roots = {-1}
        for token_id in token_ids:
            children = [child for child, parent in enumerate(self.parents) if parent in roots]
            roots = {child for child in children if self.token_ids[child] == token_id}
            if children and not roots:
                return False
        self._keep_below(roots)
        return True

    def _keep_below(self, roots: Set[int]) -> None:
        """Only the descendants of these rows, renumbered; all for {-1}."""
        new_rows = dict.fromkeys(roots, -1)
        kept: list[int] = []
        for row in range(len(self.parents)):
            if self.parents[row] in new_rows and row not in roots:
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
            taken = Pending(self.token_ids[:count], self.confidences[:count])
            taken.num_own = max(0, len(taken) - self.num_of_device)
            return taken
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
