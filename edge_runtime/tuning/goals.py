"""What an answer cost, and what is to be as little as possible: time, the verifier's time, or energy.

All are counted from the first token on and told for each token after it. Arithmetic only.
"""

import statistics
from collections.abc import Mapping, Sequence

import msgspec

__all__ = ["ENERGY", "GOALS", "LATENCY", "VERIFIER_COST", "Sample", "cost", "score"]

LATENCY, VERIFIER_COST, ENERGY = GOALS = ("latency", "verifier-cost", "energy")


class Sample(msgspec.Struct, frozen=True):
    """One answer. `verifier_ms`: its passes, by the verifier's own measured costs. `energy`: joules or core-seconds."""

    token_ids: Sequence[int]
    elapsed_ms: float
    verifier_ms: float
    energy: float


def cost(goal: str, sample: Sample) -> float:
    """Of a token, in milliseconds or thousandths of `energy`. Infinite for an answer of a single token."""
    total = {LATENCY: sample.elapsed_ms, VERIFIER_COST: sample.verifier_ms, ENERGY: 1000 * sample.energy}[goal]
    num_tokens = len(sample.token_ids) - 1
    return total / num_tokens if num_tokens > 0 else float("inf")


def score(costs: Mapping[str, Sequence[float]]) -> float:
    """Of costs by kind of text: the median of each kind, and the geometric mean of those.

    >>> score({"code": [1.0, 2.0, 9.0], "chat": [8.0]})
    4.0
    """
    medians = [max(statistics.median(each), 1e-9) for each in costs.values() if each]
    return statistics.geometric_mean(medians)
