"""A tuning from its beginning to its verdict: search, compare the best with the defaults on held-out prompts, tell."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_runtime.tuning.compare import Comparison, compare
from edge_runtime.tuning.prompts import Prompt
from edge_runtime.tuning.search import Begin, Found, search
from edge_runtime.tuning.space import Space
from outrider.errors import InvalidParameter
from outrider.progress import Progress, silent

__all__ = ["Outcome", "tune"]

SEARCH_SHARE = 0.6  # of the budget


@dataclass(frozen=True)
class Outcome:
    found: Found
    comparison: Comparison | None  # None: nothing was measured whole but the defaults

    @property
    def is_exact(self) -> bool:
        """Whether every answer was the target's, whatever the setting."""
        return self.found.is_exact and (self.comparison is None or self.comparison.is_exact)

    @property
    def is_interrupted(self) -> bool:
        return self.found.is_interrupted or (self.comparison is not None and self.comparison.is_interrupted)

    @property
    def is_gain(self) -> bool:
        return self.comparison is not None and self.comparison.is_gain


def tune(
    space: Space,
    searched: Sequence[Prompt],
    held_out: Sequence[Prompt],
    begin: Begin,
    goal: str,
    budget_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = silent,
) -> Outcome:
    """The best setting but the defaults, compared with them: even one that was behind in the search, so that "the
    defaults are best" is measured too. The first Ctrl-C ends the search, the second the comparison.

    Raises what `search` does.
    """
    if not budget_s > 0:
        raise InvalidParameter(f"the budget is {budget_s / 60:g} minutes; give a number above 0")
    begun_s = clock()
    until_s = begun_s + SEARCH_SHARE * budget_s
    found = search(space, searched, begin, goal, until_s=until_s, clock=clock, progress=progress)
    progress("searching", 1, 1)
    challenger = found.challenger
    if challenger is None:
        return Outcome(found, None)
    ways = begin(found.defaults.knobs), begin(challenger.knobs)
    return Outcome(found, compare(*ways, held_out, goal, until_s=begun_s + budget_s, clock=clock, progress=progress))
