"""What the journal holds, what the file itself forbids, and what becomes of files that are not right."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.journal import Asked, Generation, Journal, Record, file, schema
from outrider import errors
from outrider.choice import SamplingParams
from outrider.errors import InvalidJournal, JournalBusy, JournalError
from tests.edge_runtime.journal.writer import PROMPT, Writer
from tests.warm import Forked

ASKED = Asked(
    prompt_ids=[7, 8, 9],
    max_tokens=50,
    params=SamplingParams(temperature=0.8, seed=2**63 - 1),
    stop_ids=[1],
    target="aa",
    vocabulary="bb",
    messages=[{"role": "user", "content": "the canary sings"}],
)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite")


def state(journal: Journal, record: Record) -> tuple[list[int], int, str | None]:
    found = journal.generation(record.id)
    return found.token_ids, found.num_verified, found.finish


def test_a_generation_comes_back_as_it_was(journal: Journal) -> None:
    record = journal.begin(ASKED, "talk")
    record.append_verified(3, [10, 2**32 - 1])
    record.append_provisional(5, [12, 13])
    journal.close()
    with Journal(journal.path) as again:
        found = again.generation(record.id)
        assert found.asked == ASKED
        assert (found.conversation, found.token_ids, found.num_verified) == ("talk", [10, 2**32 - 1, 12, 13], 2)
        assert (found.frontier, found.end, found.finish) == (5, 7, None)
        again.resume(record.id).append_provisional(7, [14])
        assert again.generation(record.id).end == 8


def test_offline_then_confirmed(journal: Journal) -> None:
    record = journal.begin(ASKED)
    record.append_provisional(3, [10, 11, 12])
    record.finish("length")
    assert [one.id for one in journal.pending()] == [record.id]
    record.confirm(5)
    record.confirm(6)
    assert state(journal, record) == ([10, 11, 12], 3, None)  # the drafter's end, not the target's
    assert not journal.pending()
    record.append_verified(6, [13])
    record.finish("stop")
    assert state(journal, record) == ([10, 11, 12, 13], 4, "stop")
    assert not journal.unfinished()


def test_offline_then_retracted_once_and_continued(journal: Journal) -> None:
    record = journal.begin(ASKED)
    record.append_provisional(3, [10, 11, 12])
    record.finish("stop")
    record.confirm(4)
    record.retract(4)
    assert state(journal, record) == ([10], 1, None)
    assert [one.id for one in journal.unfinished()] == [record.id]
    record.append_verified(4, [20, 21])
    record.finish("stop")
    assert state(journal, record) == ([10, 20, 21], 3, "stop")


def test_what_was_stopped_gets_no_longer_whatever_is_retracted(journal: Journal) -> None:
    record = journal.begin(ASKED, "one")
    record.append_verified(3, [10])
    record.append_provisional(4, [11, 12])
    assert journal.generation(record.id).max_tokens == ASKED.max_tokens
    journal.stop("one")
    assert state(journal, record) == ([10, 11, 12], 1, "stopped")
    record.retract(4)
    with Journal(journal.path) as later:  # as after a crash
        [left] = later.unfinished()
        assert (left.token_ids, left.max_tokens) == ([10], 3)
    journal.forget("one")
    journal.check_integrity()


def test_what_was_stopped_before_its_first_token_has_no_length(journal: Journal) -> None:
    record = journal.begin(ASKED, "one")
    journal.stop("one")
    assert state(journal, record) == ([], 0, "stopped")
    assert not journal.unfinished()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), num_steps=st.integers(0, 30))
def test_any_order_of_writes_gives_what_a_list_would(
    tmp_path_factory: pytest.TempPathFactory, seed: int, num_steps: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "property.sqlite"
    with Journal(path) as journal:
        record = journal.begin(Asked(PROMPT, 100))
        writer = Writer(seed, record)
        for _ in range(num_steps):
            writer.step()
        assert writer.model.matches(journal.generation(record.id))


def test_refused_writes_change_nothing(journal: Journal) -> None:
    record = journal.begin(ASKED)
    record.append_verified(3, [10, 11])
    record.append_provisional(5, [12])
    for write in (
        lambda: record.append_verified(5, [99]),  # overwrites a provisional token
        lambda: record.append_verified(3, [99]),  # overwrites a verified one
        lambda: record.append_verified(6, [99]),  # right of a provisional one
        lambda: record.append_provisional(4, [99]),
        lambda: record.append_provisional(7, [99]),  # leaves a gap
        lambda: record.append_provisional(6, [1, 2**32]),  # no token id
        lambda: record.append_provisional(6, [1, -1]),
        lambda: record.retract(4),
        lambda: record.retract(0),
        lambda: record.confirm(7),
    ):
        with pytest.raises(JournalError, match="; "):
            write()
        assert state(journal, record) == ([10, 11, 12], 2, None)
    record.append_provisional(6, [13])  # a refused write is not tried again with the next
    assert state(journal, record) == ([10, 11, 12, 13], 2, None)
    record.finish("stop")
    for write in (lambda: record.append_provisional(7, [1]), lambda: record.finish("length")):
        with pytest.raises(JournalError, match="finish"):
            write()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE token SET token_id = 1 WHERE position = 3", "never changes"),
        ("UPDATE token SET is_verified = 0 WHERE position = 3", "never changes"),
        ("UPDATE token SET checksum = 0 WHERE position = 3", "never changes"),
        ("UPDATE token SET token_id = 1 WHERE position = 5", "only turns"),
        ("UPDATE token SET token_id = 1, is_verified = 1 WHERE position = 5", "only turns"),
        ("UPDATE token SET is_verified = 1 WHERE position = 6", "follows verified"),
        ("DELETE FROM token WHERE position = 4", "never retracted"),
        ("DELETE FROM token WHERE position = 5", "from the end"),
        ("DELETE FROM token", "never retracted"),
        ("INSERT INTO token VALUES (1, 4, 1, 1, 0)", "in order"),
        ("INSERT OR REPLACE INTO token VALUES (1, 4, 1, 1, 0)", "in order"),
        ("INSERT INTO token VALUES (1, 9, 1, 0, 0)", "in order"),
        ("INSERT INTO token VALUES (1, 7, 1, 1, 0)", "follows verified"),
        ("INSERT INTO token VALUES (2, 7, 1, 1, 0)", "not in the journal"),
        ("INSERT INTO token VALUES (1, 7, 4294967296, 0, 0)", "CHECK"),
        ("UPDATE generation SET request = '{}'", "never changes"),
        ("UPDATE generation SET start = 1", "never changes"),
        ("UPDATE generation SET id = 7", "never changes"),
    ],
)
def test_the_file_itself_forbids_it_to_any_program(journal: Journal, statement: str, reason: str) -> None:
    record = journal.begin(ASKED)
    record.append_verified(3, [10, 11])
    record.append_provisional(5, [12, 13])
    stranger = sqlite3.connect(journal.path)
    with pytest.raises(sqlite3.IntegrityError, match=reason):
        stranger.execute(statement)
    stranger.close()
    assert state(journal, record) == ([10, 11, 12, 13], 2, None)


def test_a_finish_stands_once_all_is_verified(journal: Journal) -> None:
    record = journal.begin(ASKED)
    record.append_verified(3, [10])
    record.finish("stop")
    stranger = sqlite3.connect(journal.path)
    with pytest.raises(sqlite3.IntegrityError, match="finishes once"):
        stranger.execute("UPDATE generation SET finish = NULL")
    stranger.close()


def test_conversations_are_listed_and_their_texts(journal: Journal) -> None:
    first = journal.begin(ASKED, "one")
    first.append_verified(3, [10])
    first.finish("stop")
    journal.begin(ASKED, "one").append_provisional(3, [11, 12])
    journal.begin(Asked([4], 9, vocabulary="other")).append_verified(1, [5])
    one, other = journal.conversations()
    assert (one.name, one.num_generations, one.num_unfinished, one.num_provisional) == ("one", 2, 1, 2)
    assert (other.num_generations, other.num_unfinished, other.num_provisional) == (1, 1, 0)
    assert other.name != "one"
    assert journal.texts("bb") == [[7, 8, 9, 11, 12], [7, 8, 9, 10]]
    assert [found.token_ids for found in journal.generations("one")] == [[10], [11, 12]]


def test_what_is_forgotten_is_gone_from_the_disk_too(journal: Journal) -> None:
    record = journal.begin(ASKED, "one")
    record.append_verified(3, [10])
    kept = journal.begin(Asked([4], 9), "two")
    files = list(journal.path.parent.glob("journal.sqlite*"))
    assert any(b"canary" in each.read_bytes() for each in files)
    journal.forget("one")
    journal.forget("never was")
    assert [one.name for one in journal.conversations()] == ["two"]
    assert not any(b"canary" in each.read_bytes() for each in files)
    with pytest.raises(JournalError, match="not in the journal"):
        record.append_verified(4, [11])
    with pytest.raises(JournalError, match="not in the journal"):
        record.finish("stop")
    with pytest.raises(JournalError, match="no generation"):
        journal.resume(record.id)
    assert journal.begin(Asked([4], 9)).id > kept.id  # no number is used twice
    journal.check_integrity()


@pytest.mark.skipif(sys.platform == "win32", reason="file modes")
def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Journal(tmp_path / "new" / "journal.sqlite") as journal:
            journal.begin(ASKED)
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in journal.path.parent.iterdir()}
        assert modes == dict.fromkeys(("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"), 0o600)
        journal.path.chmod(0o644)
        with Journal(journal.path):
            assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_no_prompt_in_what_may_be_logged(journal: Journal) -> None:
    found: Generation = journal.generation(journal.begin(ASKED).id)
    assert "canary" not in repr(found)
    assert "[7, 8, 9]" not in repr(found)


def test_another_programs_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE precious (value)")
    other.commit()
    other.close()
    text = tmp_path / "text"
    text.write_bytes(b"Dear diary, " * 1000)
    for each, reason in ((path, "another program"), (text, "damaged")):
        before = each.read_bytes()
        with pytest.raises(InvalidJournal, match=reason):
            Journal(each)
        assert each.read_bytes() == before
    with pytest.raises(JournalError, match="check"):
        Journal(tmp_path)
    with pytest.raises(JournalError, match="check its folder"):
        Journal(text / "journal.sqlite")


def test_a_newer_version_is_refused_and_an_older_one_brought_up_to_date(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = journal.begin(ASKED)
    record.append_verified(3, [10])
    journal.close()
    steps = (*schema.MIGRATIONS, ("CREATE TABLE note (text TEXT)", "INSERT INTO note VALUES ('kept')"))
    broken = (*schema.MIGRATIONS, ("CREATE TABLE note (text TEXT)", "INSERT INTO nowhere VALUES (1)"))
    monkeypatch.setattr(file, "MIGRATIONS", broken)
    with pytest.raises(JournalError):
        Journal(journal.path)
    monkeypatch.setattr(file, "MIGRATIONS", steps)  # the broken step left nothing behind
    for _ in range(2):
        with Journal(journal.path) as newer:
            assert newer.generation(record.id).token_ids == [10]
    monkeypatch.undo()
    before = journal.path.read_bytes()
    with pytest.raises(InvalidJournal, match="newer"):
        Journal(journal.path)
    assert journal.path.read_bytes() == before


def test_threads_and_a_second_connection_write_at_once(journal: Journal) -> None:
    def write(own: Journal, seed: int) -> None:
        record = own.begin(Asked(PROMPT, 100), str(seed))
        writer = Writer(seed, record)
        for _ in range(40):
            writer.step()
        assert writer.model.matches(own.generation(record.id))
        done.append(seed)

    done: list[int] = []
    with Journal(journal.path, busy_s=60) as other:
        threads = [threading.Thread(target=write, args=(own, n)) for n, own in enumerate((journal, journal, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(done) == [0, 1, 2]
    journal.check_integrity()


def test_processes_make_and_write_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    program = "tests.edge_runtime.journal.writer"
    processes = [Forked([program, str(path)], stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        assert process.stdin
        process.stdin.write(b"x")  # all are up and start together
        process.stdin.close()
    assert [process.wait() for process in processes] == [0, 0, 0]
    with Journal(path) as journal:
        journal.check_integrity()
        assert len(journal.conversations()) == 9


def test_a_locked_file_is_told_and_the_write_is_made_up_for(journal: Journal) -> None:
    with Journal(journal.path, busy_s=0.01) as impatient:
        record = impatient.begin(ASKED)
        stranger = sqlite3.connect(journal.path, isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalBusy, match="try again"):
            record.append_verified(3, [10])
        stranger.execute("COMMIT")
        stranger.close()
        record.append_verified(4, [11])
        assert impatient.generation(record.id).token_ids == [10, 11]


def test_every_error_of_sqlite_is_told_as_ours() -> None:
    codes = [value for name, value in vars(sqlite3).items() if name.startswith("SQLITE_") and isinstance(value, int)]
    kinds = [kind for kind in vars(sqlite3).values() if isinstance(kind, type) and issubclass(kind, sqlite3.Error)]
    assert len(codes) > 50
    for kind in kinds:
        for code in codes:
            error = kind("as SQLite says it")
            error.sqlite_errorcode = code
            with pytest.raises(errors.OutriderError, match="; "), file.told(Path("journal.sqlite")):
                raise error
    with pytest.raises(JournalError), file.told(Path("journal.sqlite")):
        raise sqlite3.ProgrammingError("without a code")
    closed = Journal()
    closed.close()
    closed.close()
    with pytest.raises(JournalError, match="closed"):
        closed.pending()
