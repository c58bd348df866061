"""Drafts from texts of the past: what followed the ends of this text in those that the user wrote or read before.

A frozen corpus of token lists, as a suffix array over the reversed texts: all places where the same tokens end stand
side by side, those that agree furthest back nearest. Found by bisection, in tens of microseconds at a million tokens.
Takes 8 bytes a token, about 80 while it is built, and a second or two a million tokens to build. Knows ids; where the
texts come from, and whose they are, is its maker's business.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from outrider.lookup import MIN_MATCH, Continuation, confidence

__all__ = ["MAX_MATCH", "PastTexts"]

MAX_MATCH = 32  # tokens compared; a longer match says no more
BETWEEN = 2**32 - 1  # stands between texts, so that no match crosses
WIDTH = 4  # bytes of a token, most significant first: bytes then compare as the tokens do


class PastTexts:
    """Texts as token lists of one vocabulary, the oldest first."""

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        parts = [np.array([BETWEEN], np.uint32)]
        for text in texts:
            parts += [np.asarray(text, np.uint32), parts[0]]
        reverse = np.concatenate(parts)[::-1]
        self._tokens = reverse.astype(">u4")
        self._bytes = self._tokens.tobytes()
        self._order = _order(reverse)

    @property
    def num_bytes(self) -> int:
        """Of memory that is held."""
        return len(self._bytes) + self._order.nbytes

    def propose(self, token_ids: Sequence[int], num_drafts: int) -> Continuation:
        """What followed the most recent place of the longest end of `token_ids`, up to the end of that text.

        >>> PastTexts([[1, 2, 3, 4], [8, 2, 3, 5, 6]]).propose([9, 2, 3], 2).token_ids
        [5, 6]
        """
        wanted = np.array(token_ids[: -MAX_MATCH - 1 : -1], ">u4").tobytes()
        nearest = bisect_left(self._order, wanted, key=lambda place: self._at(place, len(wanted)))
        beside = self._order[max(0, nearest - 1) : nearest + 1]
        matched = max(self._num_shared(place, wanted) for place in beside)
        if matched < MIN_MATCH or num_drafts < 1:
            return Continuation()
        size = matched * WIDTH
        low = bisect_left(self._order, wanted[:size], hi=nearest, key=lambda place: self._at(place, size))
        high = bisect_right(self._order, wanted[:size], lo=nearest, key=lambda place: self._at(place, size))
        places = self._order[low:high]
        following = self._tokens[places - 1]  # reversed: what follows stands before
        places, following = places[following != BETWEEN], following[following != BETWEEN]
        if not len(places):
            return Continuation()
        latest = int(places.min())
        ids = self._tokens[max(0, latest - num_drafts) : latest][::-1].tolist()
        if BETWEEN in ids:
            ids = ids[: ids.index(BETWEEN)]
        num_agreed = int((following == ids[0]).sum())
        first = confidence(matched, len(places), num_agreed)
        later = [confidence(matched + number, num_agreed, num_agreed) for number in range(1, len(ids))]
        return Continuation(ids, [first, *later], matched)

    def _at(self, place: int, size: int) -> bytes:
        start = int(place) * WIDTH
        return self._bytes[start : start + size]

    def _num_shared(self, place: int, wanted: bytes) -> int:
        mine = np.frombuffer(self._at(place, len(wanted)), ">u4")
        differs = mine != np.frombuffer(wanted, ">u4")[: len(mine)]
        return int(differs.argmax()) if differs.any() else len(mine)


def _order(tokens: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Places 0 … n - 1, sorted by the MAX_MATCH tokens from there on, by doubling."""
    rank = np.unique(tokens, return_inverse=True)[1].astype(np.int64)
    span = 1
    while True:
        after = np.zeros_like(rank)
        after[:-span] = rank[span:] + 1
        key = rank * (len(rank) + 1) + after
        order = np.argsort(key, kind="stable")
        span *= 2
        if span >= MAX_MATCH:
            return order.astype(np.int32)
        rises = np.concatenate(([0], np.diff(key[order]) > 0))
        rank[order] = np.cumsum(rises)
