"""Writes one generation: tokens at the end of its list, and what became of the provisional ones."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from edge_runtime.journal.values import STOPPED, checksum, token_rows
from outrider.errors import DiskFull, JournalBusy, JournalError

__all__ = ["Record"]

Step = Callable[[sqlite3.Connection], object]


class Record:
    """Of generation `id`. Positions are absolute: the first token stands after the prompt.

    A write that finds the disk full or the file locked raises, and is kept: the next one writes both, in order. So a
    caller may go on streaming, and loses nothing while it lives. One that raises anything else was refused.
    """

    def __init__(self, number: int, transaction: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self.id = number
        self._transaction = transaction
        self._unwritten: list[Step] = []

    def append_verified(self, position: int, token_ids: Sequence[int]) -> None:
        """The target's own tokens, at `position`, the end of the list. What is provisional must be settled before."""
        self._append(token_rows(self.id, position, token_ids, is_verified=True))

    def append_provisional(self, position: int, token_ids: Sequence[int]) -> None:
        """The drafter's tokens, at `position`, the end of the list."""
        self._append(token_rows(self.id, position, token_ids, is_verified=False))

    def confirm(self, position: int) -> None:
        """The target agrees with the provisional tokens left of `position`."""

        def step(db: sqlite3.Connection) -> None:
            query = "SELECT position, token_id, is_verified FROM token WHERE generation = ? AND position < ?"
            rows = db.execute(query + " ORDER BY position", (self.id, position)).fetchall()
            if rows and rows[-1][0] != position - 1:
                raise JournalError(f"position {position} lies beyond the list; confirm what is there")
            provisional = [row for row in rows if not row[2]]
            if provisional:
                self._set_finish(db, None)  # that was provisional, too
                token_ids = [token_id for _, token_id, _ in provisional]
                verified = token_rows(self.id, provisional[0][0], token_ids, is_verified=True)
                db.executemany(
                    "UPDATE token SET is_verified = 1, checksum = ? WHERE generation = ? AND position = ?",
                    [(check, number, at) for number, at, _, _, check in verified],
                )

        self._write(step)

    def retract(self, position: int) -> None:
        """Drop the provisional tokens from `position` on. If there were any, the generation is unfinished again."""

        def step(db: sqlite3.Connection) -> None:
            query = "SELECT generation, position FROM token WHERE generation = ? AND position >= ?"
            rows = db.execute(query + " ORDER BY position DESC", (self.id, position)).fetchall()
            if rows:
                self._set_finish(db, None)
            db.executemany("DELETE FROM token WHERE generation = ? AND position = ?", rows)

        self._write(step)

    def verified_by(self, target: str) -> None:
        """The fingerprint of the weights that verify it; no others may go on with it."""

        def step(db: sqlite3.Connection) -> None:
            *asked, before, finish = self._row(db)
            if target != before:
                values = (target, checksum(*asked, target, finish), self.id)
                db.execute("UPDATE generation SET target = ?, checksum = ? WHERE id = ?", values)

        self._write(step)

    def finish(self, reason: str) -> None:
        """No more tokens come. While some are provisional this is, too."""
        self._write(lambda db: self._set_finish(db, reason))

    def stop(self) -> None:
        """Nobody wants to hear it out: no more tokens come than are there now."""

        def step(db: sqlite3.Connection) -> None:
            self._set_finish(db, STOPPED)
            [num_tokens] = db.execute("SELECT count(*) FROM token WHERE generation = ?", (self.id,)).fetchone()
            if num_tokens:
                row = (self.id, num_tokens)
                db.execute("INSERT OR REPLACE INTO stop VALUES (?, ?, ?)", (*row, checksum(*row)))

        self._write(step)

    def discard(self) -> None:
        """Forget the generation, if it has no tokens."""
        empty = "DELETE FROM generation WHERE id = ? AND NOT EXISTS (SELECT 1 FROM token WHERE generation = id)"
        self._write(lambda db: db.execute(empty, (self.id,)))

    def _append(self, rows: list[tuple[int, int, int, int, int]]) -> None:
        self._write(lambda db: db.executemany("INSERT INTO token VALUES (?, ?, ?, ?, ?)", rows))

    def _set_finish(self, db: sqlite3.Connection, finish: str | None) -> None:
        *asked, target, before = self._row(db)
        if finish != before:
            values = (finish, checksum(*asked, target, finish), self.id)
            db.execute("UPDATE generation SET finish = ?, checksum = ? WHERE id = ?", values)

    def _row(self, db: sqlite3.Connection) -> tuple[Any, ...]:
        query = "SELECT conversation, started_s, start, request, target, finish FROM generation WHERE id = ?"
        row: tuple[Any, ...] | None = db.execute(query, (self.id,)).fetchone()
        if row is None:
            raise JournalError("the generation is not in the journal any more; begin a new one")
        return row

    def _write(self, step: Step) -> None:
        self._unwritten.append(step)
        try:
            with self._transaction() as db:
                for each in self._unwritten:
                    each(db)
        except (DiskFull, JournalBusy):
            raise
        except BaseException:
            self._unwritten.pop()
            raise
        self._unwritten.clear()
