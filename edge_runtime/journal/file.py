"""The journal's file: made, opened, brought up to date or refused, and what SQLite's errors mean to a person.

A commit is on the disk when it returns (WAL, synchronous=FULL): with NORMAL the last ones could go with the power, and
verified tokens that a person has read would be lost. A file that is not right is left as it is. Knows no tables.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.journal.schema import APPLICATION_ID, MIGRATIONS
from outrider.errors import DiskFull, InvalidJournal, JournalBusy, JournalError, OutriderError

__all__ = ["check_file", "damaged", "open_file", "told"]

RETRY_S = 0.005

SETTINGS = (
    "foreign_keys = ON",
    "recursive_triggers = ON",  # INSERT OR REPLACE must not slip past the triggers
    "synchronous = FULL",
    "fullfsync = ON",  # on macOS only this reaches the disk
    "checkpoint_fullfsync = ON",
    "secure_delete = ON",  # what is forgotten is overwritten
    "trusted_schema = OFF",
    "cell_size_check = ON",
)
# What SQLite says when there is no room: FULL for a full disk, the others for a quota or a file limit.
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_FSYNC)


def open_file(path: Path, busy_s: float) -> sqlite3.Connection:
    """A connection to the journal at `path`, made if there is none. Raises JournalError, DiskFull; keeps what is there.

    Several processes may do so at the same time; `busy_s` is how long each waits for the others.
    """
    _create(path)
    with told(path):
        db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            db.execute("BEGIN")  # one state of the file, though others may be making it
            version = _version(db, path)
            db.execute("COMMIT")
            if version < len(MIGRATIONS):
                _migrate(db, path)
            path.chmod(0o600)
            _enter_wal(db, busy_s)
            for setting in SETTINGS:
                db.execute(f"PRAGMA {setting}")
            check_file(db, path)
        except BaseException:
            db.close()
            raise
    return db


def _create(path: Path) -> None:
    """An empty file that only its owner may read, if there is none.

    Raises InvalidJournal for remains that SQLite would take for an empty file, and then throw the log beside it away.
    """
    log = path.with_name(path.name + "-wal")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        size = path.stat().st_size
        is_torn = size == 1 or (size == 0 and log.exists() and log.stat().st_size > 0)
    except OSError as error:
        raise JournalError(
            f"{path} cannot be opened ({error.strerror}); check its folder or set OUTRIDER_HOME"
        ) from None
    if is_torn:
        raise damaged(path)


def _version(db: sqlite3.Connection, path: Path) -> int:
    """0 for an empty file. Raises InvalidJournal for one that is none of ours, or newer than this program."""
    [application_id] = db.execute("PRAGMA application_id").fetchone()
    [version] = db.execute("PRAGMA user_version").fetchone()
    [num_tables] = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != APPLICATION_ID and (application_id, version, num_tables) != (0, 0, 0):
        raise InvalidJournal(f"{path} belongs to another program; give the journal another place")
    if version > len(MIGRATIONS):
        raise InvalidJournal(f"{path} was written by a newer version; update Outrider")
    return int(version)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """All steps or none: a crash leaves the old version."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for number in range(_version(db, path), len(MIGRATIONS)):  # asked again: another process may have been first
            for statement in MIGRATIONS[number]:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _enter_wal(db: sqlite3.Connection, busy_s: float) -> None:
    """For this one change SQLite does not wait for others by itself."""
    deadline_s = time.monotonic() + busy_s
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline_s:
                raise
            time.sleep(RETRY_S)


def check_file(db: sqlite3.Connection, path: Path) -> None:
    """Raises InvalidJournal for a file whose pages, indexes or references contradict each other."""
    [found] = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok" or db.execute("PRAGMA foreign_key_check").fetchone():
        raise damaged(path)


def damaged(path: Path) -> InvalidJournal:
    return InvalidJournal(
        f"{path} is damaged and was left as it is; restore it from a copy, or move it and its -wal away to begin anew"
    )


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except UnicodeDecodeError:
        raise damaged(path) from None
    except sqlite3.Error as error:
        raise _translated(error, path) from None


def _translated(error: sqlite3.Error, path: Path) -> OutriderError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    primary = _primary(error)
    if code in NO_ROOM or primary == sqlite3.SQLITE_FULL:
        return DiskFull(f"the disk of {path} takes no more; free some space, what is in the journal is safe")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JournalBusy(f"another process keeps {path} locked; try again, or end it")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path)
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return JournalError(f"the journal refuses this: {error}; read the generation again and go on from there")
    return JournalError(f"{path} cannot be used ({error}); check the disk and the file's permissions")


def _primary(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
