"""Whether one setting is better than another, on prompts that neither was chosen by.

Both answer each prompt, in turns, and who begins takes turns too: A B, B A, A B. The costs of one prompt are compared
with each other, so that a prompt that is dear is dear to both; the median of those ratios counts, with an interval that
asks nothing of how they spread.
"""

import math
import statistics
from collections.abc import Callable, Sequence

import msgspec

from edge_runtime.tuning.goals import cost
from edge_runtime.tuning.prompts import Prompt
from edge_runtime.tuning.search import Ask
from outrider.progress import Progress, silent

__all__ = ["Comparison", "compare", "median_interval"]

CONFIDENCE = 0.95
LEAST_GAIN = 0.02  # less is not worth a setting of one's own
MOST_ROUNDS = 3


class Comparison(msgspec.Struct, frozen=True):
    """Costs of a token; ratios are of the challenger's cost to the defaults' on one prompt."""

    num_prompts: int = 0
    num_pairs: int = 0
    defaults: tuple[float, float, float] = (0.0, 0.0, 0.0)  # median, least, most
    challenger: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ratio: float = 1.0  # median over the prompts
    interval: tuple[float, float] | None = None  # of that median, at 95 %; None: too few prompts to say
    is_exact: bool = True  # both said the same
    is_interrupted: bool = False

    @property
    def is_gain(self) -> bool:
        """Beyond the noise, and worth it."""
        is_clear = self.interval is not None and self.interval[1] < 1
        return is_clear and self.ratio <= 1 - LEAST_GAIN and self.is_exact


def compare(
    defaults: Ask,
    challenger: Ask,
    prompts: Sequence[Prompt],
    goal: str,
    *,
    until_s: float,
    clock: Callable[[], float],
    progress: Progress = silent,
) -> Comparison:
    """As many rounds over the prompts as there is time for, up to three. Ctrl-C ends it with what there is."""
    ways = (defaults, challenger)
    costs: dict[Prompt, list[tuple[float, float]]] = {}
    is_exact, is_interrupted, longest_s, num_done = True, False, 0.0, 0
    pairs = [prompt for _ in range(MOST_ROUNDS) for prompt in prompts]
    try:
        for prompt in pairs:
            begun_s = clock()
            if begun_s + longest_s > until_s:
                break
            order = (0, 1) if (num_done + num_done // len(prompts)) % 2 == 0 else (1, 0)
            samples = {which: ways[which](prompt) for which in order}
            longest_s = max(longest_s, clock() - begun_s)
            num_done += 1
            progress("comparing on held-out prompts", num_done, len(pairs))
            is_exact = is_exact and list(samples[0].token_ids) == list(samples[1].token_ids)
            if len(samples[0].token_ids) > 1 and is_exact:
                costs.setdefault(prompt, []).append((cost(goal, samples[0]), cost(goal, samples[1])))
    except KeyboardInterrupt:
        is_interrupted = True
    progress("comparing on held-out prompts", len(pairs), len(pairs))
    if not costs:
        return Comparison(is_exact=is_exact, is_interrupted=is_interrupted)
    by_prompt = [[statistics.median(each) for each in zip(*pairs, strict=True)] for pairs in costs.values()]
    ratios = [max(new, 1e-9) / max(old, 1e-9) for old, new in by_prompt]
    columns = [(statistics.median(column), min(column), max(column)) for column in zip(*by_prompt, strict=True)]
    return Comparison(
        len(costs),
        sum(map(len, costs.values())),
        columns[0],
        columns[1],
        statistics.median(ratios),
        median_interval(ratios),
        is_exact,
        is_interrupted,
    )


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Two of the values that hold the median of what they were drawn from between them; None for too few values.

    It lies below the k-th of n with the chance that fewer than k of n coins fall heads.

    >>> median_interval([1, 2, 3, 4, 5, 6, 7, 8, 9])
    (2, 8)
    >>> median_interval([1, 2, 3, 4, 5]) is None
    True
    """
    ordered, count = sorted(values), len(values)
    below, k = 0.0, 0  # chance that fewer than k + 1 fall heads
    while 2 * (below + math.comb(count, k) / 2**count) <= 1 - confidence:
        below += math.comb(count, k) / 2**count
        k += 1
    return (ordered[k - 1], ordered[count - k]) if k else None
