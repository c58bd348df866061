"""Drafters for tests: they know what the target will say, and say it, or not."""

import itertools
import random
from collections.abc import Sequence

from edge_runtime.drafters import Drafter, Proposal
from edge_runtime.pacing import Pace
from outrider.choice import SamplingParams


class ScriptedDrafter:
    """Proposes from `script` (the whole true list), each id right with probability `accuracy`, at most `longest`."""

    name = "scripted"
    can_answer = False

    def __init__(self, script: Sequence[int], *, accuracy: float, longest: int, n_vocab: int, seed: int = 0) -> None:
        self._script = list(script)
        self._accuracy = accuracy
        self._longest = longest
        self._n_vocab = n_vocab
        self._random = random.Random(seed)

    def prefill(self, token_ids: Sequence[int]) -> None:
        """Nothing to get ready."""

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        length = self._random.randint(0, min(self._longest, max(0, max_drafts)))
        ids = self._script[len(token_ids) : len(token_ids) + length]
        ids = [i if self._random.random() < self._accuracy else (i + 1) % self._n_vocab for i in ids]
        return Proposal(self.name, ids, [0.5] * len(ids))

    def close(self) -> None:
        """Nothing to free."""


class TakingTurns:
    """One drafter after the other, a proposal each."""

    name = "turns"
    can_answer = False

    def __init__(self, *drafters: Drafter) -> None:
        self._drafters = itertools.cycle(drafters)

    def prefill(self, token_ids: Sequence[int]) -> None:
        """Nothing to get ready."""

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        return next(self._drafters).propose(token_ids, params, pace, max_drafts)

    def close(self) -> None:
        """Nothing to free."""


class EagerPace(Pace):
    """Always wants another draft, so that what is drafted does not hang on the clock."""

    def wants_another(self, source: str, reach: float, num_drafts: int) -> bool:
        return True
