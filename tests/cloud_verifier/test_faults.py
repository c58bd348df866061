"""Service and device while links, verifiers and engines fail: the same tokens, each once, and nothing left behind.

After every fault: the output is the fault-free one, or a beginning of it and a typed error; positions come once and in
order; sessions, tasks and file descriptors are back where they were; the verifier's state agrees with itself.
"""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from subprocess import PIPE
from typing import Any, Self

import numpy as np
import pytest
from fastapi import WebSocket
from websockets.asyncio.server import ServerConnection, serve

import edge_runtime.links.websocket as websocket_link
import edge_runtime.retry as retry_module
from benchmarks.fault_proxy import CLEAR, FaultProxy, Toxics
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.stream import serve_stream
from cloud_verifier.telemetry import Telemetry
from cloud_verifier.verifier import Verifier
from edge_runtime.drafters import Drafter, LookupDrafter, Proposal
from edge_runtime.events import Finished, Token
from edge_runtime.links import InProcessLink, Link, WebSocketLink
from edge_runtime.request import GenerationRequest
from edge_runtime.retry import Retry, Retrying
from edge_runtime.session import Session
from outrider.choice import SamplingParams
from outrider.engines.base import Chunk, Logits
from outrider.errors import (
    BadLogits,
    EngineError,
    LinkLost,
    ModelMismatch,
    OutriderError,
    ProtocolError,
    VocabularyMismatch,
)
from outrider.framing import to_frame
from outrider.wire import SUBPROTOCOL, Down, Load, Opened, Up, Verified, encode, pack_ids
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED, make, open_message, target_alone
from tests.drafting import EagerPace, ScriptedDrafter
from tests.serving import serving_here
from tests.toy import ToyEngine
from tests.warm import Forked

NUM_TOKENS = 8
WANT = target_alone(num_tokens=NUM_TOKENS)
AT_ONCE = Retry(attempts=12, base_s=0.0, cap_s=0.0)
BOUND_S = 30.0  # against hangs


class Outcome:
    """What the user got: tokens, and the error that ended them, if one did."""

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self.finished: Finished | None = None
        self.error: OutriderError | None = None

    def must_be_whole(self, want: list[int] = WANT) -> None:
        assert self.error is None, self.error
        assert self.finished is not None
        assert self.finished.report.num_tokens == len(want)
        self.must_be_a_beginning(want)
        assert len(self.tokens) == len(want)

    def must_be_a_beginning(self, want: list[int] = WANT) -> None:
        assert [token.token_id for token in self.tokens] == want[: len(self.tokens)]
        assert [token.position for token in self.tokens] == [len(PROMPT) + n for n in range(len(self.tokens))]


def scripted(num_tokens: int = NUM_TOKENS, seed: int = 0) -> Drafter:
    script = PROMPT + target_alone(num_tokens=num_tokens)
    return ScriptedDrafter(script, accuracy=0.7, longest=6, n_vocab=16, seed=seed)


async def generate(
    link: Link, drafter: Drafter | None = None, num_tokens: int = NUM_TOKENS, *, retry: Retry = AT_ONCE, **over: float
) -> Outcome:
    outcome = Outcome()
    request = GenerationRequest(PROMPT, num_tokens, SAMPLED, vocabulary="v")
    with ThreadPoolExecutor(1) as executor:
        session = Session(link, drafter or scripted(num_tokens), EagerPace(), executor, retry=retry, **over)
        try:
            async with asyncio.timeout(BOUND_S):
                async for event in session.generate(request):
                    if isinstance(event, Finished):
                        outcome.finished = event
                    else:
                        outcome.tokens.append(event)
        except OutriderError as error:
            outcome.error = error
    return outcome


def num_descriptors() -> int:
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


class World:
    """A verifier, its service and a proxy before it, all in this event loop, so that all tasks can be seen."""

    def __init__(self, loop: VerifierLoop, proxy: FaultProxy | None) -> None:
        self.loop, self.proxy = loop, proxy
        self._tasks = asyncio.all_tasks()
        self._descriptors = num_descriptors()

    def link(self, *, is_padded: bool = False) -> WebSocketLink:
        return WebSocketLink(f"http://127.0.0.1:{self.proxy.port}", is_padded=is_padded)

    async def settle(self) -> None:
        """Nothing is left: no session, no task, no socket. Raises AssertionError that says what stayed."""
        for _ in range(5000):
            left = {
                "sessions": self.loop.verifier.num_sessions,
                "connections": self.loop.num_connections,
                "messages": self.loop.num_waiting,
                "tasks": len(asyncio.all_tasks() - self._tasks),
                "descriptors": max(0, num_descriptors() - self._descriptors),
            }
            if not any(left.values()):
                self.loop.verifier.check_integrity()
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"left behind: {left}, {asyncio.all_tasks() - self._tasks}")


@contextlib.asynccontextmanager
async def world(engine: ToyEngine | None = None) -> AsyncIterator[World]:
    loop = VerifierLoop(make(engine))
    try:
        async with serving_here(loop) as port, FaultProxy(port) as proxy:
            yield World(loop, proxy)
    finally:
        loop.close()


def first_only(toxics: Toxics) -> Callable[[int], Toxics]:
    return lambda number: toxics if number == 0 else CLEAR


# The link


CUT_TOKENS = 5  # in three passes, of four drafts two accepted
CUT_WANT = target_alone(num_tokens=CUT_TOKENS)
TWICE = Retry(first_attempts=2, attempts=3, base_s=0.0, cap_s=0.0)
HEAD = {"up": 265, "down": 230}  # bytes of HTTP, at the least, before the first message


async def cut_at(
    world: World, way: str, at: int, *, for_good: bool, is_padded: bool, retry: Retry = AT_ONCE
) -> tuple[Outcome, int]:
    """One session, its first connection (or every one) cut after `at` bytes; how many connections were cut."""
    toxics = Toxics(limit_data=at)
    world.proxy.traffic.clear()
    world.proxy.up = world.proxy.down = lambda number: CLEAR
    setattr(world.proxy, way, (lambda number: toxics) if for_good else first_only(toxics))
    drafter = ScriptedDrafter(PROMPT + CUT_WANT, accuracy=0.7, longest=3, n_vocab=16, seed=5)
    outcome = await generate(world.link(is_padded=is_padded), drafter, CUT_TOKENS, retry=retry)
    await world.settle()
    outcome.must_be_a_beginning(CUT_WANT)
    return outcome, sum(traffic.was_cut for traffic in world.proxy.traffic)


def places(way: str, at: int, step: int) -> Iterator[int]:
    """Where to cut: every `step`th byte, but of HTTP's headers, where one is like another, every 23rd at most."""
    while True:
        yield at
        at += step if at >= HEAD[way] else max(step, 23)


# Every byte, between the test that cuts once and the one that cuts always.
at_any_byte = pytest.mark.parametrize(
    ("way", "is_padded", "step"),
    [(way, is_padded, step) for way in ("up", "down") for is_padded, step in ((False, 2), (True, 149))],
)


@at_any_byte
def test_a_link_cut_once_at_any_byte_is_not_noticed(
    way: str, is_padded: bool, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> int:
        num_resumed = 0
        async with world() as here:
            for at in places(way, 0, step):
                outcome, num_cut = await cut_at(here, way, at, for_good=False, is_padded=is_padded)
                outcome.must_be_whole(CUT_WANT)
                assert outcome.finished is not None
                report = outcome.finished.report
                num_resumed += num_cut > 0 and report.num_passes > 1 and 0 < report.num_accepted < report.num_drafted
                if not num_cut:
                    assert (report.num_drafted, report.num_accepted, report.num_passes) == (4, 2, 3)
                    assert num_resumed
                    return at
        raise AssertionError

    assert asyncio.run(run()) > 350  # that many places to cut were there, and cut
    assert not caplog.records  # nobody's traceback in the log


@at_any_byte
def test_a_link_cut_always_at_the_same_byte_ends_in_a_typed_error_or_the_whole_answer(
    way: str, is_padded: bool, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> tuple[int, int]:
        num_failed = num_slow = 0
        async with world() as here:
            for at in places(way, 1, step):
                outcome, num_cut = await cut_at(here, way, at, for_good=True, is_padded=is_padded, retry=TWICE)
                assert len(here.proxy.traffic) <= TWICE.attempts * (1 + len(outcome.tokens))
                if outcome.error is None:
                    outcome.must_be_whole(CUT_WANT)
                    num_slow += num_cut > 1
                else:
                    assert type(outcome.error) is LinkLost
                    assert outcome.tokens or len(here.proxy.traffic) == TWICE.first_attempts
                    num_failed += 1
                if not num_cut:
                    return num_failed, num_slow
        raise AssertionError

    num_failed, num_slow = asyncio.run(run())
    assert num_failed > 100 // step  # before the first token: an error;
    assert num_slow > 15 // step  # after it: a few tokens a connection, and whole in the end
    assert not caplog.records


@pytest.mark.parametrize(
    "toxics",
    [
        Toxics(latency_s=0.002),
        Toxics(jitter_s=0.004),
        Toxics(bandwidth=200_000),
        Toxics(slicer=1),
        Toxics(slicer=9, jitter_s=0.0005),
        Toxics(limit_data=300, reset_peer=True),
        Toxics(limit_data=400, reset_peer=True, slicer=7),
    ],
    ids=str,
)
def test_slow_sliced_and_reset_links_change_nothing(toxics: Toxics) -> None:
    def first_two(number: int) -> Toxics:
        return toxics if number < 2 else CLEAR

    def clear(number: int) -> Toxics:
        return CLEAR

    async def run() -> None:
        async with world() as here:
            for ways, is_padded in ((("up",), False), (("down",), True), (("up", "down"), False)):
                what = f"{toxics}, {ways}, padded: {is_padded}"
                here.proxy.traffic.clear()
                here.proxy.up, here.proxy.down = (first_two if way in ways else clear for way in ("up", "down"))
                (await generate(here.link(is_padded=is_padded))).must_be_whole()
                await here.settle()
                num_cut = sum(traffic.was_cut for traffic in here.proxy.traffic)
                assert len(here.proxy.traffic) == 1 + num_cut, what
                assert (num_cut > 0) == toxics.reset_peer, what

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(2))
def test_a_flapping_link_slows_and_breaks_nothing(seed: int) -> None:
    """Every connection is cut somewhere; each brings at least a token or counts as a failure in a row."""
    few = Retry(5, 5, 0.0, 0.0)  # fewer than connections

    async def run() -> None:
        rng = random.Random(seed)
        async with world() as here:
            limits = [rng.randrange(150, 900) for _ in range(1000)]
            here.proxy.down = lambda number: Toxics(limit_data=limits[number])
            outcome = await generate(here.link(), LookupDrafter(), num_tokens=140, retry=few)
            outcome.must_be_whole(target_alone(num_tokens=140))
            await here.settle()
            assert outcome.finished is not None
            assert few.attempts < outcome.finished.report.num_reopened == len(here.proxy.traffic) - 1

    asyncio.run(run())


class CountingLink(WebSocketLink):
    """Calls `on_message` after every message up or down, and `on_open` before every attempt, with their numbers."""

    def __init__(self, url: str, on_message: Callable[[int], None], on_open: Callable[[int], object]) -> None:
        super().__init__(url, is_padded=False)
        self.on_message, self.on_open = on_message, on_open
        self.num_messages = self.num_opened = 0

    async def open(self) -> None:
        self.num_opened += 1
        if asyncio.iscoroutine(result := self.on_open(self.num_opened)):
            await result
        await super().open()

    async def send(self, message: Up) -> None:
        await super().send(message)
        self._count()

    async def receive(self) -> Down:
        message = await super().receive()
        self._count()
        return message

    def _count(self) -> None:
        self.num_messages += 1
        self.on_message(self.num_messages)


def nothing(number: int) -> None:
    """On a message: nothing."""


@pytest.mark.parametrize("back_at", [2, 3, 4])
def test_refused_connections_are_tried_again_and_then_told(back_at: int) -> None:
    async def run() -> None:
        async with world() as here:
            await here.proxy.stop()

            async def on_open(attempt: int) -> None:
                if attempt == back_at:
                    await here.proxy.start()

            link = CountingLink(f"http://127.0.0.1:{here.proxy.port}", nothing, on_open)
            outcome = await generate(link)
            if back_at <= AT_ONCE.first_attempts:
                outcome.must_be_whole()
                assert len(here.proxy.traffic) == 1  # the verifier saw one session, once
            else:
                assert isinstance(outcome.error, LinkLost)
                assert (len(outcome.tokens), link.num_opened) == (0, AT_ONCE.first_attempts)
                await here.proxy.start()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("way", "at", "for_good"),
    [*((way, at, False) for way in ("up", "down") for at in (0, 250, 400)), ("up", 0, True), ("down", 400, True)],
)
def test_a_verifier_that_falls_silent_is_given_up_after_a_bound(
    way: str, at: int, for_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepts and never answers, from any phase on: nothing is closed, nothing is said."""
    monkeypatch.setattr(websocket_link, "CONNECT_S", 0.06)
    monkeypatch.setattr(websocket_link, "CLOSE_S", 0.02)
    hang = Toxics(limit_data=at, timeout=True)

    async def run() -> None:
        async with world() as here:
            setattr(here.proxy, way, (lambda number: hang) if for_good else first_only(hang))
            most = 2 if for_good else 10
            outcome = await generate(here.link(), retry=Retry(most, most, 0.0, 0.0), max_silence_s=0.06)
            if outcome.error is None:
                outcome.must_be_whole()
            else:
                assert for_good
                assert isinstance(outcome.error, LinkLost)
                outcome.must_be_a_beginning()
            assert 2 <= len(here.proxy.traffic) <= most * (1 + len(outcome.tokens))
            await here.proxy.stop()  # the hole swallows farewells, too, until it closes
            await here.settle()
            await here.proxy.start()

    asyncio.run(run())


def waits_of(error: OutriderError, policy: Retry, monkeypatch: pytest.MonkeyPatch, seed: int) -> list[float]:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    async def run() -> None:
        retrying = Retrying(policy)
        retrying.heard()
        with contextlib.suppress(OutriderError):
            while True:
                retrying.failed(error)
                await retrying.turn()

    random.seed(seed)
    with monkeypatch.context() as patch:
        patch.setattr(retry_module.asyncio, "sleep", note)
        asyncio.run(run())
    return waits


def test_devices_that_lost_the_same_verifier_do_not_come_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Retry()
    waits = [waits_of(LinkLost("gone"), policy, monkeypatch, seed) for seed in range(500)]
    assert {len(each) for each in waits} == {policy.attempts - 1}
    for attempt in range(policy.attempts - 1):
        bound = min(policy.cap_s, policy.base_s * 2**attempt)
        bins = np.histogram([each[attempt] for each in waits], bins=10, range=(0, bound))[0]
        assert bins.sum() == 500
        assert bins.max() <= 2 * bins.mean()


def test_what_the_verifier_asks_for_is_waited_and_not_more_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    error = LinkLost("busy")
    error.retry_after_ms = 700
    assert all(0.7 <= wait <= 2.7 for wait in waits_of(error, Retry(), monkeypatch, 0))
    error.retry_after_ms = 3_600_000
    assert all(wait <= 32 for wait in waits_of(error, Retry(), monkeypatch, 0))
    assert waits_of(error, Retry(give_up_s=-1.0), monkeypatch, 0) == []  # too late for another attempt


# The client


def test_a_client_that_vanishes_at_any_point_leaves_nothing() -> None:
    """The device's task is cancelled after k steps of its event loop, for every k until it finishes."""

    async def run() -> int:
        async with world() as here:
            for steps in itertools.count(1):
                running = asyncio.create_task(generate(here.link(), num_tokens=4))
                for _ in range(steps):
                    await asyncio.sleep(0)
                if running.done():
                    (await running).must_be_whole(WANT[:4])
                    return steps
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await here.settle()
        raise AssertionError

    assert asyncio.run(run()) > 30


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_client_s_machine_that_goes_away_frees_its_session_within_a_pass(is_reset: bool) -> None:
    """Without a word: the bytes stop and the connection ends, at every message."""

    async def run() -> None:
        async with world() as here:
            for at in range(220, 600, 20):
                here.proxy.traffic.clear()
                here.proxy.up = first_only(Toxics(limit_data=at, reset_peer=is_reset))
                passes = here.loop.verifier.num_passes
                outcome = await generate(here.link(), num_tokens=200, retry=Retry(1, 1))
                if outcome.error is None:
                    break
                await here.settle()
                assert here.loop.verifier.num_passes - passes <= len(outcome.tokens) + 2

    asyncio.run(run())


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["gone", "cancelled"])
def test_the_door_closes_behind_a_client_gone_at_any_answer(is_cancelled: bool) -> None:
    """Between the server and the door: the n-th answer cannot be sent, or the door is told to stop then."""

    async def run() -> int:
        loop = VerifierLoop(make())
        here = World(loop, None)
        for number in itertools.count(2):  # 1 is the handshake, which the server sees to
            num_sent = 0
            said = [{"type": "websocket.connect"}]
            said.append({"type": "websocket.receive", "bytes": to_frame(open_message(num_tokens=3), is_padded=False)})

            async def receive(said: list[dict[str, Any]] = said) -> dict[str, Any]:
                return said.pop(0) if said else await asyncio.Event().wait()  # type: ignore[func-returns-value]

            async def send(message: Any, number: int = number) -> None:
                nonlocal num_sent
                num_sent += 1
                if num_sent == number and is_cancelled:
                    task = asyncio.current_task()
                    assert task is not None
                    asyncio.get_running_loop().call_soon(task.cancel)  # while it waits for more to say
                elif num_sent == number:
                    raise OSError("gone")

            scope = {"type": "websocket", "subprotocols": [SUBPROTOCOL]}
            door = asyncio.create_task(serve_stream(WebSocket(scope, receive, send), loop, Telemetry(loop), ""))
            [result] = await asyncio.gather(door, return_exceptions=True)
            assert result is None or (is_cancelled and isinstance(result, asyncio.CancelledError))
            await here.settle()
            if num_sent < number:
                loop.close()
                return number
        raise AssertionError

    assert asyncio.run(run()) > 5  # accept, Opened, three tokens, close


# The service


class Zygote:
    """A process that has all imports and forks services; see tests/toy_service.py. They are killed, never asked."""

    def __init__(self, process: Forked) -> None:
        self._process = process
        self._service = 0
        self.port = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[Self]:
        process = Forked(["tests.toy_service"], stdin=PIPE, stdout=PIPE)
        zygote = cls(process)
        try:
            yield zygote
        finally:
            zygote.kill()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            await asyncio.to_thread(process.wait)
            process.stdout.close()

    async def start(self, hang_in_pass: int = 0) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self.port} {hang_in_pass}\n".encode())
        self._process.stdin.flush()
        self._service, self.port = map(int, (await self.line()).split())

    async def line(self) -> bytes:
        assert self._process.stdout is not None
        return await asyncio.wait_for(asyncio.to_thread(self._process.stdout.readline), BOUND_S)

    def kill(self) -> None:
        if self._service:
            os.kill(self._service, signal.SIGKILL)
            self._service = 0


PATIENT = Retry(first_attempts=1000, attempts=1000, base_s=0.01, cap_s=0.02)


def test_a_service_killed_after_any_message_is_not_noticed() -> None:
    async def run() -> int:
        async with Zygote.running() as zygote:
            await zygote.start()
            for number in itertools.count(1):
                killed_at: list[int] = []
                restarting: list[asyncio.Task[None]] = []

                def on_message(
                    count: int,
                    number: int = number,
                    killed_at: list[int] = killed_at,
                    restarting: list[asyncio.Task[None]] = restarting,
                ) -> None:
                    if count == number:
                        zygote.kill()
                        killed_at.append(count)
                        restarting.append(asyncio.create_task(zygote.start()))

                link = CountingLink(f"http://127.0.0.1:{zygote.port}", on_message, nothing)
                (await generate(link, retry=PATIENT)).must_be_whole()
                await asyncio.gather(*restarting)
                if not killed_at:
                    return number
        raise AssertionError

    assert asyncio.run(run()) > 10


def test_a_service_killed_inside_any_pass_is_not_noticed() -> None:
    async def run() -> None:
        async with Zygote.running() as zygote:
            for number in range(1, 6):
                await zygote.start(hang_in_pass=number)
                running = asyncio.create_task(generate(WebSocketLink(f"http://127.0.0.1:{zygote.port}"), retry=PATIENT))
                assert await zygote.line() == b"in pass\n"
                zygote.kill()
                await zygote.start()
                (await running).must_be_whole()
                zygote.kill()

    asyncio.run(run())


def test_a_session_found_idle_after_a_long_sleep_is_opened_again() -> None:
    """An hour passes between two messages: the verifier's session has ended, the device's has not."""

    async def run() -> None:
        now_s = 0.0
        verifier = Verifier(ToyEngine(), target="t", vocabulary="v", clock=lambda: now_s)
        loop = VerifierLoop(verifier)
        drafter = scripted()
        propose, num_proposed = drafter.propose, 0

        def sleepy(*args: Any) -> Proposal:
            nonlocal now_s, num_proposed
            num_proposed += 1
            if num_proposed == 3:
                sleepers = set(verifier._sessions)
                now_s += 3600
                loop.revoke("nobody")  # the verifier's thread wakes, and looks at the clock
                for _ in range(2000):
                    if not sleepers & set(verifier._sessions):
                        break
                    threading.Event().wait(0.005)
            return propose(*args)

        drafter.propose = sleepy
        try:
            outcome = await generate(InProcessLink(loop), drafter)
            outcome.must_be_whole()
            assert outcome.finished is not None
            assert outcome.finished.report.num_reopened == 1
        finally:
            loop.close()

    asyncio.run(run())


# The engine


class FailingEngine(ToyEngine):
    """The n-th call that would need memory fails, once."""

    def __init__(self, at: int, failure: type[Exception], **over: int) -> None:
        super().__init__(**over)
        self._at, self._failure = at, failure
        self.num_calls = 0

    def _call(self) -> None:
        self.num_calls += 1
        if self.num_calls == self._at:
            raise self._failure("no memory")

    def allocate(self) -> int:
        self._call()
        return super().allocate()

    def extend(self, chunks: list[Chunk]) -> list[Logits]:
        self._call()
        rows = super().extend(chunks[:1])  # part of the work is done when it fails
        self._call()
        return rows + super().extend(chunks[1:])

    def copy(self, source: int, target: int, length: int) -> None:
        super().copy(source, target, length)
        self._call()

    def truncate(self, sequence: int, length: int) -> None:
        self._call()
        super().truncate(sequence, length)


def test_an_engine_out_of_memory_at_any_call_costs_a_retry(caplog: pytest.LogCaptureFixture) -> None:
    failures = itertools.cycle([EngineError, MemoryError, RuntimeError])

    async def run() -> int:
        for at in itertools.count(1):
            engine = FailingEngine(at, next(failures), max_sequences=2, max_batch=2)
            loop = VerifierLoop(make(engine))
            outcomes = await asyncio.gather(*(generate(InProcessLink(loop), scripted(5, n), 5) for n in range(3)))
            later = await generate(InProcessLink(loop), num_tokens=5)
            loop.close()
            for outcome in [*outcomes, later]:
                outcome.must_be_whole(WANT[:5])
            assert "the verifier's thread failed" not in caplog.text
            loop.verifier.check_integrity()
            loop.verifier.cache.clear()
            assert not engine._cache  # no sequence was forgotten
            if engine.num_calls < at:
                return at
        raise AssertionError

    assert asyncio.run(run()) > 20


class OddEngine(ToyEngine):
    """Spoils the logits of one sequence, once it was told which."""

    def __init__(self, spoil: Callable[[Logits], Logits], **over: int) -> None:
        super().__init__(**over)
        self._spoil = spoil
        self.sequence: int | None = None

    def extend(self, chunks: list[Chunk]) -> list[Logits]:
        rows = super().extend(chunks)
        return [
            self._spoil(row) if chunk.sequence == self.sequence else row
            for chunk, row in zip(chunks, rows, strict=True)
        ]


def first_column(value: float) -> Callable[[Logits], Logits]:
    def spoil(logits: Logits) -> Logits:
        logits[:, 0] = value
        return logits

    return spoil


@pytest.mark.parametrize("n_vocab", [16, 8193, 10_000, 151_936])
@pytest.mark.parametrize("params", [SamplingParams(), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    "spoil",
    [
        first_column(np.nan),
        first_column(np.inf),
        lambda logits: np.full_like(logits, -np.inf),
        lambda logits: np.concatenate([logits, np.full((len(logits), 1), 1e9, np.float32)], axis=1),
        lambda logits: logits[:, :-1],
        lambda logits: logits[:-1],
        lambda logits: np.concatenate([logits, logits]),
    ],
    ids=["nan", "inf", "all -inf", "an id too many", "an id too few", "a row too few", "a row too many"],
)
def test_bad_logits_end_their_session_and_reach_nobody(
    spoil: Callable[[Logits], Logits], params: SamplingParams, n_vocab: int
) -> None:
    engine = OddEngine(spoil, n_vocab=n_vocab)
    verifier = make(engine)
    fine, odd = (verifier.open(open_message([n, 2, 3], 6, params)).session for n in range(2))
    heard: dict[str, list[Down]] = {fine: [], odd: []}
    for step in range(20):
        if step == 2:
            engine.sequence = verifier.cache._by_session[odd].sequence
        for name, message in verifier.step():
            heard[name].append(message)
        verifier.check_integrity()
    *before, fault = heard[odd]
    assert len(before) == 2
    assert fault.code == BadLogits.code
    assert not fault.may_retry
    ids = np.concatenate([np.frombuffer(message.token_ids, "<u4") for message in [*heard[fine], *before]])
    assert ids.max() < n_vocab
    assert sum(len(message.token_ids) // 4 for message in heard[fine]) == 6


# A hostile verifier


class OneGoodDraft(ScriptedDrafter):
    def propose(self, token_ids: Sequence[int], *_: object) -> Proposal:
        return Proposal(self.name, self._script[len(token_ids) : len(token_ids) + 1], [0.5])


LIMIT = len(PROMPT) + NUM_TOKENS
OPENED = Opened("s", "t", "v", 16, 512, LIMIT, 0)
FIRST = Verified(0, len(PROMPT), pack_ids(WANT[:1]), 0, 0)
NEXT = len(PROMPT) + 1
SECOND = Verified(0, NEXT, pack_ids(WANT[1:2]), 1, 1)


def frame(message: Down) -> bytes:
    return to_frame(message, is_padded=False)


LIES: dict[str, tuple[list[bytes | str], type[OutriderError]]] = {
    "another target": ([frame(Opened("s", "u", "v", 16, 512, LIMIT, 0))], ModelMismatch),
    "another vocabulary": ([frame(Opened("s", "t", "w", 16, 512, LIMIT, 0))], VocabularyMismatch),
    "a longer answer than asked for": ([frame(Opened("s", "t", "v", 16, 512, LIMIT + 1, 0))], ProtocolError),
    "verified before opened": ([frame(FIRST)], ProtocolError),
    "opened twice": ([frame(OPENED), frame(OPENED)], ProtocolError),
    "too many tokens": ([frame(OPENED), frame(Verified(0, 5, pack_ids([1] * 16), 0, 0))], ProtocolError),
    "no tokens": ([frame(OPENED), frame(Verified(0, 5, b"", 0, 0))], ProtocolError),
    "an id outside": ([frame(OPENED), frame(Verified(0, 5, pack_ids([16]), 0, 0))], ProtocolError),
    "an id of 32 bits": ([frame(OPENED), frame(Verified(0, 5, pack_ids([2**32 - 1]), 0, 0))], ProtocolError),
    "half an id": ([frame(OPENED), frame(Verified(0, 5, b"\x01\x02", 0, 0))], ProtocolError),
    "an earlier start": ([frame(OPENED), frame(Verified(0, 4, pack_ids([1]), 0, 0))], ProtocolError),
    "a later start": ([frame(OPENED), frame(Verified(0, 6, pack_ids([1]), 0, 0))], ProtocolError),
    "said twice": ([frame(OPENED), frame(FIRST), frame(FIRST)], ProtocolError),
    "drafts nobody sent": ([frame(OPENED), frame(Verified(0, 5, pack_ids([1]), 1, 1))], ProtocolError),
    "more drafts than were sent": (
        [frame(OPENED), frame(FIRST), frame(Verified(0, NEXT, pack_ids([1]), 0, 2**24))],
        ProtocolError,
    ),
    "more accepted than came": (
        [frame(OPENED), frame(FIRST), frame(Verified(0, NEXT, pack_ids([WANT[1]]), 2, 3))],
        ProtocolError,
    ),
    "accepted what was not drafted": (
        [frame(OPENED), frame(FIRST), frame(Verified(0, NEXT, pack_ids([(WANT[1] + 2) % 16]), 1, 1))],
        ProtocolError,
    ),
    "a word for its end": ([frame(OPENED), frame(Verified(0, 5, pack_ids([1]), 0, 0, "done"))], ProtocolError),
    "garbage": ([b"\xc1" * 50 + b"\x80"], ProtocolError),
    "a frame without end": ([encode(OPENED)], ProtocolError),
    "nothing": ([b""], ProtocolError),
    "text": (["hello"], ProtocolError),
    "JSON": (['{"opened": true}'], ProtocolError),
    "a nested bomb": ([b"\x91" * 100_000 + b"\x80"], ProtocolError),
    "a huge frame": ([bytes(8 * 2**20 + 1)], LinkLost),
    "silence": ([frame(OPENED)], LinkLost),
    "a load for ever": ([frame(OPENED)], LinkLost),
    "the truth, then silence, then the past": ([frame(OPENED), frame(FIRST), frame(SECOND)], ProtocolError),
    "an unknown error": ([b"\x95\x0d\xa3odd\xa3why\xc2\x00\x80"], OutriderError),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_verifier_is_refused_and_no_lie_is_shown(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_link, "CLOSE_S", 0.2)
    frames, expected = LIES[lie]

    async def tell(connection: ServerConnection) -> None:
        with contextlib.suppress(Exception):
            await connection.recv()
            for number, each in enumerate(frames):
                if number == 2:
                    await connection.recv()  # the device's drafts
                await connection.send(each)
            while lie == "a load for ever":
                await connection.send(frame(Load(0, 15)))
                await asyncio.sleep(0.005)
            await connection.wait_closed()

    async def run() -> Outcome:
        tasks = asyncio.all_tasks()
        async with serve(tell, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], compression=None) as server:
            link = WebSocketLink(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            request = GenerationRequest(PROMPT, NUM_TOKENS, SAMPLED, vocabulary="v", target="t")
            outcome = Outcome()
            drafter = OneGoodDraft(PROMPT + WANT, accuracy=1, longest=1, n_vocab=16)
            with ThreadPoolExecutor(1) as executor:
                session = Session(link, drafter, EagerPace(), executor, retry=Retry(2, 2, 0.0, 0.0), max_silence_s=0.25)
                try:
                    async with asyncio.timeout(BOUND_S):
                        async for event in session.generate(request):
                            assert isinstance(event, Token)
                            outcome.tokens.append(event)
                except OutriderError as error:
                    outcome.error = error
        assert asyncio.all_tasks() == tasks
        return outcome

    outcome = asyncio.run(run())
    assert type(outcome.error) is expected
    outcome.must_be_a_beginning()
    assert len(outcome.tokens) == sum(each in frames[1:] for each in (frame(FIRST), frame(SECOND)))
