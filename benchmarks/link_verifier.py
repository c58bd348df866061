"""The verifier's core of `benchmarks.link`: one target behind two doors, in a process of its own.

One is the real service. Behind the other the same drafter runs beside the target, in turns, and the device hears only
what was verified: speculation where the target is. Setup comes in, Ready goes out; from then on each Take is answered
with what happened since the one before.
"""

import asyncio
import dataclasses
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from benchmarks.counting_engine import CountingEngine
from benchmarks.link_device import NUM_KEPT, engine_settings, keep_prompt
from benchmarks.options import COUNTING
from benchmarks.pinned import next_line, tell, telling_errors
from benchmarks.service import Stopwatch
from benchmarks.serving import UNHURRIED, serving
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.target import open_verifier
from cloud_verifier.tokens import TokenFile
from cloud_verifier.verifier import Verifier
from edge_runtime.drafters import Drafter, LookupDrafter
from edge_runtime.links import InProcessLink
from edge_runtime.pacing import Pace
from edge_runtime.parts import open_drafter
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider import catalog
from outrider.framing import from_frame, to_frame
from outrider.wire import MAX_MESSAGE_BYTES, SUBPROTOCOL, Down, Open, Opened, Verified, decode_up, unpack_ids

__all__ = ["Ready", "Setup", "Take", "Taken"]

COUNTED_MS = {rows: 1 + 0.05 * (rows - 1) for rows in range(1, 33)}


class Setup(msgspec.Struct, frozen=True):
    target: str
    drafter: str
    ways: list[str]  # each is let in by a token of its own, so that none pays for another's bad drafts
    threads: int = 1


class Ready(msgspec.Struct, frozen=True):
    service_port: int
    colocated_port: int
    tokens: dict[str, str]
    pass_ms: dict[int, float]  # as profiled


class Take(msgspec.Struct, frozen=True):
    """What happened?"""


class Taken(msgspec.Struct, frozen=True):
    """Since the last time. Passes that filled a prompt in are left out."""

    rows: list[int]  # of each pass,
    pass_ms: list[float]  # and how long it took
    busy_s: float  # processor time of the whole process, prompts included


class _TellingLink(InProcessLink):
    """What the verifier says here is told on, as if nothing had been drafted."""

    def __init__(self, verifier: VerifierLoop, socket: ServerConnection, *, is_padded: bool) -> None:
        super().__init__(verifier)
        self._socket, self._pads = socket, is_padded

    async def receive(self) -> Down:
        message = await super().receive()
        told = message
        if isinstance(message, Verified):
            told = msgspec.structs.replace(message, num_accepted=0, num_drafted=0)
        if isinstance(told, Opened | Verified):
            await self._socket.send(to_frame(told, is_padded=self._pads))
        return message


class Colocated:
    """Sessions of devices that draft nothing, drafted for here. One at a time."""

    def __init__(self, verifier: VerifierLoop, drafter: Drafter | None, pass_ms: Mapping[int, float]) -> None:
        self._verifier, self._drafter = verifier, drafter
        self._pace = Pace(pass_ms)

    async def __call__(self, socket: ServerConnection) -> None:
        opening = decode_up(from_frame(await socket.recv(decode=False)))
        assert isinstance(opening, Open)
        prompt = unpack_ids(opening.token_ids)
        request = GenerationRequest(
            prompt,
            opening.limit - len(prompt),
            opening.params.sampling(),
            unpack_ids(opening.stop_ids),
            opening.vocabulary,
            opening.target,
        )
        link = _TellingLink(self._verifier, socket, is_padded=opening.is_padded)
        if self._drafter is not None:
            keep_prompt(self._drafter, prompt)
        with ThreadPoolExecutor(1) as executor, suppress(ConnectionClosed):
            async for _ in Session(link, self._drafter, self._pace, executor).generate(request):
                pass


def open_target(setup: Setup, stack: AsyncExitStack) -> tuple[VerifierLoop, Drafter | None, dict[int, float]]:
    """The target running, the drafter for it, and what a pass is said to cost; closed with `stack`."""
    if setup.target == COUNTING:
        engine = CountingEngine(NUM_KEPT)
        loop = VerifierLoop(Verifier(engine, target=COUNTING, vocabulary="", pass_ms=COUNTED_MS))
        stack.callback(loop.close)
        return loop, LookupDrafter(), COUNTED_MS
    folder = catalog.find(setup.target)
    target = open_verifier(folder, engine_settings(setup.threads))
    stack.callback(target.close)
    drafter = open_drafter(setup.drafter, folder, engine_settings(setup.threads))
    if drafter is not None:
        stack.callback(drafter.close)
    return target.loop, drafter, target.pass_ms


async def run() -> None:
    async with AsyncExitStack() as stack:
        setup = msgspec.json.decode(await next_line(), type=Setup)
        verifier, drafter, pass_ms = open_target(setup, stack)
        stopwatch = Stopwatch()
        verifier.verifier.on_pass.append(stopwatch)
        file = TokenFile(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "tokens.json")
        tokens = {way: file.add(f"way-{number}")[1] for number, way in enumerate(setup.ways)}
        url = stack.enter_context(serving(verifier, dataclasses.replace(UNHURRIED, tokens=file)))
        door = await stack.enter_async_context(
            serve(
                Colocated(verifier, drafter, pass_ms),
                "127.0.0.1",
                0,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
            )
        )
        tell(Ready(url_port(url), next(iter(door.sockets)).getsockname()[1], tokens, pass_ms))
        took_s = time.process_time()
        while await next_line():
            decoding = [report for _, report in stopwatch.take() if not report.num_filled]
            busy_s, took_s = time.process_time() - took_s, time.process_time()
            rows = [report.num_rows for report in decoding]
            tell(Taken(rows, [report.elapsed_s * 1000 for report in decoding], busy_s))


def url_port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


if __name__ == "__main__":
    with telling_errors():
        asyncio.run(run())
