"""A whole generation over either link: the target's own tokens, whatever drafts, and clean ends whatever happens."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.ahead import AheadPace
from edge_runtime.drafters import CascadeDrafter, Drafter, LookupDrafter, ModelDrafter, Proposal
from edge_runtime.events import Finished, Token
from edge_runtime.links import InProcessLink, Link, WebSocketLink
from edge_runtime.pacing import Pace
from edge_runtime.request import GenerationRequest
from edge_runtime.retry import Retry
from edge_runtime.session import Session
from outrider.choice import SamplingParams
from outrider.errors import (
    BadLogits,
    ContextExceeded,
    EngineError,
    InvalidParameter,
    LinkLost,
    OutriderError,
    Overloaded,
    ProtocolError,
    VocabularyMismatch,
)
from outrider.wire import Open, Opened, Up, Verified, encode, pack_ids
from tests.cloud_verifier.test_rest import until
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED, target_alone
from tests.drafting import EagerPace, ScriptedDrafter
from tests.serving import serving
from tests.something_else import answering
from tests.toy import ToyEngine

GREEDY = SamplingParams()
MakeLink = Callable[[], Link]


@contextlib.contextmanager
def toy_loop(engine: ToyEngine | None = None) -> Iterator[tuple[VerifierLoop, Verifier]]:
    verifier = Verifier(engine or ToyEngine(), target="t", vocabulary="v")
    loop = VerifierLoop(verifier)
    try:
        yield loop, verifier
    finally:
        loop.close()
        verifier.check_integrity()


@contextlib.contextmanager
def links(kind: str, loop: VerifierLoop) -> Iterator[MakeLink]:
    if kind == "in process":
        yield lambda: InProcessLink(loop)
    else:
        with serving(loop) as url:
            yield lambda: WebSocketLink(url)


@pytest.fixture(params=["in process", "websocket"])
def toy(request: pytest.FixtureRequest) -> Iterator[tuple[MakeLink, Verifier]]:
    with toy_loop() as (loop, verifier), links(request.param, loop) as make_link:
        yield make_link, verifier


QUICK = Retry(attempts=3, base_s=0.01, cap_s=0.05)


def request_of(**over: object) -> GenerationRequest:
    return GenerationRequest(**{"prompt_ids": PROMPT, "max_tokens": 60, "params": SAMPLED, "vocabulary": "v", **over})


def collect(
    link: Link, drafter: Drafter | None, request: GenerationRequest, *, max_ahead: int = 0, retry: Retry = QUICK
) -> tuple[list[Token], Finished]:
    pace = AheadPace() if max_ahead else EagerPace()

    async def run() -> tuple[list[Token], Finished]:
        tokens: list[Token] = []
        with ThreadPoolExecutor(1) as executor:
            session = Session(link, drafter, pace, executor, retry=retry, max_ahead=max_ahead)
            async for event in session.generate(request):
                if isinstance(event, Finished):
                    return tokens, event
                tokens.append(event)
        raise AssertionError("the session ended without a word")

    return asyncio.run(run())


def drafters(params: SamplingParams, num_tokens: int = 60) -> dict[str, Drafter | None]:
    script = PROMPT + target_alone(params=params, num_tokens=num_tokens)
    model = ModelDrafter(ToyEngine(max_sequences=1), name="model")
    return {
        "none": None,
        "lookup": LookupDrafter(),
        "the target itself": model,
        "another model": ModelDrafter(ToyEngine(seed=1, max_sequences=1), name="other"),
        "cascade": CascadeDrafter(LookupDrafter(), ModelDrafter(ToyEngine(max_sequences=1), name="model")),
        "adversarial": ScriptedDrafter(script, accuracy=0, longest=8, n_vocab=16),
        "mixed": ScriptedDrafter(script, accuracy=0.7, longest=12, n_vocab=16),
    }


NAMES = list(drafters(GREEDY))
PARAMS = {"greedy": GREEDY, "sampled": SAMPLED}
# Each drafter with both parameters, and with both links, which know nothing of who drafts or how it is sampled.
CELLS = [
    (["in process", "websocket"][(number + is_sampled) % 2], drafter, way)
    for number, drafter in enumerate(NAMES)
    for is_sampled, way in enumerate(PARAMS)
]
over_either_link = pytest.mark.parametrize(("toy", "drafter", "way"), CELLS, indirect=["toy"])


@over_either_link
def test_the_output_is_the_target_s(toy: tuple[MakeLink, Verifier], drafter: str, way: str) -> None:
    (make_link, _), params = toy, PARAMS[way]
    tokens, finished = collect(make_link(), drafters(params)[drafter], request_of(params=params))
    assert [token.token_id for token in tokens] == target_alone(params=params)
    assert [token.position for token in tokens] == list(range(len(PROMPT), len(PROMPT) + 60))
    report = finished.report
    assert finished.reason == "length"
    assert report.num_tokens == 60
    assert report.num_accepted == sum(token.drafted_by is not None for token in tokens)
    assert report.num_passes == 60 - report.num_accepted
    if drafter == "adversarial":
        assert report.num_accepted == 0
        assert 0 < report.num_drafted < 60  # the verifier stops taking what keeps missing
    if drafter == "the target itself":  # the same noise on both sides: every draft is accepted
        assert report.num_accepted == report.num_drafted > 20


@over_either_link
def test_drafting_ahead_gives_the_same_output(toy: tuple[MakeLink, Verifier], drafter: str, way: str) -> None:
    (make_link, _), params = toy, PARAMS[way]
    request = request_of(params=params, max_tokens=120)
    tokens, finished = collect(make_link(), drafters(params, 120)[drafter], request, max_ahead=24)
    assert [token.token_id for token in tokens] == target_alone(params=params, num_tokens=120)
    assert [token.position for token in tokens] == list(range(len(PROMPT), len(PROMPT) + 120))
    report = finished.report
    assert report.num_accepted == sum(token.drafted_by is not None for token in tokens)
    assert report.num_passes == 120 - report.num_accepted


def test_a_drafter_that_shares_the_noise_agrees_more_than_one_that_does_not() -> None:
    agreed = {}
    for shared in (True, False):
        with toy_loop() as (loop, _):
            drafter = ModelDrafter(ToyEngine(max_sequences=1), name="model")
            if not shared:
                propose = drafter.propose
                other = SamplingParams(temperature=1.2, seed=6)
                drafter.propose = lambda ids, params, pace, n, propose=propose, other=other: propose(
                    ids, other, pace, n
                )
            _, finished = collect(InProcessLink(loop), drafter, request_of(max_tokens=100))
            agreed[shared] = finished.report.acceptance
    assert agreed[True] == 1.0
    assert agreed[False] < 0.8


def test_bytes_are_counted_with_their_framing() -> None:
    with toy_loop() as (loop, _), serving(loop) as url:
        script = PROMPT + target_alone()
        drafter = ScriptedDrafter(script, accuracy=1, longest=8, n_vocab=16)
        bare = collect(WebSocketLink(url, is_padded=False), drafter, request_of())[1].report
        padded = collect(WebSocketLink(url), drafter, request_of())[1].report
        assert bare.bytes_up > 60 * 4
        assert bare.bytes_per_token < 64
        # In frames of 192 bytes and their framing, 8 up and 4 down, after an Open and an Opened.
        assert padded.bytes_down == 196 * (padded.num_passes + 1)
        assert (padded.bytes_up - 200) % 200 == 0


def test_the_cache_may_be_lost_at_any_moment(toy: tuple[MakeLink, Verifier]) -> None:
    make_link, verifier = toy
    step = verifier.step

    def forgetful() -> list:
        for name in list(verifier._sessions):
            verifier.drop_cache(name)
        return step()

    verifier.step = forgetful
    script = PROMPT + target_alone()
    drafter = ScriptedDrafter(script, accuracy=0.8, longest=6, n_vocab=16)
    tokens, _ = collect(make_link(), drafter, request_of())
    assert [token.token_id for token in tokens] == target_alone()


def test_sessions_side_by_side_do_not_mix(toy: tuple[MakeLink, Verifier]) -> None:
    make_link, _ = toy
    prompts = [[n, 2, 3] for n in range(8)]

    async def one(prompt: list[int]) -> list[int]:
        script = prompt + target_alone(prompt)
        drafter = ScriptedDrafter(script, accuracy=0.6, longest=5, n_vocab=16, seed=prompt[0])
        with ThreadPoolExecutor(1) as executor:
            events = Session(make_link(), drafter, Pace(), executor).generate(request_of(prompt_ids=prompt))
            return [event.token_id async for event in events if isinstance(event, Token)]

    async def together() -> list[list[int]]:
        return await asyncio.gather(*(one(prompt) for prompt in prompts))

    assert asyncio.run(together()) == [target_alone(prompt) for prompt in prompts]


@pytest.mark.parametrize(("drafter", "patience_ms"), [(None, 0), (LookupDrafter(), 20)], ids=["none", "lookup"])
def test_the_verifier_waits_for_a_drafter_if_there_is_one(drafter: Drafter | None, patience_ms: int) -> None:
    sent: list[Up] = []

    class Heard(InProcessLink):
        async def send(self, message: Up) -> None:
            sent.append(message)
            await super().send(message)

    async def run(link: Link) -> None:
        with ThreadPoolExecutor(1) as executor:
            session = Session(link, drafter, AheadPace(), executor, max_ahead=8, patience_ms=20)
            assert [event async for event in session.generate(request_of(max_tokens=4))]

    with toy_loop() as (loop, _):
        asyncio.run(run(Heard(loop)))
    assert [message.patience_ms for message in sent if isinstance(message, Open)] == [patience_ms]


def test_leaving_early_ends_the_session_on_the_other_side(toy: tuple[MakeLink, Verifier]) -> None:
    make_link, verifier = toy

    async def leave() -> None:
        with ThreadPoolExecutor(1) as executor:
            events = Session(make_link(), None, Pace(), executor).generate(request_of(max_tokens=400))
            async for _ in events:
                break
            await events.aclose()

    asyncio.run(leave())
    for _ in range(500):
        if not verifier._sessions:
            return
        threading.Event().wait(0.01)
    raise AssertionError("the verifier still holds the session")


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"vocabulary": "other"}, VocabularyMismatch),
        ({"prompt_ids": [1] * 600}, ContextExceeded),
    ],
)
def test_a_refusal_is_the_same_error_over_either_link(
    toy: tuple[MakeLink, Verifier], over: dict[str, object], error: type[OutriderError]
) -> None:
    with pytest.raises(error):
        collect(toy[0](), None, request_of(**over))


@pytest.mark.parametrize("kind", ["in process", "websocket"])
def test_a_broken_model_is_a_typed_error(kind: str) -> None:
    engine = ToyEngine()
    engine.poison = PROMPT[-1]
    with toy_loop(engine) as (loop, _), links(kind, loop) as make_link, pytest.raises(BadLogits):
        collect(make_link(), None, request_of())


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with pytest.raises(LinkLost, match="outrider verifier"):
        collect(WebSocketLink(f"http://127.0.0.1:{port}"), None, request_of())


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "http://", "127.0.0.1:99999999", "http://[::1"])
def test_no_address(url: str) -> None:
    with pytest.raises(InvalidParameter):
        collect(WebSocketLink(url), None, request_of())


def test_a_server_that_is_no_verifier() -> None:
    with (
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlogin") as other,
        pytest.raises(LinkLost, match="not a verifier"),
    ):
        collect(WebSocketLink(other.url), None, request_of())
    assert other.num_asked == 1


def test_a_proxy_whose_verifier_is_gone_is_asked_again() -> None:
    with (
        answering(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n") as other,
        pytest.raises(LinkLost, match="gone for now"),
    ):
        collect(WebSocketLink(other.url), None, request_of())
    assert other.num_asked == QUICK.first_attempts


def test_the_verifier_dies_mid_way() -> None:
    """What came before is kept; what follows is one typed error, on either link."""
    for kind in ("in process", "websocket"):
        got: list[int] = []
        with toy_loop() as (loop, _), links(kind, loop) as make_link:

            async def run(loop: VerifierLoop = loop, make_link: MakeLink = make_link, got: list[int] = got) -> None:
                with ThreadPoolExecutor(1) as executor:
                    async for event in Session(
                        make_link(), LookupDrafter(), Pace(), executor, retry=replace(QUICK, attempts=2)
                    ).generate(request_of()):
                        assert isinstance(event, Token)
                        got.append(event.token_id)
                        if len(got) == 10:
                            await asyncio.to_thread(loop.close)

            with pytest.raises((LinkLost, Overloaded)):
                asyncio.run(run())
            assert len(got) >= 10
            assert got == target_alone()[: len(got)]


@pytest.mark.parametrize("kind", ["in process", "websocket"])
def test_a_verifier_that_has_ended_turns_newcomers_away(kind: str) -> None:
    with toy_loop() as (loop, _), links(kind, loop) as make_link:
        loop.close()
        with pytest.raises((LinkLost, Overloaded)):
            collect(make_link(), None, request_of(), retry=Retry(first_attempts=1))


def test_a_failing_verifier_tells_everyone_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    with toy_loop() as (loop, verifier):
        verifier.step = lambda: 1 // 0
        with pytest.raises(LinkLost):
            collect(InProcessLink(loop), None, request_of())
        assert "ZeroDivisionError" in caplog.text


class BrokenEngine(ToyEngine):
    """Fails on every pass."""

    def extend(self, chunks: object) -> list:
        raise EngineError("broken")


def test_a_drafter_that_fails_costs_no_answer() -> None:
    with toy_loop() as (loop, _):
        drafter = ModelDrafter(BrokenEngine(max_sequences=1), name="broken")
        tokens, finished = collect(InProcessLink(loop), drafter, request_of())
    assert [token.token_id for token in tokens] == target_alone()
    assert finished.report.num_drafted == 0


class LyingLink:
    """A verifier that opens well and then says whatever it was given to say."""

    bytes_up = bytes_down = 0
    rtt_ms = None
    is_padded = False

    def __init__(self, lie: object) -> None:
        self._messages = [Opened("s", "t", "v", 16, 512, 65, 0), lie]

    async def open(self) -> None: ...

    async def send(self, message: object) -> None:
        assert encode(message)

    async def receive(self) -> object:
        return self._messages.pop(0)

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    "lie",
    [
        Verified(0, 5, pack_ids([16]), 0, 0),
        Verified(0, 4, pack_ids([1]), 0, 0),
        Verified(0, 6, pack_ids([1]), 0, 0),
        Verified(0, 5, b"", 0, 0),
        Verified(0, 5, pack_ids([1] * 61), 0, 0),
        Verified(0, 5, b"\x01\x02", 0, 0),
        Opened("s", "t", "v", 16, 512, 65, 0),
    ],
    ids=str,
)
def test_a_lying_verifier_is_refused(lie: object) -> None:
    with pytest.raises(ProtocolError):
        collect(LyingLink(lie), None, request_of())


def test_drafts_that_were_never_made_are_not_counted() -> None:
    claim = Verified(7, 5, pack_ids([1]), 0, 1000, "stop")
    _, finished = collect(LyingLink(claim), None, request_of())
    assert finished.report.num_drafted == 0


@pytest.mark.parametrize("max_ahead", [0, 16])
@pytest.mark.parametrize("n_vocab", [12, 20])
def test_a_drafter_with_other_rows_than_its_target_drafts_what_both_have(n_vocab: int, max_ahead: int) -> None:
    prompt = [1, 14, 3]
    with toy_loop() as (loop, _):
        drafter = ModelDrafter(ToyEngine(n_vocab=n_vocab, max_sequences=1), name="m")
        tokens, finished = collect(InProcessLink(loop), drafter, request_of(prompt_ids=prompt), max_ahead=max_ahead)
    assert [token.token_id for token in tokens] == target_alone(prompt)
    assert finished.reason == "length"


class Broken(LookupDrafter):
    def propose(self, *_: object) -> Proposal:
        raise ValueError("a drafter of somebody's own")


@pytest.mark.parametrize("max_ahead", [0, 16])
def test_whatever_a_drafter_raises_the_verifier_s_session_is_left(max_ahead: int) -> None:
    with toy_loop() as (loop, verifier):
        with pytest.raises(ValueError, match="somebody's own"):
            collect(InProcessLink(loop), Broken(), request_of(), max_ahead=max_ahead)
        until(lambda: not verifier.num_sessions)
