"""A journal whose writer is killed, whose disk is full, whose bytes are torn or changed: nothing verified is lost."""

import asyncio
import math
import os
import random
import resource
import signal
import sqlite3
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from edge_runtime.ahead import AheadPace
from edge_runtime.answer import Answering, Piece, tell
from edge_runtime.events import Finished, Token
from edge_runtime.journal import Asked, Generation, Journal, Scribe
from edge_runtime.links import WebSocketLink
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider.errors import DiskFull, InvalidJournal, JournalError
from tests.cloud_verifier.test_verifier import SAMPLED, target_alone
from tests.edge_runtime.device import OTHER, TARGET, Device, drafter_of, toy_codec
from tests.edge_runtime.device_process import ASKED, NUM_TOKENS
from tests.edge_runtime.journal.writer import PROMPT
from tests.edge_runtime.test_offline import SlowEngine, drafter_alone, unused_port
from tests.edge_runtime.test_session import toy_loop
from tests.serving import serving
from tests.warm import Forked

NUM_KILLS = 200
SEED = 11


class Devices:
    """Processes that answer, one at a time; see `tests/edge_runtime/device_process.py`."""

    def __init__(self, folder: Path) -> None:
        self._path, self._pipe = folder / "journal.sqlite", folder / "pipe"
        os.mkfifo(self._pipe)
        program = ["tests.edge_runtime.device_process", str(folder / "model")]
        self._server = Forked(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._server:
            pass

    def run(self, url: str, number: int, seed: int, num_heard: float = math.inf, wait_s: float = 0) -> list[str]:
        """What a device said until it was killed, `wait_s` after `num_heard` events, or until its end."""
        stdin, stdout = self._server.stdin, self._server.stdout
        assert stdin
        assert stdout
        stdin.write(f"{self._path} {self._pipe} {url} {number} {seed}\n".encode())
        stdin.flush()
        with self._pipe.open("rb", buffering=0) as said:
            child = int(stdout.readline())
            heard = piece = b""
            while heard.count(b" ") < num_heard and (piece := said.read(1)):
                heard += piece
            threading.Event().wait(wait_s)  # what moment this is, is up to chance
            os.kill(child, signal.SIGKILL)
            heard += said.read()
        assert int(stdout.readline()) == -signal.SIGKILL
        return heard.decode().split()


async def end(folder: Path, url: str) -> None:
    """One device resumes what the killed ones left."""
    with Journal(folder / "journal.sqlite") as journal:
        async with aclosing(Device(url, toy_codec(folder / "own"), drafter_of(OTHER), journal)) as device:
            for device.number in {each.id for each in [*journal.unfinished(), *journal.pending()]}:
                await device.resume()
                await device.take(10_000, 60)
                assert device.screen.finished


def test_a_device_killed_at_random_moments_loses_nothing_and_ends_in_the_target_s_answer(tmp_path: Path) -> None:
    """kill -9, 200 times, of devices that draft for a verifier, answer without one, and have that put right.

    What the app heard as verified stands in the journal, and is the target's; the rest there is the drafter's own.
    """
    print("seed", SEED)
    chance = random.Random(SEED)
    want = target_alone(num_tokens=NUM_TOKENS)
    alone = {seed: drafter_alone(seed, SAMPLED, NUM_TOKENS) for seed in (TARGET, OTHER)}
    offline = f"http://127.0.0.1:{unused_port()}"
    num_killed: Counter[str] = Counter()
    waiting: dict[int, Generation] = {}
    with toy_loop(SlowEngine()) as (loop, _), serving(loop) as online, Devices(tmp_path) as devices:
        while num_killed.total() < NUM_KILLS:
            state = chance.choice(["offline", "hybrid", "reconciling"])
            fit = [each for each in waiting.values() if bool(each.provisional_ids) == (state == "reconciling")]
            before = None if state == "offline" or not fit else chance.choice(fit)
            if before is None and state == "reconciling":
                continue
            number, seed = before.id if before else 0, chance.choice([TARGET, OTHER])
            num_heard = chance.choice([0, 0, 1, 2, 4, 8])
            wait_s = chance.uniform(0, 0.004 if num_heard else 0.016)  # until it began, the journal is opened, too
            num_heard += len(before.token_ids) if before and num_heard else 0
            url = offline if state == "offline" else online
            words = devices.run(url, number, seed, num_heard, wait_s)
            num_killed[state] += words[-1:] != ["f"]  # otherwise it was over before
            number = number or int(words[0] if words else 0)
            with Journal(tmp_path / "journal.sqlite") as journal:
                waiting.pop(number, None)
                changed = [journal.generation(number)] if number else journal.unfinished()
                waiting |= {each.id: each for each in changed if each.provisional_ids or not each.finish}
                for found in changed if number else []:
                    assert found.verified_ids == want[: found.num_verified]
                    assert found.num_verified >= sum(word[0] == "v" for word in words)
                    assert found.num_verified >= (before.num_verified if before else 0)
                    if state == "offline":
                        assert found.token_ids == alone[seed][: len(found.token_ids)]
        print(num_killed)
        asyncio.run(end(tmp_path, online))
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.check_integrity()
        finished = [found for each in journal.conversations() for found in journal.generations(each.name)]
    assert all(found.verified_ids == want and found.finish for found in finished)
    assert min(num_killed.values()) > NUM_KILLS / 10


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


@pytest.mark.parametrize("is_freed", [True, False], ids=["freed in time", "full to the end"])
def test_a_disk_that_fills_up_in_the_middle_of_an_answer(is_freed: bool, tmp_path: Path) -> None:
    """The answer goes on; what could not be written is told, and made up for when there is room."""
    want = target_alone(num_tokens=24)
    codec = toy_codec(tmp_path / "model")
    request = GenerationRequest(ASKED.prompt_ids, len(want), SAMPLED)

    async def answer(scribe: Scribe, request: GenerationRequest, url: str) -> AsyncIterator[Answering]:
        with ThreadPoolExecutor(1) as executor, closing(scribe):
            session = Session(WebSocketLink(url), None, AheadPace(), executor)
            async with aclosing(tell(session, request, codec, [], scribe)) as events:
                async for event in events:
                    yield event

    async def main(journal: Journal, url: str) -> tuple[list[int], Finished]:
        log = Path(f"{journal.path}-wal")
        scribe, heard = await Scribe.begin(journal, ASKED, None), list[int]()
        with ExitStack() as disk:
            async for event in answer(scribe, request, url):
                if isinstance(event, Finished):
                    return heard, event
                assert isinstance(event, Piece)
                assert event.token
                heard.append(event.token.token_id)
                if len(heard) == 10:
                    disk.enter_context(no_room(log.stat().st_size))  # noqa: ASYNC240  it is done at once
                if len(heard) == 20 and is_freed:
                    disk.close()
        raise AssertionError

    async def resume(journal: Journal, number: int, url: str) -> Finished:
        scribe, found = await Scribe.resume(journal, number)
        *_, last = [event async for event in answer(scribe, replace(request, verified_ids=found.verified_ids), url)]
        assert isinstance(last, Finished)
        return last

    with toy_loop() as (loop, _), serving(loop) as url, Journal(tmp_path / "journal.sqlite") as journal:
        heard, finished = asyncio.run(main(journal, url))
        assert heard == want
        [conversation] = journal.conversations()
        [found] = journal.generations(conversation.name)
        if is_freed:
            assert finished.not_kept is None
        else:
            assert isinstance(finished.not_kept, DiskFull)
            assert 10 <= found.num_verified < len(want)
            assert found.verified_ids == want[: found.num_verified]
            assert asyncio.run(resume(journal, found.id, url)).not_kept is None
        found = journal.generation(found.id)
        assert (found.verified_ids, found.provisional_ids, found.finish) == (want, [], "length")
        journal.check_integrity()


def test_a_write_that_nobody_waits_for_any_more_is_done_before_the_end(tmp_path: Path) -> None:
    """Whoever resumes the answer next must not be overtaken by it."""

    async def main(journal: Journal) -> None:
        scribe = await Scribe.begin(journal, ASKED, None)
        with closing(sqlite3.connect(journal.path, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(scribe.write([Token(len(ASKED.prompt_ids), 7, None)]))
            for _ in range(5):
                await asyncio.sleep(0)
            writing.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            assert not writing.done()
            stranger.execute("COMMIT")
        with pytest.raises(asyncio.CancelledError):
            await writing
        scribe.close()
        assert [found.token_ids for found in journal.unfinished()] == [[7]]

    with Journal(tmp_path / "journal.sqlite", busy_s=30) as journal:
        asyncio.run(main(journal))


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
    """Bytes that say something, in turn, most of them in the rows; what is read is the truth, or a typed error, never a
    crash."""
    path = tmp_path / "journal.sqlite"
    truth, data = written(path)
    chance = random.Random(SEED)
    print("seed", SEED)
    told: list[str] = []
    is_kept = True
    places = [place for place, value in enumerate(data) if value or place % 97 == 0]
    schema = data.index(b"CREATE") // 4096 * 4096  # the last page, and the fullest
    places = chance.sample([place for place in places if place < schema], 450) + chance.sample(places, 100)
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
