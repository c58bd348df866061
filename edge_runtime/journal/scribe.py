"""Keeps the journal in step with a session: what it tells is on the disk before the app hears of it.

A disk that is full or locked is no reason to withhold an answer: what could not be written is written with the next
step that can be, and `not_kept` says what was in the way. Knows no SQL and no link.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Self

from edge_runtime.events import Event, Finished, Retracted, Token
from edge_runtime.journal.journal import Journal
from edge_runtime.journal.lease import Lease
from edge_runtime.journal.record import Record
from edge_runtime.journal.values import Asked, Generation
from outrider.errors import DiskFull, JournalBusy, OutriderError

__all__ = ["Scribe"]


class Scribe:
    """Writes one generation, whose list so far ends at position `end`. Without a record it writes nothing."""

    def __init__(
        self, record: Record | None, end: int, *, lease: Lease | None = None, not_kept: OutriderError | None = None
    ) -> None:
        self._record = record
        self._lease = lease
        self._end = end
        self._target = ""
        self._is_blank = False  # begun here, and nothing was written yet
        self.not_kept = not_kept

    @classmethod
    async def begin(cls, journal: Journal | None, asked: Asked, conversation: str | None) -> Self:
        """Of a new generation. A journal that cannot be written is no reason to withhold an answer."""
        end = len(asked.prompt_ids)
        if journal is None:
            return cls(None, end)
        try:
            record = await asyncio.to_thread(journal.begin, asked, conversation)
        except OutriderError as error:
            return cls(None, end, not_kept=error)
        try:
            scribe = cls(record, end, lease=Lease(journal.path, record.id))
        except OutriderError as error:
            with suppress(OutriderError):
                record.discard()
            return cls(None, end, not_kept=error)
        scribe._is_blank = True
        return scribe

    @classmethod
    async def resume(cls, journal: Journal, number: int) -> tuple[Self, Generation]:
        """Of a generation that was begun before, and how it stands. Raises JournalError."""
        lease = Lease(journal.path, number)
        try:
            generation = await asyncio.to_thread(journal.generation, number)
            return cls(journal.resume(number), generation.end, lease=lease), generation
        except BaseException:
            lease.release()
            raise

    async def write(self, events: Sequence[Event], target: str = "") -> None:
        """What one step brought; `target` verified it. Never raises for what is wrong with the journal.

        Who gives up waiting for it waits for the disk nevertheless: nothing is written after the end.
        """
        if self._record is None or not events:
            return
        self._is_blank = False
        writing = asyncio.ensure_future(asyncio.to_thread(self._write, self._record, events, target))
        try:
            try:
                await asyncio.shield(writing)
            finally:
                await asyncio.wait([writing])
            self.not_kept = None
        except (DiskFull, JournalBusy) as error:
            self.not_kept = error
        except OutriderError as error:  # refused, as of a generation that was forgotten meanwhile
            self.not_kept, self._record = error, None

    def close(self) -> None:
        """No more is written. Of an answer that was refused before its first word nothing is kept, and nothing is
        left to go on with. Safe to call twice."""
        if self._record is not None and self._is_blank:
            with suppress(OutriderError):
                self._record.discard()
        self._record = None
        if self._lease is not None:
            self._lease.release()

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
        kinds = [(self._kind(event), event) for event in events]
        for kind, group in groupby(kinds, itemgetter(0)):
            run = [event for _, event in group]
            tokens = [event for event in run if isinstance(event, Token)]
            if kind == "confirmed":
                yield partial(record.confirm, tokens[-1].position + 1)
            elif tokens:
                append = record.append_verified if kind == "verified" else record.append_provisional
                yield partial(append, tokens[0].position, [token.token_id for token in tokens])
            elif isinstance(run[0], Retracted):
                yield partial(record.retract, run[0].position)
            elif isinstance(run[0], Finished):
                yield partial(record.finish, run[0].reason)

    def _kind(self, event: Event) -> str:
        """What the event does to the list, whose end moves with it."""
        if isinstance(event, Retracted):
            self._end = event.position
        if not isinstance(event, Token):
            return type(event).__name__
        if event.is_verified and event.position < self._end:
            return "confirmed"
        self._end = event.position + 1
        return "verified" if event.is_verified else "provisional"
