"""Which sessions are resident in the engine's KV cache. It is only a cache: losing an entry costs a prefill.

The least recently used session makes room when all of the engine's sequences are taken. Knows lengths, not tokens.
"""

from collections import OrderedDict
from collections.abc import Collection

from outrider.engines.base import Engine
from outrider.errors import EngineFull

__all__ = ["ResidentSessions"]


class ResidentSessions:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sequences: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self.num_evictions = 0

    def acquire(self, session: str, in_use: Collection[str] = ()) -> int:
        """The session's sequence, empty if it was not resident. Evicts, but none of `in_use`."""
        if session in self._sequences:
            self._sequences.move_to_end(session)
            return self._sequences[session]
        if len(self._sequences) >= self._engine.max_sequences:
            victim = next((name for name in self._sequences if name not in in_use), None)
            if victim is None:
                raise EngineFull("more sessions in one pass than the engine has sequences; lower the batch")
            self.drop(victim)
            self.num_evictions += 1
        self._sequences[session] = self._engine.allocate()
        return self._sequences[session]

    def drop(self, session: str) -> None:
        """Forget a session's cache. Dropping one that is not resident is safe."""
        sequence = self._sequences.pop(session, None)
        if sequence is not None:
            self._engine.release(sequence)

    def check_integrity(self, lengths: dict[str, int]) -> None:
        """`lengths`: tokens of each live session. Raises AssertionError for leaks and for more cached than exists."""
        if len(set(self._sequences.values())) != len(self._sequences):
            raise AssertionError("two sessions share a sequence")
        for session, sequence in self._sequences.items():
            if session not in lengths:
                raise AssertionError("a closed session is still resident")
            if self._engine.length(sequence) > lengths[session]:
                raise AssertionError("the cache holds more tokens than the session has")
