"""Beam search: the lists that are grown, those that ended, and when neither can change any more. Pure; no engine.

Of the continuations of the live beams by one token, those that end are finished if they are among the best `num_beams`;
the best of the others live on. The score of a finished answer is its log-probability divided by its length to the power
of the length penalty. The search is over when no live beam can still come to a better one. Equal candidates go to the
earlier beam, then to the lower id.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from outrider.wire import Logprobs

__all__ = ["Beam", "BeamSearch", "Row"]

Row = tuple[Sequence[int], Sequence[float]]  # token ids that may follow a beam and their log-probabilities, best first
Note = Callable[[int, int], Logprobs | None]


@dataclass(frozen=True, slots=True)
class Beam:
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    parent: int = 0  # its place among the beams of the step before
    notes: list[Logprobs | None] = field(default_factory=list)  # one a token


class BeamSearch:
    """`max_tokens`: an answer of that length ends. Begins with one empty beam."""

    def __init__(self, num_beams: int, length_penalty: float, max_tokens: int, stop_ids: Collection[int]) -> None:
        self._num_beams = num_beams
        self._length_penalty = length_penalty
        self._max_tokens = max_tokens
        self._stop_ids = stop_ids
        self.live = [Beam()]
        self.best: Beam | None = None  # of those that ended

    @property
    def num_candidates(self) -> int:
        """How long a row must be: among so many are enough that do not end."""
        return self._num_beams + len(self._stop_ids)

    @property
    def is_over(self) -> bool:
        return not self._contenders

    @property
    def finish(self) -> str:
        """How the best one ended."""
        assert self.best is not None
        return "stop" if self.best.token_ids[-1] in self._stop_ids else "length"

    def score(self, beam: Beam) -> float:
        return float(beam.logprob / len(beam.token_ids) ** self._length_penalty)

    def step(self, rows: Sequence[Row], note: Note = lambda beam, token_id: None) -> None:
        """Grow every live beam by a token: `rows[i]` is what may follow beam i. `note(i, token)` goes with a token."""
        candidates = sorted(
            (-(beam.logprob + logprob), number, token_id)
            for number, (beam, row) in enumerate(zip(self.live, rows, strict=True))
            for token_id, logprob in zip(*row, strict=True)
        )
        parents, self.live = self.live, []
        for rank, (cost, number, token_id) in enumerate(candidates):
            if rank >= self._num_beams and len(self.live) >= self._num_beams:
                break
            parent = parents[number]
            ends = token_id in self._stop_ids or len(parent.token_ids) + 1 >= self._max_tokens
            beam = Beam([*parent.token_ids, token_id], -cost, number, [*parent.notes, note(number, token_id)])
            if not ends:
                self.live.append(beam)
            elif self.best is None or self.score(beam) > self.score(self.best):  # of those beyond the rank none is
                self.best = beam

    def common(self) -> int:
        """Tokens that the answer is certain to begin with."""
        lists = [beam.token_ids for beam in self._contenders + ([self.best] if self.best is not None else [])]
        length = min(map(len, lists))
        return next((place for place in range(length) if len({ids[place] for ids in lists}) > 1), length)

    @property
    def _contenders(self) -> list[Beam]:
        """Live beams that may still come to a better answer than the best one."""
        if self.best is None:
            return self.live
        best = self.score(self.best)
        return [beam for beam in self.live if self._most(beam) > best]

    def _most(self, beam: Beam) -> float:
        """No answer that begins so can score higher: log-probabilities only fall."""
        length = self._max_tokens if self._length_penalty > 0 else len(beam.token_ids) + 1
        return float(beam.logprob / length**self._length_penalty)
