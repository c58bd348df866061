"""An hour's worth of sessions in minutes, most of them going wrong: memory stays flat, and nothing stays behind.

OUTRIDER_SOAK_S sets the seconds (120), OUTRIDER_SOAK_SEED the seed. Links are cut and slowed, users leave, clients talk
nonsense, caches are dropped, engines fail. Every session that ends well says what it says alone.
"""

import asyncio
import contextlib
import gc
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks.fault_proxy import CLEAR, FaultProxy, Toxics
from cloud_verifier.limits import Limits
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.drafters import LookupDrafter
from edge_runtime.events import Token
from edge_runtime.links import WebSocketLink
from edge_runtime.request import GenerationRequest
from edge_runtime.retry import Retry
from edge_runtime.session import Session
from outrider.errors import OutriderError
from outrider.framing import to_frame
from outrider.wire import STREAM_PATH, SUBPROTOCOL, Draft, encode, pack_ids
from tests.cloud_verifier.test_faults import num_descriptors
from tests.cloud_verifier.test_verifier import SAMPLED, open_message, target_alone
from tests.drafting import EagerPace, ScriptedDrafter
from tests.serving import serving_here
from tests.toy import ToyEngine

SOAK_S = float(os.environ.get("OUTRIDER_SOAK_S", "120"))
SEED = int(os.environ.get("OUTRIDER_SOAK_SEED", "0"))
NUM_USERS = 12
MAX_GROWTH_MIB = 8.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]


def rss_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Soak:
    def __init__(self, loop: VerifierLoop, engine: ToyEngine, proxy: FaultProxy, dropped: list[str]) -> None:
        self.loop, self.engine, self.proxy, self.dropped = loop, engine, proxy, dropped
        self.random = random.Random(SEED)
        self.prompts = [[self.random.randrange(16) for _ in range(self.random.randrange(1, 30))] for _ in range(20)]
        self.want = [target_alone(prompt, 40) for prompt in self.prompts]
        self.executor = ThreadPoolExecutor(1)
        self.counts = dict.fromkeys(("whole", "left", "failed", "nonsense"), 0)
        self.memory: list[float] = []
        self.ends_s = time.monotonic() + SOAK_S

    def toxics(self, number: int) -> Toxics:
        if self.random.random() < 0.6:
            return CLEAR
        return self.random.choice(
            [
                Toxics(limit_data=self.random.randrange(2000), reset_peer=self.random.random() < 0.5),
                Toxics(jitter_s=0.01, slicer=100),
                Toxics(limit_data=self.random.randrange(2000), slicer=1),
            ]
        )

    async def user(self) -> None:
        while time.monotonic() < self.ends_s:
            await (self.nonsense() if self.random.random() < 0.1 else self.session())

    async def session(self) -> None:
        number = self.random.randrange(len(self.prompts))
        prompt, want = self.prompts[number], self.want[number]
        leaves_at = self.random.randrange(60)
        drafter = self.random.choice(
            [None, LookupDrafter(), ScriptedDrafter(prompt + want, accuracy=0.7, longest=8, n_vocab=16, seed=leaves_at)]
        )
        link = WebSocketLink(f"http://127.0.0.1:{self.proxy.port}", is_padded=self.random.random() < 0.5)
        session = Session(link, drafter, EagerPace(), self.executor, retry=Retry(2, 2, 0.0, 0.01))
        events = session.generate(GenerationRequest(prompt, 40, SAMPLED))
        got: list[int] = []
        how = "whole"
        try:
            async for event in events:
                if isinstance(event, Token):
                    got.append(event.token_id)
                    if len(got) == leaves_at:
                        how = "left"
                        break
        except OutriderError:
            how = "failed"
        finally:
            await events.aclose()
        assert got == want[: len(got)], f"seed {SEED}"
        assert how != "whole" or len(got) == 40
        self.counts[how] += 1

    async def nonsense(self) -> None:
        frames = [
            to_frame(open_message(self.prompts[0]), is_padded=False),
            to_frame(Draft(0, 2**20, pack_ids([1] * 200)), is_padded=False),
            to_frame(Draft(0, 3, pack_ids([99])), is_padded=True),
            encode(open_message()),
            self.random.randbytes(50),
            "text",
        ]
        uri = f"ws://127.0.0.1:{self.proxy.port}{STREAM_PATH}"
        with contextlib.suppress(WebSocketException, OSError, EOFError, TimeoutError):
            async with connect(uri, subprotocols=[SUBPROTOCOL], compression=None, close_timeout=1) as socket:
                for _ in range(self.random.randrange(6)):
                    await socket.send(self.random.choice(frames))
        self.counts["nonsense"] += 1

    async def disturb(self) -> None:
        """What happens to the verifier itself, and the bookkeeping of the test."""
        while time.monotonic() < self.ends_s:
            await asyncio.sleep(0.25)
            self.engine.fail_next = self.random.random() < 0.3
            self.dropped += [name for name in list(self.loop._connections) if self.random.random() < 0.3]
            self.engine.chunks.clear()
            self.proxy.traffic.clear()
            self.memory.append(rss_mib())


def num_threads() -> int:
    """Those of pools apart, which start as many as were ever busy at once, up to their bound."""
    return sum(not thread.name.startswith(("asyncio_", "ThreadPoolExecutor")) for thread in threading.enumerate())


def test_an_hour_in_minutes() -> None:
    print(f"seed {SEED}, {SOAK_S:.0f} s")

    async def run() -> Soak:
        engine = ToyEngine(max_sequences=4, max_batch=3)
        verifier = Verifier(engine, target="t", vocabulary="v", limits=Limits(resident_tokens=200))
        loop = VerifierLoop(verifier)
        dropped: list[str] = []  # names whose cache is to go; only the verifier's thread touches the cache
        step = verifier.step

        def forgetful() -> list:
            while dropped:
                verifier.drop_cache(dropped.pop())
            return step()

        verifier.step = forgetful
        async with serving_here(loop) as port, FaultProxy(port) as proxy:
            soak = Soak(loop, engine, proxy, dropped)
            await soak.session()  # threads and tables that stay are there now
            proxy.up = proxy.down = soak.toxics
            baseline = (len(asyncio.all_tasks()), num_descriptors(), num_threads())
            await asyncio.gather(*(soak.user() for _ in range(NUM_USERS)), soak.disturb())
            for _ in range(3000):
                now = (len(asyncio.all_tasks()), num_descriptors(), num_threads())
                held = (verifier.num_sessions, loop.num_connections, loop.num_waiting)
                is_back = held == (0, 0, 0) and all(is_ <= was for is_, was in zip(now, baseline, strict=True))
                if is_back:
                    break
                await asyncio.sleep(0.01)
            assert is_back, f"left behind: {held}, {now} after {baseline} tasks, descriptors, threads"
            soak.executor.shutdown()
        loop.close()
        verifier.check_integrity()
        verifier.cache.clear()
        assert not engine._cache
        return soak

    soak = asyncio.run(run())
    memory = np.array(soak.memory[len(soak.memory) // 3 :])  # after the warm-up
    slope, _ = np.polyfit(np.arange(len(memory)), memory, 1)
    growth = slope * len(memory)
    print(f"{soak.counts}, {soak.loop.verifier.num_passes} passes, {soak.loop.verifier.cache.num_evictions} evictions")
    print(f"memory {memory.min():.1f} to {memory.max():.1f} MiB, growth {growth:+.2f} MiB")
    assert min(soak.counts.values()) > 0
    assert growth < MAX_GROWTH_MIB
