"""Who is writing a generation now: one process, or nobody. The system takes a lease back when its holder dies.

A generation without an end is being written, or was cut short; only this tells which. Knows no tables.
"""

from pathlib import Path

from filelock import FileLock, Timeout

from outrider.errors import JournalBusy

__all__ = ["Lease"]


class Lease:
    """Of one generation of the journal at `path`. Raises JournalBusy when it is taken."""

    def __init__(self, path: Path, number: int) -> None:
        folder = path.with_name(path.name + "-leases")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self._lock = FileLock(folder / str(number), timeout=0, thread_local=False)
            self._lock.acquire()
        except (Timeout, OSError):
            raise JournalBusy(f"generation {number} is being written just now; wait for its end") from None

    def release(self) -> None:
        """Safe to call twice."""
        self._lock.release(force=True)
