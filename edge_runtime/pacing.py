"""How far to draft before asking the verifier: as far as a draft is expected to earn more than it costs.

Maximises tokens per millisecond over the long run (renewal-reward; Dinkelbach's step): with `rate` the tokens per
millisecond that time is worth here, one more draft pays while

    P(all drafts up to it are accepted)  >=  rate * (milliseconds to draft it + its share of the verifier's pass)

Chances come from the drafters' own confidences, calibrated by what was accepted; costs from the engine's profile where
it is known and from the clock otherwise. What is observed fades, so that a drafter that was given up is tried again.
Pure arithmetic: knows no model, no link and no clock. A drafter's thread may ask while another thread observes.
"""

from collections.abc import Mapping, Sequence

__all__ = ["Pace"]

NUM_BINS = 12
FADE = 0.97  # a turn: chances are those of about the last thirty turns
RATE_FADE = 0.9  # a turn: text changes from easy to hard within a few
PRIOR_CHANCE = 0.75  # of an untried drafter's next guess, on average: high enough to be tried
PRIOR_WEIGHT = 2.0  # a confidence is believed until this many drafts of its kind were seen
UNKNOWN_ROW_SHARE = 0.05  # of a turn, for each draft, where the verifier's costs are not known


class Pace:
    """`pass_ms`: the verifier's milliseconds for a pass over k tokens, for k from 1 on without gaps; None: unknown."""

    def __init__(self, pass_ms: Mapping[int, float] | None = None) -> None:
        self._known_ms = dict(pass_ms) if pass_ms else None
        self._turn_ms = 0.0  # a turn's length, where pass costs are unknown
        self._tokens = 0.0
        self._elapsed_ms = 0.0
        self._accepted: dict[tuple[str, int], float] = {}  # by drafter and confidence
        self._tried: dict[tuple[str, int], float] = {}
        self._draft_ms: dict[str, float] = {}

    def pass_ms(self, num_rows: int) -> float:
        if self._known_ms is None:
            return (self._turn_ms or 1.0) * (1 + UNKNOWN_ROW_SHARE * (num_rows - 1))
        last = max(self._known_ms)
        if num_rows <= last:
            return self._known_ms[num_rows]
        return self._known_ms[last] * num_rows / last

    @property
    def rate(self) -> float:
        """Tokens per millisecond that time is worth: what was reached lately, never below plain decoding."""
        plain = 1 / self.pass_ms(1)
        return max(plain, self._tokens / self._elapsed_ms) if self._elapsed_ms else plain

    def chance(self, source: str, confidence: float) -> float:
        """How often drafts of this confidence were accepted, given that those before them were."""
        key = (source, min(NUM_BINS - 1, int(confidence * NUM_BINS)))
        tried = self._tried.get(key, 0.0) + PRIOR_WEIGHT
        return (self._accepted.get(key, 0.0) + confidence * PRIOR_WEIGHT) / tried

    def average_chance(self, source: str) -> float:
        accepted = sum(value for (name, _), value in list(self._accepted.items()) if name == source)
        tried = sum(value for (name, _), value in list(self._tried.items()) if name == source)
        return (accepted + PRIOR_CHANCE * PRIOR_WEIGHT) / (tried + PRIOR_WEIGHT)

    def wants_another(self, source: str, reach: float, num_drafts: int) -> bool:
        """Whether `source` should make draft number `num_drafts`, counted from 0, when the drafts before it are all
        accepted with probability `reach`."""
        row_ms = self.pass_ms(num_drafts + 2) - self.pass_ms(num_drafts + 1)
        cost_ms = self._draft_ms.get(source, 0.0) + row_ms
        return reach * self.average_chance(source) >= self.rate * cost_ms

    def num_worthwhile(self, source: str, confidences: Sequence[float]) -> int:
        """How many of the drafts that are there already are worth their place in the pass."""
        return self._best(source, confidences)[0]

    def prefers(self, source: str, confidences: Sequence[float], other: str) -> bool:
        """Whether a pass over these free drafts promises more than drafts that `other` would still have to make."""
        _, value = self._best(source, confidences)
        chance = self.average_chance(other)
        made = [chance] * 8
        return value >= self._value(made, self._draft_ms.get(other, 0.0))[1]

    def _best(self, source: str, confidences: Sequence[float]) -> tuple[int, float]:
        return self._value([self.chance(source, confidence) for confidence in confidences], 0.0)

    def _value(self, chances: Sequence[float], draft_ms: float) -> tuple[int, float]:
        """The number of drafts with the largest E_k - rate * t(k + 1), and that value, in tokens."""
        expected, reach = 1.0, 1.0
        best, best_value = 0, expected - self.rate * self.pass_ms(1)
        for number, chance in enumerate(chances, start=1):
            reach *= chance
            expected += reach
            value = expected - self.rate * (self.pass_ms(number + 1) + number * draft_ms)
            if value > best_value:
                best, best_value = number, value
        return best, best_value

    def observe_draft(self, source: str, elapsed_ms: float) -> None:
        """What one draft took; a slow average."""
        self._draft_ms[source] = 0.8 * self._draft_ms.get(source, elapsed_ms) + 0.2 * elapsed_ms

    def observe_turn(
        self, source: str, confidences: Sequence[float], num_accepted: int, num_tokens: int, elapsed_ms: float
    ) -> None:
        """What became of a proposal, and how long the whole turn took."""
        for key in list(self._tried):
            self._tried[key] *= FADE
            self._accepted[key] *= FADE
        for number, confidence in enumerate(confidences[: num_accepted + 1]):
            key = (source, min(NUM_BINS - 1, int(confidence * NUM_BINS)))
            self._tried[key] = self._tried.get(key, 0.0) + 1
            self._accepted[key] = self._accepted.get(key, 0.0) + (number < num_accepted)
        self._tokens = RATE_FADE * self._tokens + num_tokens
        self._elapsed_ms = RATE_FADE * self._elapsed_ms + elapsed_ms
        share = 1 + UNKNOWN_ROW_SHARE * len(confidences)
        self._turn_ms = 0.8 * (self._turn_ms or elapsed_ms / share) + 0.2 * elapsed_ms / share
