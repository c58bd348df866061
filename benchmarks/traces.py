"""What a drafter would have guessed at every place of a text that the target wrote, and how long its runs are.

A trace needs the models once; replayed in `benchmarks.simulation` it says what any link would make of the same text.
"""

import msgspec

from benchmarks.simulation import N_VOCAB, Text

__all__ = ["Trace", "run_lengths", "share_beyond"]


class Trace(msgspec.Struct, frozen=True):
    """`agrees[i]`: the drafter's guess for token i, given all before it, was the target's own."""

    token_ids: list[int]
    agrees: list[bool]
    confidences: list[float]
    sources: list[str]  # who guessed; "" where nobody did
    draft_ms: float  # a guess took, on average

    def text(self) -> Text:
        """For `simulate`, whose vocabulary is small: only whether guesses are right counts there."""
        return Text([token_id % N_VOCAB for token_id in self.token_ids], self.agrees, self.confidences)


def run_lengths(agrees: list[bool]) -> list[int]:
    """How many guesses in a row were right before each miss, 0 where a miss follows a miss; and after the last one.

    >>> run_lengths([True, True, False, False, True])
    [2, 0, 1]
    """
    lengths = [0]
    for is_right in agrees:
        if is_right:
            lengths[-1] += 1
        else:
            lengths.append(0)
    return lengths if lengths[-1] else lengths[:-1]


def share_beyond(agrees: list[bool], count: int) -> float:
    """The share of tokens that are more than `count` into a run.

    >>> share_beyond([True, True, False, True], 1)
    0.25
    """
    deep = sum(max(0, length - count) for length in run_lengths(agrees))
    return deep / len(agrees) if agrees else 0.0
