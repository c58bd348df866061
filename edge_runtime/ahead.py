"""How far to run ahead of a verifier that does not wait: as far as a guess may still count, unless guessing is no use.

Here a draft costs the device's own time and a few bytes; what it costs the verifier, the verifier decides. So the
questions are others than in turns: is the chance that all guesses up to here are right still worth a pass of the
drafter; do accepted drafts make any difference, or is the device too slow or the text too hard for them. If they make
none, drafting rests, and is tried again now and then. Pure arithmetic; knows no model, no link and no clock.
"""

from collections.abc import Sequence
from typing import Self

from edge_runtime.pacing import Pace

__all__ = ["MAX_AHEAD", "MIN_REACH", "AheadPace"]

MAX_AHEAD = 64  # guesses beyond what was heard: a round trip of 300 ms on a fast verifier has use for as many
MIN_REACH = 0.05  # that all guesses up to the next one are right
MIN_GAIN = 0.02  # accepted drafts a token, below which drafting rests
GAIN_FADE = 0.98  # a pass
TRIAL_PASSES = 40  # passes before the gain is judged
REST_TOKENS = 64
MAX_STEP = 4  # guesses of a model in one message; the first are wanted soon
MAX_MESSAGE = 8  # guesses in one message: 60 bytes with its framing


class AheadPace(Pace):
    def __init__(self, min_reach: float = MIN_REACH) -> None:
        super().__init__(None, min_reach)
        self._reach = 1.0
        self._step = 1
        self._is_stale = False
        self._accepted = 0.0
        self._verified = 0.0
        self._num_tried = 0  # passes since drafting began or went on
        self._rest = 0  # tokens to go before drafting is tried again
        self._next_rest = REST_TOKENS

    def anew(self) -> Self:
        """The same: a device that is too slow for its link is so for the next text."""
        return self

    def begin(self, ahead: Sequence[tuple[str, float]]) -> None:
        self._is_stale = False
        self._step = min(MAX_STEP, 1 + len(ahead) // 4)  # the first guess after a miss is wanted soon
        reach, chance = 1.0, self._calibration.chance
        for source, confidence in ahead:
            reach *= chance(source, confidence)
        self._reach = reach

    def interrupt(self) -> None:
        self._is_stale = True

    @property
    def rests(self) -> bool:
        return self._rest > 0

    def wants_another(self, source: str, reach: float, num_drafts: int) -> bool:
        if self.rests or self._is_stale or num_drafts >= self._step:
            return False
        return self._reach * reach * self._calibration.average(source) >= self._min_reach

    def num_worthwhile(self, source: str, confidences: Sequence[float]) -> int:
        reach = 0.0 if self.rests else self._reach
        for number, confidence in enumerate(confidences[:MAX_MESSAGE]):
            reach *= self.chance(source, confidence)
            if reach < self._min_reach:
                return number
        return min(len(confidences), MAX_MESSAGE)

    def prefers(self, source: str, confidences: Sequence[float], other: str) -> bool:
        """Free guesses go first where they are as good as the other's."""
        return self.chance(source, confidences[0]) >= self._calibration.average(other)

    def observe(
        self, checked: Sequence[tuple[str, float]], num_accepted: int, num_tokens: int, elapsed_ms: float | None
    ) -> None:
        super().observe(checked, num_accepted, num_tokens, elapsed_ms)
        if self.rests:
            self._rest = max(0, self._rest - num_tokens)
            self._accepted = self._verified = 0.0
            self._num_tried = 0
            return
        self._num_tried += 1
        self._accepted = GAIN_FADE * self._accepted + num_accepted
        self._verified = GAIN_FADE * self._verified + num_tokens
        if self._accepted >= MIN_GAIN * self._verified:
            self._next_rest = REST_TOKENS
        elif self._num_tried >= TRIAL_PASSES:
            self._rest = self._next_rest
            self._next_rest = min(8 * REST_TOKENS, 2 * self._next_rest)
