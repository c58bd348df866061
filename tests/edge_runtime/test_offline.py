"""The link is gone: the drafter answers alone; back again, every word of it is confirmed, or retracted once."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import pytest

import edge_runtime.links.websocket as websocket_link
from benchmarks.fault_proxy import FaultProxy, Toxics
from edge_runtime.ahead import MAX_AHEAD, AheadPace
from edge_runtime.breaker import Breaker, BreakerPolicy
from edge_runtime.drafters import CascadeDrafter, Drafter, LookupDrafter, ModelDrafter
from edge_runtime.events import Event
from edge_runtime.links import WebSocketLink
from edge_runtime.request import GenerationRequest
from edge_runtime.retry import Retry
from edge_runtime.session import Session
from outrider.choice import SamplingParams, choose
from outrider.engines.base import Chunk, Logits
from outrider.errors import LinkLost, NotAVerifier, OutriderError, Overloaded
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED, target_alone
from tests.edge_runtime.device import OTHER, TARGET, App, drafter_of
from tests.edge_runtime.test_session import toy_loop
from tests.serving import serving
from tests.something_else import answering
from tests.toy import ToyEngine

QUICK = Retry(first_attempts=3, attempts=5, base_s=0.001, cap_s=0.01)
GREEDY = SamplingParams()
NUM_TOKENS = 150


class SlowEngine(ToyEngine):
    """Passes take long enough for drafts to arrive meanwhile."""

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        time.sleep(0.003)
        return super().extend(chunks)


def drafter_alone(seed: int, params: SamplingParams, num_tokens: int) -> list[int]:
    engine = ToyEngine(seed=seed)
    sequence, token_ids, new = engine.allocate(), list(PROMPT), list(PROMPT)
    for _ in range(num_tokens):
        new = [choose(engine.extend([Chunk(sequence, new)])[0][0], params, len(token_ids))]
        token_ids += new
    return token_ids[len(PROMPT) :]


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
    return port


def request_of(**over: object) -> GenerationRequest:
    values = {"prompt_ids": PROMPT, "max_tokens": NUM_TOKENS, "params": SAMPLED, "answers_alone": True, **over}
    return GenerationRequest(**values)  # type: ignore[arg-type]


def events_of(
    url: str, drafter: Drafter, request: GenerationRequest, executor: ThreadPoolExecutor, **over: object
) -> AsyncGenerator[Event, None]:
    values: dict[str, object] = {
        "max_ahead": MAX_AHEAD,
        "retry": QUICK,
        "breaker": Breaker(BreakerPolicy(first_s=0.01, longest_s=0.03)),
        **over,
    }
    return Session(WebSocketLink(url), drafter, AheadPace(), executor, **values).generate(request)  # type: ignore[arg-type]


async def run(
    url: str,
    drafter: Drafter,
    request: GenerationRequest,
    on_event: Callable[[App], object] = lambda app: None,
    **over: object,
) -> App:
    app = App()
    with ThreadPoolExecutor(1) as executor:
        async with asyncio.timeout(60), aclosing(events_of(url, drafter, request, executor, **over)) as events:
            async for event in events:
                app.hear(event)
                if asyncio.iscoroutine(waiting := on_event(app)):
                    await waiting
    return app


def test_the_drafter_answers_alone_and_says_so() -> None:
    app = asyncio.run(run(f"http://127.0.0.1:{unused_port()}", drafter_of(OTHER), request_of()))
    assert app.reasons == ["link_lost"]
    assert app.verified == []
    assert app.provisional == drafter_alone(OTHER, SAMPLED, NUM_TOKENS)
    assert app.finished is not None
    assert app.finished.reason == "length"
    assert (app.finished.report.num_tokens, app.finished.report.num_provisional) == (0, NUM_TOKENS)


def test_a_provisional_answer_ends_where_the_drafter_stops() -> None:
    want = drafter_alone(OTHER, GREEDY, NUM_TOKENS)
    stop_id = want[20]
    want = want[: want.index(stop_id) + 1]
    request = request_of(params=GREEDY, stop_ids=[stop_id])
    app = asyncio.run(run(f"http://127.0.0.1:{unused_port()}", drafter_of(OTHER), request))
    assert app.provisional == want
    assert app.finished is not None
    assert app.finished.reason == "stop"


def test_strict_refuses() -> None:
    with pytest.raises(LinkLost, match="outrider verifier"):
        asyncio.run(run(f"http://127.0.0.1:{unused_port()}", drafter_of(OTHER), request_of(answers_alone=False)))


@pytest.mark.parametrize("drafter", [LookupDrafter(), CascadeDrafter(LookupDrafter(), LookupDrafter())])
def test_what_only_repeats_the_text_does_not_answer(drafter: Drafter) -> None:
    with pytest.raises(LinkLost):
        asyncio.run(run(f"http://127.0.0.1:{unused_port()}", drafter, request_of()))


def test_a_drafter_that_cannot_is_no_answer_either() -> None:
    """Its context is too short for the prompt: as if there were none."""
    drafter = ModelDrafter(ToyEngine(max_context=len(PROMPT), max_sequences=1), name="short")
    with pytest.raises(LinkLost):
        asyncio.run(run(f"http://127.0.0.1:{unused_port()}", drafter, request_of()))


def test_alone_the_cascade_says_what_the_model_says() -> None:
    drafter = CascadeDrafter(LookupDrafter(), drafter_of(OTHER))
    app = asyncio.run(run(f"http://127.0.0.1:{unused_port()}", drafter, request_of()))
    assert app.provisional == drafter_alone(OTHER, SAMPLED, NUM_TOKENS)


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("seed", [TARGET, OTHER], ids=["right", "wrong"])
def test_back_online_all_is_confirmed_or_retracted_once(params: SamplingParams, seed: int) -> None:
    """The link is down from the start and comes up in the middle of the drafter's answer."""
    want = target_alone(params=params, num_tokens=NUM_TOKENS)
    alone = drafter_alone(seed, params, NUM_TOKENS)

    async def main() -> App:
        with toy_loop() as (loop, _), serving(loop) as url:
            proxy = FaultProxy(int(url.rpartition(":")[2]))
            proxy.port = unused_port()
            is_up = False

            async def come_up(app: App) -> None:
                nonlocal is_up
                if app.num_shown == 40 and not is_up:
                    is_up = True
                    assert app.provisional == alone[:40]  # shown at once, whatever the target will say
                    await proxy.start()

            app = await run(f"http://127.0.0.1:{proxy.port}", drafter_of(seed), request_of(params=params), come_up)
            await proxy.stop()
            return app

    app = asyncio.run(main())
    assert app.verified == want
    assert app.provisional == []
    assert app.finished is not None
    assert app.finished.report.num_provisional == 0
    if seed == TARGET:
        assert app.retractions == []
    else:
        first = next(n for n, (mine, right) in enumerate(zip(alone, want, strict=True)) if mine != right)
        assert app.retractions == [len(PROMPT) + first]  # once, at the first difference
        assert app.finished.report.num_retracted == app.num_shown - first


@pytest.mark.parametrize("seed", [TARGET, OTHER], ids=["right", "wrong"])
def test_the_link_goes_and_comes_again_and_again(seed: int) -> None:
    """Each absence is answered over, and put right afterwards; what was verified stays."""
    want = target_alone(params=SAMPLED, num_tokens=NUM_TOKENS)

    async def main() -> App:
        with toy_loop() as (loop, _), serving(loop) as url:
            slow = Toxics(bandwidth=128_000, slicer=256)  # the verifier is not done before the link is cut
            async with FaultProxy(int(url.rpartition(":")[2]), down=lambda n: slow) as proxy:
                shown_then, is_up, cuts = 0, True, [20, 60, 100]

                async def flap(app: App) -> None:
                    nonlocal shown_then, is_up
                    if is_up and cuts and len(app.verified) >= cuts[0]:
                        cuts.pop(0)
                        is_up, shown_then = False, app.num_shown
                        await proxy.stop()
                    elif not is_up and app.num_shown >= shown_then + 10:
                        is_up = True
                        await proxy.start()

                app = await run(f"http://127.0.0.1:{proxy.port}", drafter_of(seed), request_of(), flap)
                assert not cuts
                return app

    app = asyncio.run(main())
    assert app.verified == want
    assert len(app.reasons) == 3
    assert len(app.retractions) <= (3 if seed == OTHER else 0)
    assert app.num_shown >= 30


def test_a_link_that_swallows_everything_is_no_link() -> None:
    """Connected, but nothing comes: after a while the drafter answers alone, and the answer stands when it is heard."""
    want = target_alone(params=SAMPLED, num_tokens=NUM_TOKENS)

    async def main() -> App:
        with toy_loop() as (loop, _), serving(loop) as url:
            black_hole = Toxics(limit_data=2000, timeout=True)
            chosen = [black_hole]
            async with FaultProxy(int(url.rpartition(":")[2]), down=lambda n: (chosen or [Toxics()])[0]) as proxy:

                async def cure(app: App) -> None:
                    if app.num_shown == 30 and chosen:
                        chosen.clear()
                        await proxy.stop()
                        await proxy.start()

                here = f"http://127.0.0.1:{proxy.port}"
                return await run(here, drafter_of(OTHER), request_of(), cure, alone_after_s=0.2)

    app = asyncio.run(main())
    assert app.verified == want
    assert app.num_shown >= 30


def test_what_an_old_connection_still_brings_is_of_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a connection carries is held up until a later one is at work; then it arrives, at both ends."""
    monkeypatch.setattr(websocket_link, "CLOSE_S", 0.05)
    want = target_alone(params=SAMPLED, num_tokens=NUM_TOKENS)

    async def main() -> App:
        slow = SlowEngine(max_sequences=1)
        with toy_loop(slow) as (loop, _), serving(loop) as url, ThreadPoolExecutor(1) as executor:
            async with FaultProxy(int(url.rpartition(":")[2])) as proxy:
                app, num_late = App(), 0
                here = f"http://127.0.0.1:{proxy.port}"
                events = events_of(here, drafter_of(OTHER), request_of(), executor, max_silence_s=0.3)
                async with asyncio.timeout(60), aclosing(events):
                    async for event in events:
                        app.hear(event)
                        if len(app.verified) == 20 and not proxy.is_holding and not num_late:
                            proxy.hold()
                        if proxy.is_holding and len(proxy.traffic) > 1 and len(app.verified) >= 60:
                            num_late = len(proxy.traffic[0].up)
                            proxy.release()
                assert num_late
                assert len(proxy.traffic[0].up) > num_late
                return app

    app = asyncio.run(main())
    assert app.verified == want


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlogin", NotAVerifier),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", Overloaded),
    ],
    ids=["a login page", "a full verifier"],
)
def test_what_answers_in_a_verifier_s_place_is_answered_over(says: bytes, reason: type[OutriderError]) -> None:
    """A captive portal answers whatever is asked: the answer is the drafter's, and the reason is told."""

    with answering(says) as other:
        app = asyncio.run(run(other.url, drafter_of(OTHER), request_of(max_tokens=40)))
    assert other.num_asked
    assert app.reasons == [reason.code]
    assert len(app.provisional) == 40


@pytest.mark.parametrize("seed", [TARGET, OTHER], ids=["right", "wrong"])
def test_what_was_written_before_goes_up_as_one_long_draft(seed: int) -> None:
    """As after a restart: some of the answer is verified, more is provisional, than one pass or message could take."""
    want = target_alone(params=SAMPLED, num_tokens=480)
    written = want[:30] + (want[30:450] if seed == TARGET else [*want[30:400], *([(want[400] + 1) % 16] * 50)])
    request = request_of(max_tokens=480, verified_ids=written[:30], provisional_ids=written[30:], answers_alone=False)

    async def main() -> tuple[App, int]:
        app = App(verified=written[:30], provisional=written[30:])
        with toy_loop(SlowEngine()) as (loop, _), serving(loop) as url, ThreadPoolExecutor(1) as executor:
            session = Session(WebSocketLink(url), None, AheadPace(), executor, retry=QUICK)
            async for event in session.generate(request):
                app.hear(event)
            return app, session.report.num_accepted

    app, num_accepted = asyncio.run(main())
    assert app.verified == want
    assert app.retractions == ([] if seed == TARGET else [len(PROMPT) + 400])
    assert num_accepted >= (210 if seed == TARGET else 185)  # most of the long draft was checked many at a time


def test_a_verified_answer_that_stops_earlier_voids_the_rest() -> None:
    want = target_alone(params=GREEDY, num_tokens=40)
    stop_id = want[10]
    want = want[: want.index(stop_id) + 1]
    written = [*want, *[(stop_id + 1) % 16] * 20]
    request = request_of(params=GREEDY, stop_ids=[stop_id], provisional_ids=written, answers_alone=False)

    async def main() -> App:
        app = App(provisional=list(written))
        with toy_loop() as (loop, _), serving(loop) as url, ThreadPoolExecutor(1) as executor:
            async for event in Session(WebSocketLink(url), None, AheadPace(), executor).generate(request):
                app.hear(event)
        return app

    app = asyncio.run(main())
    assert app.verified == want
    assert app.retractions == [len(PROMPT) + len(want)]
    assert app.provisional == []
