"""How far to draft before asking the verifier: as far as a draft is expected to earn more than it costs.

Maximises tokens per millisecond over the long run (renewal-reward; Dinkelbach's step): with `rate` the tokens per
millisecond that time is worth here, one more draft pays while for it, or for it and some after it,

    the tokens expected of them  >=  rate * (milliseconds to draft them + what the verifier's pass takes longer)

Some after it, because passes are held to sizes and cost in steps: what the first draft of a step pays for, the next
ones have for nothing.

Text comes in stretches: what repeats is drafted for nothing, the rest by a model. A token that a model is to draft is
worth what such tokens cost, not what they cost in the easy stretch before: its `rate` is of turns that no free draft
began.

Chances come from the drafters' own confidences, calibrated by what was accepted; costs from the engine's profile where
it is known and from the clock otherwise. What is observed fades, so that a drafter that was given up is tried again.
Pure arithmetic: knows no model, no link and no clock. A drafter's thread may ask while another thread observes.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Self

from outrider.worth import Calibration, PassCost, most_worthwhile

__all__ = ["Pace"]

RATE_FADE = 0.9  # a turn: text changes from easy to hard within a few
STEP = 8  # drafts looked ahead: the widest step between the sizes of common passes
UNKNOWN_ROW_SHARE = 0.05  # of a turn, for each draft, where the verifier's costs are not known


class Pace:
    """`pass_ms`: the verifier's milliseconds for a pass over k tokens, for k from 1 on without gaps; None: unknown.

    `min_reach`: the chance that all drafts up to the next are right, below which it is not wanted, whatever it costs.
    """

    def __init__(self, pass_ms: Mapping[int, float] | None = None, min_reach: float = 0.0) -> None:
        self._min_reach = min_reach
        self._known_ms = PassCost(pass_ms) if pass_ms else None
        self._turn_ms = 0.0  # a turn's length, where pass costs are unknown
        self._reached = _Reached()  # in all turns
        self._reached_unaided = _Reached()  # in turns that no free draft began
        self._calibration = Calibration()
        self._draft_ms: dict[str, float] = {}

    def anew(self) -> Self:
        """For another text: what was learned of the last one is forgotten, what drafts cost is known to both."""
        new = copy.copy(self)
        new._reached, new._reached_unaided, new._calibration = _Reached(), _Reached(), Calibration()
        return new

    def pass_ms(self, num_rows: int) -> float:
        if self._known_ms is None:
            return (self._turn_ms or 1.0) * (1 + UNKNOWN_ROW_SHARE * (num_rows - 1))
        return self._known_ms(num_rows)

    def rate(self, source: str) -> float:
        """Tokens per millisecond that time is worth to drafts of this source: what was reached lately in turns like
        theirs, never below plain decoding."""
        reached = self._reached if self._is_free(source) else self._reached_unaided
        return max(1 / self.pass_ms(1), reached.rate)

    def chance(self, source: str, confidence: float) -> float:
        """How often drafts of this confidence were accepted, given that those before them were."""
        return self._calibration.chance(source, confidence)

    def wants_another(self, source: str, reach: float, num_drafts: int) -> bool:
        """Whether `source` should make draft number `num_drafts`, counted from 0, when the drafts before it are all
        accepted with probability `reach`."""
        chance, draft_ms, rate = self._calibration.average(source), self._draft_ms.get(source, 0.0), self.rate(source)
        if reach * chance < self._min_reach:
            return False
        tokens, plain_ms = 0.0, self.pass_ms(num_drafts + 1)
        for more in range(1, STEP + 1):
            reach *= chance
            tokens += reach
            if tokens >= rate * (more * draft_ms + self.pass_ms(num_drafts + 1 + more) - plain_ms):
                return True
        return False

    def num_worthwhile(self, source: str, confidences: Sequence[float]) -> int:
        """How many of the drafts that are there already are worth their place in the pass."""
        reach = 1.0
        for number, confidence in enumerate(confidences):
            reach *= self.chance(source, confidence)
            if reach < self._min_reach:
                confidences = confidences[:number]
                break
        return self._best(source, confidences, self.rate(source))[0]

    def prefers(self, source: str, confidences: Sequence[float], other: str) -> bool:
        """Whether a pass over these free drafts promises more than drafts that `other` would still have to make."""
        rate, made = self.rate(other), [self._calibration.average(other)] * STEP
        _, value = self._best(source, confidences, rate)
        return value >= most_worthwhile(made, rate, self.pass_ms, self._draft_ms.get(other, 0.0))[1]

    def _best(self, source: str, confidences: Sequence[float], rate: float) -> tuple[int, float]:
        chances = [self.chance(source, confidence) for confidence in confidences]
        return most_worthwhile(chances, rate, self.pass_ms)

    def _is_free(self, source: str) -> bool:
        return source not in self._draft_ms

    def observe_draft(self, source: str, elapsed_ms: float) -> None:
        """What one draft took; a slow average."""
        self._draft_ms[source] = 0.8 * self._draft_ms.get(source, elapsed_ms) + 0.2 * elapsed_ms

    def begin(self, ahead: Sequence[tuple[str, float]]) -> None:
        """Drafting is about to go on after these guesses (source, confidence). In turns there are none."""

    def interrupt(self) -> None:
        """What is being drafted has become worthless. In turns that cannot be."""

    def observe(
        self, checked: Sequence[tuple[str, float]], num_accepted: int, num_tokens: int, elapsed_ms: float | None
    ) -> None:
        """What became of guesses (source, confidence), and how long the whole turn took; None: not to be counted."""
        if elapsed_ms is None:
            return
        self._calibration.observe(checked, num_accepted)
        self._reached.add(num_tokens, elapsed_ms)
        if not checked or not self._is_free(checked[0][0]):
            self._reached_unaided.add(num_tokens, elapsed_ms)
        share = 1 + UNKNOWN_ROW_SHARE * len(checked)
        self._turn_ms = 0.8 * (self._turn_ms or elapsed_ms / share) + 0.2 * elapsed_ms / share


class _Reached:
    """Tokens a millisecond over the last turns; what is older fades."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._elapsed_ms = 0.0

    def add(self, num_tokens: int, elapsed_ms: float) -> None:
        self._tokens = RATE_FADE * self._tokens + num_tokens
        self._elapsed_ms = RATE_FADE * self._elapsed_ms + elapsed_ms

    @property
    def rate(self) -> float:
        return self._tokens / self._elapsed_ms if self._elapsed_ms else 0.0
