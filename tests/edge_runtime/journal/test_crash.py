"""A journal whose writer is killed, whose disk is full, whose bytes are torn or changed: nothing verified is lost."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_runtime.journal import Asked, Generation, Journal
from outrider.errors import DiskFull, InvalidJournal, JournalError
from tests.edge_runtime.journal.writer import PROMPT, Writer

NUM_KILLS = 200
SEED = 11


def sync(journal: Journal) -> None:
    """What reconciling does: the target confirms some, differs once, and goes on to the end."""
    chance = random.Random(SEED)
    for generation in journal.pending():
        record = journal.resume(generation.id)
        position = chance.randint(generation.frontier, generation.end)
        record.confirm(position)
        record.retract(position)
        record.append_verified(position, [1, 2, 3])
    for generation in journal.unfinished():
        journal.resume(generation.id).finish("stop")


def test_killed_at_random_moments_it_opens_and_loses_nothing(tmp_path: Path) -> None:
    """kill -9, 200 times: what was acknowledged is there; at most the one step in flight is there as well."""
    print("seed", SEED)
    path, pipe = tmp_path / "journal.sqlite", tmp_path / "pipe"
    os.mkfifo(pipe)
    chance = random.Random(SEED)
    verified: dict[int, list[int]] = {}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.edge_runtime.journal.writer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin
    assert server.stdout
    with server:
        for seed in range(NUM_KILLS):
            server.stdin.write(f"{path} {pipe} {seed}\n".encode())
            server.stdin.flush()
            with pipe.open("rb", buffering=0) as said:
                child = int(server.stdout.readline())
                num_heard = chance.choice([0, 0, 1, 2, 4, 8])  # 0: while it opens the journal, too
                heard = b""
                while heard.count(b".") < num_heard:
                    piece = said.read(1)
                    assert piece, "the writer ended by itself"
                    heard += piece
                threading.Event().wait(chance.uniform(0, 0.02))  # what moment this is, is up to chance
                os.kill(child, signal.SIGKILL)
                heard += said.read()
            assert server.stdout.readline() == b"ended\n"
            number, _, acknowledged = heard.decode().partition(" ")
            with Journal(path) as journal:
                for generation in journal.unfinished():
                    assert generation.asked.prompt_ids == PROMPT
                    if str(generation.id) == number:
                        assert_state_after(generation, seed, len(acknowledged))
                    verified[generation.id] = generation.token_ids[: generation.num_verified]
                if seed % 10 == 9:
                    sync(journal)
                    assert not journal.pending()
                    assert not journal.unfinished()
        server.stdin.close()
    with Journal(path) as journal:
        journal.check_integrity()
        for number, token_ids in verified.items():
            assert journal.generation(number).token_ids[: len(token_ids)] == token_ids


def assert_state_after(generation: Generation, seed: int, num_steps: int) -> None:
    writer = Writer(seed)
    for _ in range(num_steps):
        writer.step()
    if not writer.model.matches(generation):
        writer.step()
        assert writer.model.matches(generation), f"seed {seed}, {num_steps} steps"


@contextmanager
def no_room(num_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_at_every_write_keeps_the_old_state_and_the_next_write_brings_all(tmp_path: Path) -> None:
    """The N-th byte finds no room, for N over the whole growth of the log."""
    refused = 0
    for room in range(0, 40_000, 900):
        with Journal(tmp_path / f"{room}.sqlite") as journal:
            record = journal.begin(Asked(PROMPT, 100))
            record.append_verified(3, [1, 2])
            log = Path(f"{journal.path}-wal").stat().st_size
            streamed, kept = [1, 2], [1, 2]
            with no_room(log + room):
                for token_id in range(10, 20):
                    streamed.append(token_id)
                    try:
                        record.append_verified(2 + len(streamed), [token_id])
                    except DiskFull:
                        refused += 1
                    else:
                        kept = streamed.copy()
                    assert journal.generation(record.id).token_ids == kept
            record.append_verified(3 + len(streamed), [99])
            assert journal.generation(record.id).token_ids == [*streamed, 99]
            journal.check_integrity()
    assert refused > 50


def test_a_full_disk_while_it_is_made_leaves_nothing_that_cannot_be_opened(tmp_path: Path) -> None:
    refused = 0
    for room in range(0, 40_000, 1500):
        path = tmp_path / f"{room}.sqlite"
        with no_room(room):
            try:
                with Journal(path) as journal:
                    journal.begin(Asked(PROMPT, 100))
            except DiskFull:
                refused += 1
        with Journal(path) as journal:
            journal.check_integrity()
            assert len(journal.unfinished()) <= 1
    assert refused > 5


def written(path: Path) -> tuple[list[Generation], bytes]:
    with Journal(path) as journal:
        for number in range(3):
            record = journal.begin(Asked(PROMPT, 100, messages=[{"role": "user", "content": "a secret"}]), "talk")
            record.append_verified(3, [number, 300, 70_000])
            record.append_provisional(6, [2**31])
        record.retract(6)
        record.finish("stop")
        generations = journal.generations("talk")
    return generations, path.read_bytes()


def test_a_changed_byte_is_noticed_or_does_not_matter(tmp_path: Path) -> None:
    """Bytes that say something, in turn; what is read is the truth, or a typed error, never a crash."""
    path = tmp_path / "journal.sqlite"
    truth, data = written(path)
    chance = random.Random(SEED)
    print("seed", SEED)
    told: list[str] = []
    is_kept = True
    places = chance.sample([place for place, value in enumerate(data) if value or place % 97 == 0], 1000)
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            with Journal(path) as journal:
                assert journal.generations("talk") == truth, place
        except JournalError as error:
            told.append(str(error))
            is_kept = is_kept and path.read_bytes() == bytes(changed)
        for log in (f"{path}-wal", f"{path}-shm"):
            Path(log).unlink(missing_ok=True)
    assert len(told) > len(places) / 3
    assert not any("a secret" in sentence for sentence in told)
    assert is_kept, "a damaged file is left as it is"


def test_a_truncated_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    truth, data = written(path)
    for length in [*range(1, 200), *range(200, len(data), 371)]:
        path.write_bytes(data[:length])
        with pytest.raises(JournalError, match="move"), Journal(path) as journal:
            journal.check_integrity()
        assert path.read_bytes() == data[:length]
    path.write_bytes(data)
    with Journal(path) as journal:
        assert journal.generations("talk") == truth


def test_a_torn_log_ends_at_a_commit(tmp_path: Path) -> None:
    """As a power cut leaves it, cut anywhere: a state that was committed, verified tokens in order."""
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        record = journal.begin(Asked(PROMPT, 100))
        states = [journal.generation(record.id).token_ids]
        lengths = [Path(f"{path}-wal").stat().st_size]
        for token_id in range(8):
            record.append_verified(3 + token_id, [token_id])
            states.append(journal.generation(record.id).token_ids)
            lengths.append(Path(f"{path}-wal").stat().st_size)
        data, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    torn = tmp_path / "torn.sqlite"
    for length in range(lengths[0], len(log) + 1, 257):
        torn.write_bytes(data)
        Path(f"{torn}-wal").write_bytes(log[:length])
        Path(f"{torn}-shm").unlink(missing_ok=True)
        with Journal(torn) as journal:
            journal.check_integrity()
            committed = sum(length >= end for end in lengths) - 1
            assert journal.generation(1).token_ids == states[committed]


def test_an_emptied_file_beside_its_log_is_not_begun_anew(tmp_path: Path) -> None:
    """SQLite would take it for a new one and throw the log away."""
    path, log = tmp_path / "journal.sqlite", tmp_path / "journal.sqlite-wal"
    for empty in (True, False):
        if empty:
            path.write_bytes(b"")
        else:
            path.unlink()
        log.write_bytes(b"what is left")
        with pytest.raises(InvalidJournal, match="its -wal away"):
            Journal(path)
        assert log.read_bytes() == b"what is left"
