"""Who is writing a generation now: one process, or nobody. The system takes a lease back when its holder dies.

A generation without an end is being written, or was cut short; only this tells which. Knows no tables.
"""

from contextlib import ExitStack
from pathlib import Path

from outrider.errors import JournalBusy, JournalError
from outrider.lock import one_process

__all__ = ["Lease"]


class Lease:
    """Of one generation of the journal at `path`. Raises JournalBusy while it is taken, else JournalError."""

    def __init__(self, path: Path, number: int) -> None:
        folder = path.with_name(path.name + "-leases")
        taken = JournalBusy(f"generation {number} is being written just now; wait for its end")
        self._held = ExitStack()
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self._held.enter_context(one_process(folder / str(number), taken))
        except OSError as error:
            raise JournalError(
                f"{folder} cannot be written ({error.strerror}); make room there, or let this user write"
            ) from None

    def release(self) -> None:
        """Safe to call twice."""
        self._held.close()
