"""Who writes a generation: one at a time, and what is told when that cannot be known."""

import asyncio
from pathlib import Path

import pytest

from edge_runtime.journal import Asked, Journal, Lease, Scribe
from outrider.errors import JournalBusy, JournalError
from tests.edge_runtime.journal.writer import PROMPT


def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    first = Lease(tmp_path / "journal", 1)
    with pytest.raises(JournalBusy, match="generation 1 is being written just now"):
        Lease(tmp_path / "journal", 1)
    Lease(tmp_path / "journal", 2).release()
    first.release()
    first.release()
    Lease(tmp_path / "journal", 1).release()
    assert not list((tmp_path / "journal-leases").iterdir())


def test_a_folder_that_cannot_be_had_is_no_other_writer(tmp_path: Path) -> None:
    (tmp_path / "journal-leases").write_text("")
    with pytest.raises(JournalError, match="cannot be written") as told:
        Lease(tmp_path / "journal", 1)
    assert not isinstance(told.value, JournalBusy)


def test_what_cannot_be_leased_is_answered_and_not_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    (tmp_path / "journal-leases").write_text("")
    scribe = asyncio.run(Scribe.begin(journal, Asked(PROMPT, 32), None))
    assert isinstance(scribe.not_kept, JournalError)
    assert journal.unfinished() == []
    scribe.close()
    journal.close()
