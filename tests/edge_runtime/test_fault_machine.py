"""Whatever the network, the verifier and the device go through, in any order: in the end the target's own text.

Random histories of one generation, over real sockets. After every step: positions are verified once, in order; nothing
provisional passes for verified; the screen, the journal and the session agree. Afterwards the faults end, and the
answer must, too.
"""

import asyncio
import sys
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import edge_runtime.links.websocket as websocket_link
from benchmarks.fault_proxy import CLEAR, FaultProxy, Toxics
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Said, Verifier
from edge_runtime.drafters import CascadeDrafter, Drafter, LookupDrafter
from edge_runtime.events import Alone, Event, Retracted, Token
from edge_runtime.journal import Asked, Journal
from outrider.tokens import TextCodec
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED, target_alone
from tests.edge_runtime.device import OTHER, TARGET, Device, drafter_of, text_of, toy_codec
from tests.edge_runtime.test_offline import GREEDY, SlowEngine
from tests.serving import serving_here

R = TypeVar("R")
NUM_TOKENS = 80
BOUND_S = 30.0  # against hangs
WANT = {False: target_alone(params=GREEDY, num_tokens=NUM_TOKENS), True: target_alone(num_tokens=NUM_TOKENS)}
TAKE_S = 0.04
COUNTS = st.sampled_from([0, 1, 2, 4, 8, 16])
TOXICS = st.sampled_from(
    [
        Toxics(latency_s=0.01, jitter_s=0.01),
        Toxics(bandwidth=20_000),
        Toxics(slicer=7),
        Toxics(limit_data=0, timeout=True),  # a black hole
        Toxics(limit_data=900),  # flaps: no connection lives long
        Toxics(limit_data=600, reset_peer=True),
    ]
)
DRAFTERS = ("right", "wrong", "lookup and wrong", "lookup", "none")


class ForgetfulVerifier(Verifier):
    """Drops its cache when it is told to, and looks after itself with every pass."""

    forgets = False
    error: AssertionError | None = None

    def step(self) -> Said:
        if self.forgets:
            self.forgets = False
            for name in list(self._sessions):
                self.drop_cache(name)
        said = super().step()
        try:
            self.check_integrity()
        except AssertionError as error:
            self.error = error
        return said


class World:
    """Verifiers, one after the other, and the network before them."""

    def __init__(self) -> None:
        self._services = AsyncExitStack()
        self._leaving: list[asyncio.Task[None]] = []
        self.loops: list[VerifierLoop] = []

    async def start(self) -> None:
        self.proxy = FaultProxy(await self._serve())
        await self.proxy.start()
        self.is_listening = True

    async def _serve(self) -> int:
        self.verifier = ForgetfulVerifier(SlowEngine(), target="t", vocabulary="v")
        self.loops.append(VerifierLoop(self.verifier))
        self._services = AsyncExitStack()
        return await self._services.enter_async_context(serving_here(self.loops[-1]))

    async def restart(self, *, says_so: bool) -> None:
        """Another verifier in its place. Without a word as when it was killed, or as one that is drained."""
        loop, services = self.loops[-1], self._services
        if says_so:
            loop.start_draining()
        else:
            await self.proxy.cut()
        self._leaving.append(asyncio.create_task(self._leave(loop, services)))
        self.proxy.upstream = await self._serve()

    async def _leave(self, loop: VerifierLoop, services: AsyncExitStack) -> None:
        await asyncio.to_thread(loop.close)
        await services.aclose()

    async def listen(self, *, is_listening: bool) -> None:
        if is_listening != self.is_listening:
            await (self.proxy.start() if is_listening else self.proxy.stop())
            self.is_listening = is_listening

    async def clear(self) -> None:
        """No faults from here on; what they did to connections stays done."""
        self.proxy.up = self.proxy.down = lambda number: CLEAR
        self.proxy.release()
        await self.listen(is_listening=True)

    async def close(self) -> None:
        await self.listen(is_listening=False)
        await asyncio.gather(*self._leaving, self._leave(self.loops[-1], self._services))


class Faults(RuleBasedStateMachine):
    codec: ClassVar[TextCodec]
    folder: ClassVar[Path]
    numbers: ClassVar[Iterator[int]] = count()

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World()
        self.do(self.world.start())

    def do(self, work: Awaitable[R]) -> R:
        async def bounded() -> R:
            async with asyncio.timeout(BOUND_S):
                return await work

        return self.runner.run(bounded())

    @initialize(
        is_sampled=st.booleans(),
        drafter=st.sampled_from(DRAFTERS),
        answers_alone=st.sampled_from([True, True, False]),
        has_stop=st.booleans(),
        is_up=st.booleans(),
    )
    def begin(self, is_sampled: bool, drafter: str, answers_alone: bool, has_stop: bool, is_up: bool) -> None:
        whole = WANT[is_sampled]
        stop = [text_of(self.codec, whole)[1][25:28]] if has_stop else []
        self.want, self.want_text = text_of(self.codec, whole, stop)
        params = SAMPLED if is_sampled else GREEDY
        asked = Asked(PROMPT, NUM_TOKENS, params, [], "", "v", [], stop)
        journal = Journal(self.folder / f"{next(self.numbers)}.sqlite")
        self.device = Device(f"http://127.0.0.1:{self.world.proxy.port}", self.codec, drafter_named(drafter), journal)
        self.do(self.world.listen(is_listening=is_up))
        self.do(self.device.begin(asked, answers_alone=answers_alone))

    # The device. Between any two faults it goes on for a while.

    @rule(count=COUNTS)
    def take(self, count: int) -> None:
        self.do(self.device.take(count, TAKE_S))

    @rule(says_so=st.booleans(), count=COUNTS)
    def kill_and_resume(self, says_so: bool, count: int) -> None:
        """If it did not end by itself. Without a word: its connections are reset."""
        before = list(self.device.screen.verified)
        if not says_so:
            self.do(self.world.proxy.cut(is_reset=True))
        self.do(self.device.kill())
        assert self.device.journal.generation(self.device.number).verified_ids[: len(before)] == before
        self.do(self.device.resume())
        self.take(count)

    @rule(count=COUNTS)
    def hear_of_another_network(self, count: int) -> None:
        self.device.breaker.network_changed()
        self.take(count)

    # The network

    @rule(is_reset=st.booleans(), count=COUNTS)
    def cut(self, is_reset: bool, count: int) -> None:
        self.do(self.world.proxy.cut(is_reset=is_reset))
        self.take(count)

    @rule(count=COUNTS)
    def refuse_or_accept(self, count: int) -> None:
        self.do(self.world.listen(is_listening=not self.world.is_listening))
        self.take(count)

    @rule(way=st.sampled_from(["up", "down"]), toxics=TOXICS, count=COUNTS)
    def spoil(self, way: str, toxics: Toxics, count: int) -> None:
        setattr(self.world.proxy, way, lambda number: toxics)
        self.take(count)

    @rule(count=COUNTS)
    def hold_or_release(self, count: int) -> None:
        """What connections have under way arrives when they are released: after what later ones carry."""
        if self.world.proxy.is_holding:
            self.world.proxy.release()
        else:
            self.world.proxy.hold()
        self.take(count)

    @rule(count=COUNTS)
    def clear(self, count: int) -> None:
        self.do(self.world.clear())
        self.take(count)

    # The verifier

    @rule(count=COUNTS)
    def forget(self, count: int) -> None:
        self.world.verifier.forgets = True
        self.take(count)

    @rule(says_so=st.booleans(), count=COUNTS)
    def restart(self, says_so: bool, count: int) -> None:
        self.do(self.world.restart(says_so=says_so))
        self.take(count)

    # What holds

    @invariant()
    def all_agree(self) -> None:
        if not hasattr(self, "device"):
            return
        device, screen, scribe = self.device, self.device.screen, self.device.scribe
        assert screen.verified == self.want[: len(screen.verified)]
        told = [what(event) for event in screen.told[device.num_remembered :]]
        assert told == [what(event) for event in scribe.written][: len(told)]  # it was kept before it was told
        assert text_of(self.codec, screen.token_ids)[1].startswith(screen.text)
        device.session._frontier.check_integrity()
        device.journal.check_integrity()
        assert self.world.verifier.error is None

    def teardown(self) -> None:
        """However it went: without faults it comes to its end, and that is the target's."""
        try:
            if hasattr(self, "device") and sys.exc_info()[0] is None:
                self.do(self._finish())
        finally:
            self.do(self._close())
            self.runner.close()

    async def _finish(self) -> None:
        device = self.device
        await self.world.clear()
        while True:
            await device.take(10_000, BOUND_S)
            self.all_agree()
            found = device.journal.generation(device.number)
            if device.error is None and found.finish and not found.provisional_ids:
                break
            await device.resume()
        await device.resume()  # what stands in the journal is the whole answer
        await device.take(10_000, BOUND_S)
        assert device.screen.verified == self.want
        assert device.screen.text == self.want_text
        assert found.token_ids == self.want

    async def _close(self) -> None:
        if hasattr(self, "device"):
            await self.device.aclose()
            self.device.journal.close()
        await self.world.close()


def what(event: Event) -> tuple[object, ...]:
    if isinstance(event, Token):
        return event.position, event.token_id, event.is_verified
    if isinstance(event, Retracted):
        return "retracted", event.position
    return ("alone",) if isinstance(event, Alone) else ("finished", event.reason)


def drafter_named(name: str) -> Drafter | None:
    if name == "none":
        return None
    if name == "lookup":
        return LookupDrafter()
    if name == "lookup and wrong":
        return CascadeDrafter(LookupDrafter(), drafter_of(OTHER))
    return drafter_of(TARGET if name == "right" else OTHER)


@pytest.fixture(autouse=True, scope="module")
def _quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    Faults.folder = tmp_path_factory.mktemp("journals")
    Faults.codec = toy_codec(Faults.folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(websocket_link, "CONNECT_S", 0.2)
        patch.setattr(websocket_link, "CLOSE_S", 0.05)
        yield


STEADY = settings(
    stateful_step_count=12,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a failure depends on time, too: shrinking it would take long and give another
)


class TestFaults(Faults.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(STEADY, max_examples=20)


@pytest.mark.slow
class TestFaultsHundreds(Faults.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(STEADY, max_examples=500)
