"""The journal as a whole: begins generations and reads them back, checked. What changes one is in `record.py`."""

import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from edge_runtime.journal.file import check_file, damaged, open_file, told
from edge_runtime.journal.record import Record
from edge_runtime.journal.values import Asked, Conversation, Generation, checksum
from outrider import catalog
from outrider.errors import JournalError

__all__ = ["Journal"]

BUSY_S = 5.0


class Journal:
    """The journal at `path`, by default in the store. Processes and threads may share one file.

    Every method raises JournalError or a leaf of it, those that write DiskFull as well; then nothing was changed.
    A write waits for the disk: call from a thread that may.
    """

    def __init__(self, path: Path | None = None, *, busy_s: float = BUSY_S) -> None:
        """`busy_s`: how long to wait while another process writes."""
        self.path = path or catalog.home() / "journal.sqlite"
        self._lock = threading.Lock()
        self._db = open_file(self.path, busy_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Safe to call twice."""
        with self._lock, told(self.path):
            self._db.close()

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        """All of a block's statements or none of them. IMMEDIATE to write, DEFERRED to read one state of it all."""
        with self._lock, told(self.path):
            self._db.execute(f"BEGIN {kind}")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # for some errors SQLite has rolled back by itself
                    self._db.execute("ROLLBACK")
                raise

    def _record(self, number: int) -> Record:
        return Record(number, lambda: self._transaction("IMMEDIATE"))

    def begin(self, asked: Asked, conversation: str | None = None) -> Record:
        """A new generation; without a name, in a new conversation."""
        request = msgspec.json.encode(asked).decode()
        row = (conversation or secrets.token_hex(8), time.time(), len(asked.prompt_ids), request, asked.target)
        with self._transaction("IMMEDIATE") as db:
            cursor = db.execute(
                "INSERT INTO generation (conversation, started_s, start, request, target, checksum) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (*row, checksum(*row, None)),
            )
        return self._record(int(cursor.lastrowid or 0))

    def resume(self, number: int) -> Record:
        """To go on with a generation that was begun before."""
        return self._record(self.generation(number).id)

    def stop(self, conversation: str) -> None:
        """Nobody wants to hear out its latest answer. Nobody is to finish it; what is provisional of it is still
        verified. Safe for a conversation that is not there."""
        for latest in self.generations(conversation)[-1:]:
            if latest.finish is None:
                self._record(latest.id).stop()

    def generation(self, number: int) -> Generation:
        found = self._read("WHERE id = ?", number)
        if not found:
            raise JournalError(f"no generation {number} is in the journal; list what there is")
        return found[0]

    def generations(self, conversation: str) -> list[Generation]:
        """Of one conversation, in the order they were begun."""
        return self._read("WHERE conversation = ?", conversation)

    def unfinished(self) -> list[Generation]:
        """Those that a crash or a lost link cut short."""
        return self._read("WHERE finish IS NULL")

    def pending(self) -> list[Generation]:
        """Those with provisional tokens: what is to be reconciled when the verifier is back."""
        return self._read("WHERE id IN (SELECT generation FROM token WHERE is_verified = 0)")

    def texts(self, vocabulary: str) -> list[list[int]]:
        """Prompts with their answers, as ids of one vocabulary, the latest first."""
        every = reversed(self._read(""))
        return [[*one.asked.prompt_ids, *one.token_ids] for one in every if one.asked.vocabulary == vocabulary]

    def conversations(self) -> list[Conversation]:
        """In the order they were begun."""
        with self._transaction("DEFERRED") as db:
            rows = db.execute(
                "SELECT conversation, min(started_s), count(*), sum(finish IS NULL), sum("
                "(SELECT count(*) FROM token WHERE token.generation = generation.id AND is_verified = 0)) "
                "FROM generation GROUP BY conversation ORDER BY min(id)"
            ).fetchall()
        return [Conversation(*row) for row in rows]

    def forget(self, conversation: str) -> None:
        """Remove a conversation with all its tokens and overwrite where they stood. Safe for one that is not there."""
        with self._transaction("IMMEDIATE") as db:
            db.execute("DELETE FROM generation WHERE conversation = ?", (conversation,))
        with self._lock, told(self.path):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log held them too

    def check_integrity(self) -> None:
        """Raises InvalidJournal when the file is damaged or contradicts itself. Reads all of it."""
        with self._transaction("DEFERRED") as db:
            check_file(db, self.path)
        self._read("")

    def _read(self, where: str, *values: object) -> list[Generation]:
        with self._transaction("DEFERRED") as db:
            rows = db.execute(f"SELECT * FROM generation {where} ORDER BY id", values).fetchall()  # noqa: S608  ours
            return [self._checked(row, db) for row in rows]

    def _checked(self, row: tuple[Any, ...], db: sqlite3.Connection) -> Generation:
        """A row of the generation table, with its tokens, when everything about them is right."""
        number, conversation, started_s, start, request, target, finish, check = row
        query = "SELECT * FROM token WHERE generation = ? ORDER BY position"
        tokens = db.execute(query, (number,)).fetchall()
        stops = db.execute("SELECT * FROM stop WHERE generation = ?", (number,)).fetchall()
        num_verified = sum(is_verified == 1 for _, _, _, is_verified, _ in tokens)
        is_whole = (
            check == checksum(conversation, started_s, start, request, target, finish)
            and all(stored == checksum(*values) for *values, stored in [*tokens, *stops])
            and all(position == start + offset for offset, (_, position, *_) in enumerate(tokens))
            and all(is_verified == 1 for _, _, _, is_verified, _ in tokens[:num_verified])
        )
        if not is_whole:
            raise damaged(self.path)
        asked = msgspec.json.decode(request, type=Asked)
        token_ids = [token_id for _, _, token_id, _, _ in tokens]
        stopped_at = stops[0][1] if stops else None
        return Generation(number, conversation, started_s, asked, target, token_ids, num_verified, finish, stopped_at)
