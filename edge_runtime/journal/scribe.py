"""Keeps the journal in step with a session: what it tells is on the disk before the app hears of it.

A disk that is full or locked is no reason to withhold an answer: what could not be written is written with the next
step that can be, and `not_kept` says what was in the way. Knows no SQL and no link.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby

from edge_runtime.events import Event, Finished, Retracted, Token
from edge_runtime.journal.record import Record
from outrider.errors import DiskFull, JournalBusy, OutriderError

__all__ = ["Scribe"]


class Scribe:
    """Writes one generation, whose list so far ends at position `end`. Without a record it writes nothing."""

    def __init__(self, record: Record | None, end: int, not_kept: OutriderError | None = None) -> None:
        self._record = record
        self._end = end
        self._target = ""
        self.not_kept = not_kept

    async def write(self, events: Sequence[Event], target: str = "") -> None:
        """What one step brought; `target` verified it. Never raises for what is wrong with the journal."""
        if self._record is None or not events:
            return
        try:
            await asyncio.to_thread(self._write, self._record, events, target)
            self.not_kept = None
        except (DiskFull, JournalBusy) as error:
            self.not_kept = error
        except OutriderError as error:  # refused, as of a generation that was forgotten meanwhile
            self.not_kept, self._record = error, None

    def _write(self, record: Record, events: Sequence[Event], target: str) -> None:
        """Raises what the last of the writes did: one that finds no room is made good by the next that does."""
        problem: OutriderError | None = None
        for write in self._writes(record, events, target):
            problem = None
            try:
                write()
            except (DiskFull, JournalBusy) as error:
                problem = error
        if problem is not None:
            raise problem

    def _writes(self, record: Record, events: Sequence[Event], target: str) -> Iterator[Callable[[], None]]:
        if (
            target
            and target != self._target
            and any(isinstance(event, Token) and event.is_verified for event in events)
        ):
            self._target = target
            yield partial(record.verified_by, target)
        for kind, group in groupby(events, self._kind):
            run = list(group)
            first, last = run[0], run[-1]
            if isinstance(first, Retracted):
                self._end = first.position
                yield partial(record.retract, first.position)
            elif isinstance(first, Finished):
                yield partial(record.finish, first.reason)
            elif isinstance(first, Token) and isinstance(last, Token):
                token_ids = [event.token_id for event in run if isinstance(event, Token)]
                if kind == "confirmed":
                    yield partial(record.confirm, last.position + 1)
                    continue
                self._end = last.position + 1
                append = record.append_verified if first.is_verified else record.append_provisional
                yield partial(append, first.position, token_ids)

    def _kind(self, event: Event) -> str:
        if isinstance(event, Token) and event.is_verified:
            return "confirmed" if event.position < self._end else "verified"
        return type(event).__name__
