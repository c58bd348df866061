"""What drafts are worth: how often they are accepted, and how many of them pay for their place in a pass.

The rule maximises tokens per millisecond over the long run (renewal-reward; Dinkelbach's step): with `rate` the tokens
a millisecond is worth, take the k drafts with the largest E_k - rate * t(k), E_k = 1 + p1 + p1 p2 + ... Both sides use
it: the device for what it drafts, the verifier for what it takes. Pure arithmetic; knows no clock and no session.
"""

from collections.abc import Callable, Mapping, Sequence

__all__ = ["Calibration", "PassCost", "most_worthwhile"]

NUM_BINS = 12
LAST_BIN = NUM_BINS - 1
ALL = -1  # in place of a bin
FADE = 0.97  # an observation: chances are those of about the last thirty
PRIOR_CHANCE = 0.75  # of an untried source's next guess, on average: high enough to be tried
PRIOR_WEIGHT = 2.0  # a confidence is believed until this many drafts of its kind were seen


class PassCost:
    """Milliseconds of a pass over k rows, from measurements for k = 1 on without gaps; beyond them in proportion.

    >>> PassCost({1: 10.0, 2: 12.0})(4)
    24.0
    """

    def __init__(self, cost_ms: Mapping[int, float]) -> None:
        self._cost_ms = dict(cost_ms)
        self._last = max(cost_ms)

    def __call__(self, num_rows: int) -> float:
        if num_rows <= self._last:
            return self._cost_ms[max(1, num_rows)]
        return self._cost_ms[self._last] * num_rows / self._last


class Calibration:
    """By source and confidence: how often drafts were accepted, given that those before them were. It fades."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], list[float]] = {}  # by (source, bin) and (source, ALL): accepted, tried

    def chance(self, source: str, confidence: float) -> float:
        return self._rate((source, min(LAST_BIN, int(confidence * NUM_BINS))), confidence)

    def average(self, source: str) -> float:
        return self._rate((source, ALL), PRIOR_CHANCE)

    def _rate(self, key: tuple[str, int], prior: float) -> float:
        seen = self._seen.get(key)
        if seen is None:
            return prior
        return (seen[0] + prior * PRIOR_WEIGHT) / (seen[1] + PRIOR_WEIGHT)

    def observe(self, drafts: Sequence[tuple[str, float]], num_accepted: int) -> None:
        """Drafts, each with source and confidence, were checked; the first `num_accepted` were right, the next not."""
        for seen in self._seen.values():
            seen[0] *= FADE
            seen[1] *= FADE
        for number, (source, confidence) in enumerate(drafts[: num_accepted + 1]):
            for key in ((source, min(LAST_BIN, int(confidence * NUM_BINS))), (source, ALL)):
                seen = self._seen.setdefault(key, [0.0, 0.0])
                seen[0] += number < num_accepted
                seen[1] += 1


def most_worthwhile(
    chances: Sequence[float], rate: float, pass_ms: Callable[[int], float], draft_ms: float = 0.0
) -> tuple[int, float]:
    """How many of the drafts to take, and the value of that pass in tokens.

    `pass_ms(k)` is the cost of a pass over k rows, the last verified token among them; `draft_ms` that of making one
    more draft.

    >>> most_worthwhile([0.9, 0.9, 0.1], rate=0.1, pass_ms=lambda rows: 10.0 + 4 * (rows - 1))[0]
    2
    """
    expected, reach = 1.0, 1.0
    best, best_value = 0, expected - rate * pass_ms(1)
    for number, chance in enumerate(chances, start=1):
        reach *= chance
        expected += reach
        value = expected - rate * (pass_ms(number + 1) + number * draft_ms)
        if value > best_value:
            best, best_value = number, value
    return best, best_value
