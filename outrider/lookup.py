"""Drafts from the text itself: what followed the last time these tokens stood in this order.

Prompt lookup (Saxena 2023): find the longest suffix, of 2 to 6 tokens, that occurs earlier, and propose what came
after its most recent occurrence. Costs microseconds. Keeps no state, so there is nothing to rewind.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["MAX_MATCH", "propose_by_lookup"]

MIN_MATCH = 2
MAX_MATCH = 6


def propose_by_lookup(token_ids: Sequence[int], num_drafts: int) -> tuple[list[int], int]:
    """Ids that may follow `token_ids`, and how many tokens of its end (2 to 6) were found earlier.

    As many as `num_drafts`; none, and 0, when the end never occurred before.

    A match that overlaps the end is a repetition, and is continued as one.

    >>> propose_by_lookup([1, 2, 3, 9, 9, 1, 2], 3)
    ([3, 9, 9], 2)
    >>> propose_by_lookup([4, 7, 8, 7, 8], 5)
    ([7, 8, 7, 8, 7], 2)
    """
    tokens = np.asarray(token_ids, dtype=np.int64)
    ends = np.flatnonzero(tokens[:-1] == tokens[-1]) if len(tokens) > MIN_MATCH else tokens[:0]
    matched = 1
    while matched < MAX_MATCH and len(ends):
        earlier = ends[ends >= matched]
        earlier = earlier[tokens[earlier - matched] == tokens[-1 - matched]]
        if not len(earlier):
            break
        ends = earlier
        matched += 1
    if matched < MIN_MATCH or not len(ends):
        return [], 0
    following = tokens[int(ends[-1]) + 1 :]
    return np.resize(following, max(0, num_drafts)).tolist(), matched
