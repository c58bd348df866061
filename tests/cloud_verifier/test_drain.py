"""SIGTERM with live sessions: they finish, or are told to go on elsewhere; nobody's output changes."""

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from subprocess import PIPE

import httpx
import pytest

from edge_runtime.drafters import Proposal
from edge_runtime.events import Finished, Token
from edge_runtime.links import WebSocketLink
from edge_runtime.pacing import Pace
from edge_runtime.request import GenerationRequest
from edge_runtime.retry import Retry
from edge_runtime.session import Session
from outrider.choice import SamplingParams
from outrider.errors import Overloaded
from tests.cloud_verifier.test_rest import PARAMS, WANT
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED
from tests.drafting import EagerPace, ScriptedDrafter
from tests.warm import Forked

NUM_TOKENS = 30
HANG_S = 60.0
PATIENT = Retry(first_attempts=50, attempts=50, base_s=0.02, cap_s=0.2)


class HeldDrafter(ScriptedDrafter):
    """Says when it was asked for the second time, and then waits until it is let go."""

    def __init__(self, seed: int) -> None:
        super().__init__(PROMPT + WANT, accuracy=0.8, longest=6, n_vocab=16, seed=seed)
        self._num_asked = 0
        self.is_held = threading.Event()
        self.go = threading.Event()

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        self._num_asked += 1
        if self._num_asked == 2:
            self.is_held.set()
            assert self.go.wait(HANG_S)
        return super().propose(token_ids, params, pace, max_drafts)


@contextlib.asynccontextmanager
async def server(port: int, grace_s: float) -> AsyncIterator[tuple[Forked, int]]:
    process = Forked(["tests.cloud_verifier.draining_server", str(port), str(grace_s)], stdout=PIPE, stderr=PIPE)
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), HANG_S))
        await readiness(port, 200)
        yield process, port
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.to_thread(process.communicate)


async def readiness(port: int, status: int) -> httpx.Response:
    """/readyz, once it says so."""
    async with httpx.AsyncClient() as client:
        end_s = time.monotonic() + HANG_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                ready = await client.get(f"http://127.0.0.1:{port}/readyz")
                if ready.status_code == status:
                    return ready
            assert time.monotonic() < end_s
            await asyncio.sleep(0.02)


async def generate(port: int, drafter: HeldDrafter) -> tuple[list[int], int]:
    """The tokens, and how often the session was opened anew."""
    tokens: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        session = Session(WebSocketLink(f"http://127.0.0.1:{port}"), drafter, EagerPace(), executor, retry=PATIENT)
        async for event in session.generate(GenerationRequest(PROMPT, NUM_TOKENS, SAMPLED)):
            if isinstance(event, Token):
                tokens.append(event.token_id)
            elif isinstance(event, Finished):
                return tokens, event.report.num_reopened
    raise AssertionError("the session ended without a word")


async def ended(process: Forked) -> tuple[int | None, list[dict[str, object]]]:
    """Exit status and log."""
    _, text = await asyncio.to_thread(process.communicate, timeout=HANG_S)
    return process.returncode, [json.loads(line) for line in text.splitlines() if line.startswith(b"{")]


def test_live_sessions_finish_or_go_on_at_a_replica() -> None:
    """20 of them: ten draft on and finish within the grace, ten are silent until the process is gone."""

    async def run() -> None:
        drafters = [HeldDrafter(seed) for seed in range(20)]
        async with server(0, 2.0) as (leaving, port):
            tasks = [asyncio.create_task(generate(port, drafter)) for drafter in drafters]
            for drafter in drafters:
                assert await asyncio.to_thread(drafter.is_held.wait, HANG_S)
            async with server(port, 2.0):
                leaving.send_signal(signal.SIGTERM)
                for drafter in drafters[:10]:
                    drafter.go.set()
                quick = await asyncio.gather(*tasks[:10])
                status, log = await ended(leaving)
                for drafter in drafters[10:]:
                    drafter.go.set()
                late = await asyncio.gather(*tasks[10:])
        assert [tokens for tokens, _ in [*quick, *late]] == [WANT[:NUM_TOKENS]] * 20
        assert [num_reopened for _, num_reopened in quick] == [0] * 10
        assert all(num_reopened >= 1 for _, num_reopened in late)
        assert status == 0
        assert [line["num_moved"] for line in log if line["event"] == "drained"] == [10]
        outcomes = [line["outcome"] for line in log if line["event"] == "session ended" and line["num_tokens"]]
        assert sorted(map(str, outcomes)) == ["length"] * 10 + ["moved"] * 10

    asyncio.run(run())


def test_while_it_drains_it_says_so_and_takes_nobody() -> None:
    async def run() -> None:
        held = HeldDrafter(1)
        async with server(0, HANG_S) as (process, port), httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{port}"
            task = asyncio.create_task(generate(port, held))
            assert await asyncio.to_thread(held.is_held.wait, HANG_S)
            process.send_signal(signal.SIGTERM)
            ready = await readiness(port, 503)
            assert int(ready.headers["retry-after"]) >= 1
            assert (await client.get(f"{url}/healthz")).status_code == 200
            refused = await client.post(f"{url}/v1/verify", json={"tokens": PROMPT, "drafts": [], "params": PARAMS})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "moved")
            with ThreadPoolExecutor(1) as executor:
                late = Session(WebSocketLink(url), None, EagerPace(), executor, retry=Retry(first_attempts=1))
                with pytest.raises(Overloaded) as told:
                    await anext(late.generate(GenerationRequest(PROMPT)))
            assert told.value.may_retry
            held.go.set()
            assert await task == (WANT[:NUM_TOKENS], 0)
            status, _ = await ended(process)  # the last session was over: no waiting for the rest of the grace
            assert status == 0

    asyncio.run(run())


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]], ids=["Ctrl-C", "twice"])
def test_who_is_in_a_hurry_need_not_wait(signals: list[signal.Signals]) -> None:
    """A live session and a grace of an hour; the device hears of it in a way that it may try again."""

    async def run() -> None:
        held = HeldDrafter(1)
        async with server(0, 3600.0) as (process, port):
            task = asyncio.create_task(generate(port, held))
            assert await asyncio.to_thread(held.is_held.wait, HANG_S)
            for number in signals[:-1]:
                process.send_signal(number)
                await readiness(port, 503)
            process.send_signal(signals[-1])
            await ended(process)
            async with server(port, 1.0):
                held.go.set()
                tokens, num_reopened = await task
        assert (tokens, num_reopened >= 1) == (WANT[:NUM_TOKENS], True)

    asyncio.run(run())
