"""Many sessions at once: each gets what it gets alone, and nothing of another's, however scarce the cache is."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloud_verifier.limits import Limits
from cloud_verifier.loop import Connection, VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.events import Token
from edge_runtime.links import InProcessLink, Link, WebSocketLink
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider import catalog
from outrider.choice import SamplingParams, choose
from outrider.engines import EngineSettings, open_engine
from outrider.engines.base import Chunk
from outrider.engines.numerics import ClassEngine
from outrider.engines.profile import choose_class, load_or_measure
from outrider.tokens import TextCodec
from outrider.wire import unpack_ids
from tests.cloud_verifier.test_verifier import open_message
from tests.drafting import EagerPace, ScriptedDrafter
from tests.serving import serving_here
from tests.toy import ToyEngine

NUM_SESSIONS, NUM_TOKENS = 64, 12
COMMON = 50  # ids below are everybody's; each session has ten of its own above
N_VOCAB = COMMON + 10 * NUM_SESSIONS
SHARED = [7, 8, 9, 10, 11, 12]


class EchoEngine(ToyEngine):
    """Says what stands in its cache: of the ids that have an owner, those that its sequence holds, and likes to."""

    def __init__(self, *, confuses: bool = False, **over: int) -> None:
        super().__init__(n_vocab=N_VOCAB, **over)
        self.confuses = confuses

    def _row(self, cache: list[tuple[int, int]]):
        row = super()._row(cache)
        row[COMMON:] -= 100
        row[[token_id for token_id, _ in cache if token_id >= COMMON]] += 108
        return row

    def allocate(self) -> int:
        """A bug for the positive control: a new sequence begins with what another one holds."""
        sequence = super().allocate()
        others = [held for number, held in self._cache.items() if number != sequence and held]
        if self.confuses and others:
            self._cache[sequence] = list(others[0][:1])
        return sequence


def prompt_of(number: int) -> list[int]:
    """A beginning that all share, ten ids that only this session knows, in an order of their own, and a shared end."""
    own = [COMMON + 10 * number + n for n in range(10)]
    random.Random(number).shuffle(own)
    return [*SHARED, *own, *SHARED[:2]]


def owner(token_id: int) -> int | None:
    return None if token_id < COMMON else (token_id - COMMON) // 10


def alone(number: int) -> list[int]:
    engine = EchoEngine()
    sequence, new, tokens = engine.allocate(), prompt_of(number), prompt_of(number)
    for _ in range(NUM_TOKENS):
        new = [choose(engine.extend([Chunk(sequence, new)])[0][0], params_of(number), len(tokens))]
        tokens += new
    return tokens


def params_of(number: int) -> SamplingParams:
    return SamplingParams(temperature=1.0, seed=number) if number % 2 else SamplingParams()


@pytest.fixture(scope="module")
def lists() -> list[list[int]]:
    """What each session says alone, after its prompt."""
    return [alone(number) for number in range(NUM_SESSIONS)]


def drafter_for(number: int, lists: Sequence[Sequence[int]]) -> ScriptedDrafter | None:
    """Good drafts, bad ones, none; and for some the drafts of another session."""
    if number % 4 == 0:
        return None
    script = lists[number - 1] if number % 4 == 1 else lists[number]
    return ScriptedDrafter(script, accuracy=0.8, longest=6, n_vocab=N_VOCAB, seed=number)


async def one(number: int, link: Link, lists: Sequence[Sequence[int]]) -> list[int]:
    request = GenerationRequest(prompt_of(number), NUM_TOKENS, params_of(number), vocabulary="v")
    with ThreadPoolExecutor(1) as executor:
        events = Session(link, drafter_for(number, lists), EagerPace(), executor).generate(request)
        return [event.token_id async for event in events if isinstance(event, Token)]


class As:
    """The verifier as one credential sees it."""

    def __init__(self, loop: VerifierLoop, credential: str) -> None:
        self._loop, self._credential = loop, credential

    def connect(self, deliver, credential: str = "") -> Connection:
        return self._loop.connect(deliver, self._credential)


def crossings(outputs: Sequence[Sequence[int]]) -> int:
    """Tokens that belong to another session than the one that heard them."""
    return sum(owner(token_id) not in (None, number) for number, ids in enumerate(outputs) for token_id in ids)


@pytest.mark.parametrize(
    ("way", "num_sessions", "capacity", "resident_tokens"),
    [
        ("websocket", NUM_SESSIONS, 8, 100),
        ("websocket", 8, 2, 2**24),
        ("two credentials", NUM_SESSIONS, 64, 2**24),
        ("two credentials", NUM_SESSIONS, 8, 2**24),
        ("two credentials", 8, 2, 2**24),
        ("two credentials", 8, 1, 2**24),
    ],
)
def test_sessions_at_once_say_what_each_says_alone(
    way: str, num_sessions: int, capacity: int, resident_tokens: int, lists: list[list[int]]
) -> None:
    engine = EchoEngine(max_sequences=capacity, max_batch=min(capacity, 8))
    limits = Limits(resident_tokens=resident_tokens)
    loop = VerifierLoop(Verifier(engine, target="t", vocabulary="v", limits=limits))

    async def run() -> list[list[int]]:
        if way == "two credentials":
            doors: list[Link] = [InProcessLink(As(loop, "ab"[number % 2])) for number in range(num_sessions)]
            return await asyncio.gather(*(one(number, link, lists) for number, link in enumerate(doors)))
        async with serving_here(loop) as port:
            url = f"http://127.0.0.1:{port}"
            return await asyncio.gather(*(one(number, WebSocketLink(url), lists) for number in range(num_sessions)))

    outputs = asyncio.run(run())
    loop.close()
    cache = loop.verifier.cache
    assert outputs == [full[-NUM_TOKENS:] for full in lists[:num_sessions]]
    assert crossings(outputs) == 0
    assert sum(owner(token_id) is not None for ids in outputs for token_id in ids) > num_sessions  # they do say them
    assert (cache.num_evictions > 0) == (capacity < num_sessions)
    loop.verifier.check_integrity()
    cache.clear()
    assert not engine._cache


def test_a_cache_that_is_mixed_up_is_found_out(lists: list[list[int]]) -> None:
    """The positive control: with another session's beginning in the cache, its ids are said."""
    engine = EchoEngine(max_sequences=8, max_batch=2, confuses=True)
    verifier = Verifier(engine, target="t", vocabulary="v")
    names = {}
    for number in range(8):
        message = open_message(prompt_of(number)[6:], num_tokens=NUM_TOKENS, params=SamplingParams())
        names[verifier.open(message, str(number)).session] = number
    outputs: list[list[int]] = [[] for _ in range(8)]
    while verifier.num_sessions:
        for name, message in verifier.step():
            outputs[names[name]] += unpack_ids(message.token_ids)
    assert crossings(outputs) > 0


REAL_TOKENS = 32
PROMPTS = [
    "Name three uses of a paperclip.",
    "What is a prime number?",
    "Write one line about rain.",
    "Count from one to ten.",
    "Why is the sky blue?",
    "Say hello in French.",
    "Name a river in Africa.",
    "What do bees make?",
]


@pytest.fixture(scope="module")
def real(real_store: None) -> Iterator[tuple[VerifierLoop, list[list[int]], str]]:
    """A real model with room for two sessions, and eight prompts."""
    settings = EngineSettings(max_context=1024, max_sequences=2)
    folder = catalog.find("smollm2-135m-instruct")
    engine = open_engine(folder, settings)
    profile = load_or_measure(folder, engine, settings)
    exact = ClassEngine(engine, choose_class(profile), batch_exact=profile.batch_exact)
    vocabulary = folder.manifest.tokenizer_fingerprint
    loop = VerifierLoop(Verifier(exact, target=folder.manifest.fingerprint, vocabulary=vocabulary))
    codec = TextCodec(folder)
    yield loop, [codec.encode(text) for text in PROMPTS], vocabulary
    loop.close()
    loop.verifier.check_integrity()
    exact.close()


@pytest.mark.weights
def test_eight_sessions_of_a_real_model_with_room_for_two(real: tuple[VerifierLoop, list[list[int]], str]) -> None:
    """Greedy ones and sampled ones, with drafts and without, over the WebSocket."""
    loop, prompts, vocabulary = real

    async def say(port: int, number: int, script: list[int] | None) -> list[int]:
        drafter = script and ScriptedDrafter(
            script, accuracy=0.9, longest=12, n_vocab=loop.verifier.n_vocab, seed=number
        )
        params = SamplingParams(0.8, seed=3) if number % 4 > 1 else SamplingParams()
        request = GenerationRequest(prompts[number], REAL_TOKENS, params, vocabulary=vocabulary)
        with ThreadPoolExecutor(1) as executor:
            session = Session(WebSocketLink(f"http://127.0.0.1:{port}"), drafter or None, EagerPace(), executor)
            return [event.token_id async for event in session.generate(request) if isinstance(event, Token)]

    async def run() -> None:
        async with serving_here(loop) as port:
            serial = [await say(port, number, None) for number in range(8)]
            assert all(len(ids) == REAL_TOKENS for ids in serial)
            assert len(set(map(tuple, serial))) == 8
            before = loop.verifier.cache.num_evictions
            scripts = [prompt + ids for prompt, ids in zip(prompts, serial, strict=True)]
            known = [None if number in (1, 2) else scripts[number] for number in range(8)]
            together = await asyncio.gather(*(say(port, number, known[number]) for number in range(8)))
            assert together == serial
            assert loop.verifier.cache.num_evictions > before + 8

    asyncio.run(run())
