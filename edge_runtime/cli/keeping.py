"""The journal for a command that answers: opened, or gone without."""

from edge_runtime.cli.output import console
from edge_runtime.journal import Journal
from outrider.errors import OutriderError

__all__ = ["open_journal"]


def open_journal(*, is_needed: bool) -> Journal | None:
    """One that cannot be used is no reason to withhold an answer, unless it `is_needed`: then raises JournalError."""
    try:
        return Journal()
    except OutriderError as error:
        if is_needed:
            raise
        console.print(f"outrider: nothing of this is kept: {error} [{error.code}]")
        return None
