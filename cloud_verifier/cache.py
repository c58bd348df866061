"""Which token lists are resident in the engine's KV cache. It is only a cache: losing an entry costs a prefill.

An entry outlives its session: the next turn of a conversation opens with a longer list and takes it over; another
session of the same credential copies the part they share. Tokens themselves are compared, and only within a credential:
there is no hash to collide, and nobody's time tells what somebody else sent. The least recently used entry makes room.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from cloud_verifier.failures import FAILURES
from outrider.engines.base import Engine
from outrider.errors import EngineFull

__all__ = ["ResidentLists"]

BLOCK = 64  # lists are compared in blocks: most differ in the first
MOST = 0.9  # an entry that ends soon after the shared part is taken over, not copied


@dataclass(slots=True)
class _Entry:
    """`token_ids` is the session's own growing list while it lives; the engine's length says how much is cached."""

    sequence: int
    credential: str
    token_ids: list[int] = field(repr=False)
    session: str | None


class ResidentLists:
    def __init__(self, engine: Engine, max_tokens: int) -> None:
        self._engine = engine
        self._max_tokens = max_tokens
        self._entries: dict[int, _Entry] = {}  # by sequence, least recently used first
        self._by_session: dict[str, _Entry] = {}
        self.num_evictions = 0
        self.num_reused_tokens = 0

    @property
    def num_tokens(self) -> int:
        return sum(self._engine.length(sequence) for sequence in self._entries)

    def has_place_for(self, session: str) -> bool:
        """Whether the session is resident, or can be without evicting one that still lives."""
        return session in self._by_session or len(self._by_session) < self._engine.max_sequences

    def num_shared(self, credential: str, token_ids: list[int]) -> int:
        """Tokens at the start of a list that are resident for this credential."""
        return self._longest(credential, token_ids)[1]

    def acquire(self, session: str, credential: str, token_ids: list[int], in_use: Collection[str] = ()) -> int:
        """The session's sequence, holding as much of its list as was resident. Evicts for want of a sequence, but none
        of `in_use`.

        Raises EngineFull when all sequences are in use.
        """
        entry = self._by_session.get(session)
        if entry is None:
            entry = self._open(session, credential, token_ids, in_use)
            self._by_session[session] = self._entries[entry.sequence] = entry
        self._entries[entry.sequence] = self._entries.pop(entry.sequence)  # now the latest used
        return entry.sequence

    def _open(self, session: str, credential: str, token_ids: list[int], in_use: Collection[str]) -> _Entry:
        best, shared = self._longest(credential, token_ids)
        if best is not None and best.session is None:
            is_full = len(self._entries) >= self._engine.max_sequences
            if is_full or shared >= MOST * self._engine.length(best.sequence):
                if self._shortened(best, shared):
                    self.num_reused_tokens += shared
                    best.session, best.token_ids = session, token_ids
                    return best
                best = None
        if len(self._entries) >= self._engine.max_sequences:
            self._evict(in_use, keep=best)
        sequence = self._engine.allocate()
        if best is not None and best.sequence in self._entries:
            try:
                self._engine.copy(best.sequence, sequence, shared)
                self.num_reused_tokens += shared
            except FAILURES:  # then it is filled like any other
                self._engine.release(sequence)
                sequence = self._engine.allocate()
        return _Entry(sequence, credential, token_ids, session)

    def _shortened(self, entry: _Entry, length: int) -> bool:
        """Whether the engine could cut what an ended session left; if not, it is gone."""
        try:
            self._engine.truncate(entry.sequence, length)
        except FAILURES:
            self._remove(entry)
            return False
        return True

    def _longest(self, credential: str, token_ids: list[int]) -> tuple[_Entry | None, int]:
        """The entry of this credential that shares the longest start with a list, short of its last token."""
        best: _Entry | None = None
        longest = 0
        for entry in self._entries.values():
            if entry.credential == credential:
                end = min(self._engine.length(entry.sequence), len(token_ids) - 1)
                shared = _shared(entry.token_ids, token_ids, end)
                if shared > longest:
                    best, longest = entry, shared
        return best, longest

    def leave(self, session: str) -> None:
        """The session ended; what it had cached stays until the room is needed. Safe for one that is not resident."""
        entry = self._by_session.pop(session, None)
        if entry is None:
            return
        entry.session = None
        entry.token_ids = entry.token_ids[: self._engine.length(entry.sequence)]
        if not entry.token_ids:
            self._remove(entry)

    def drop(self, session: str) -> None:
        """Forget what a session has cached. Safe for one that is not resident."""
        if (entry := self._by_session.get(session)) is not None:
            self._remove(entry)

    def clear(self) -> None:
        """Forget everything, as after an engine's failure."""
        for entry in list(self._entries.values()):
            self._remove(entry)

    def make_room(self, in_use: Collection[str]) -> None:
        """Evict until the resident tokens are within their budget, but none of `in_use`. Once a pass: it counts all."""
        while self.num_tokens > self._max_tokens and self._may_go(in_use):
            self._evict(in_use)

    def _may_go(self, in_use: Collection[str]) -> list[_Entry]:
        return [entry for entry in self._entries.values() if entry.session is None or entry.session not in in_use]

    def _evict(self, in_use: Collection[str], keep: _Entry | None = None) -> None:
        """The least recently used goes: one whose session ended first, and `keep` only if nothing else can."""
        may_go = self._may_go(in_use)
        if not may_go:
            raise EngineFull("more sessions in one pass than the engine has sequences; lower the batch")
        self._remove(min(may_go, key=lambda entry: (entry is keep, entry.session is not None)))
        self.num_evictions += 1

    def _remove(self, entry: _Entry) -> None:
        del self._entries[entry.sequence]
        if entry.session is not None:
            del self._by_session[entry.session]
        self._engine.release(entry.sequence)

    def check_integrity(self, lengths: dict[str, int]) -> None:
        """`lengths`: tokens of each live session. Raises AssertionError for leaks and for more cached than exists."""
        for sequence, entry in self._entries.items():
            if entry.sequence != sequence:
                raise AssertionError("an entry stands under another sequence")
            if self._engine.length(sequence) > len(entry.token_ids):
                raise AssertionError("the cache holds more tokens than the list has")
            if entry.session is not None and self._by_session.get(entry.session) is not entry:
                raise AssertionError("a session and its entry do not know each other")
        for session, entry in self._by_session.items():
            if session not in lengths:
                raise AssertionError("a closed session still holds an entry")
            if entry.sequence not in self._entries:
                raise AssertionError("a session's entry is gone")


def _shared(mine: list[int], other: list[int], end: int) -> int:
    """How many of the first `end` items are equal."""
    for first in range(0, end, BLOCK):
        block = range(first, min(first + BLOCK, end))
        if mine[first : block.stop] != other[first : block.stop]:
            return next(index for index in block if mine[index] != other[index])
    return max(0, end)
