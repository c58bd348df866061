"""With drafts of any kind, over either link, and with the cache lost on the way: the target's own tokens, bit for bit.

For each target the reference is the target alone: no drafts, one token after the other, held to its numerics class.
Every other run must give the same tokens, and every choice must have been made on the same bits of logits.
Lookup and wrong drafts take turns with right ones: many passes are tried in few tokens, and refusals after acceptances.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.ahead import MAX_AHEAD, AheadPace
from edge_runtime.drafters import Drafter, LookupDrafter
from edge_runtime.events import Token
from edge_runtime.links import InProcessLink, Link, WebSocketLink
from edge_runtime.pacing import Pace
from edge_runtime.parts import open_drafter
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.engines import Chunk, EngineSettings, open_engine
from outrider.engines.base import Logits
from outrider.engines.fastest import fastest
from outrider.engines.numerics import ClassEngine, class_cost_ms
from outrider.engines.profile import choose_class, load_or_measure
from outrider.manifest import ModelFolder
from outrider.tokens import TextCodec
from tests.drafting import EagerPace, ScriptedDrafter, TakingTurns
from tests.real.prompts import PROMPTS
from tests.serving import serving

pytestmark = pytest.mark.weights

NUM_TOKENS = 128
SETTINGS = EngineSettings(max_context=1024, max_sequences=2)
GREEDY = SamplingParams()
SAMPLED = SamplingParams(temperature=0.8, seed=20)
# The target, what it runs on, its drafter, and of how many prompts: the second library for ONNX is asked a few.
TARGETS = (
    ("qwen2.5-coder-1.5b-onnx", "auto", "qwen2.5-coder-0.5b-onnx-trim", len(PROMPTS)),
    ("qwen2.5-coder-1.5b-onnx", "cpu", "qwen2.5-coder-0.5b-onnx-trim", 2),
    ("smollm2-135m-instruct", "auto", "smollm2-135m-onnx-general", len(PROMPTS)),
)


class Recorder:
    """The target's engine, noting for each position the bits of the logits that its token was chosen from.

    A later pass over a position overwrites what an earlier one noted: what stays is from the pass that decided.
    """

    def __init__(self, engine: ClassEngine) -> None:
        self._engine = engine
        self.bits: dict[int, bytes] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        rows = self._engine.extend(chunks)
        for chunk, logits in zip(chunks, rows, strict=True):
            end = self._engine.length(chunk.sequence) + 1
            for position, row in zip(range(end - len(logits), end), logits, strict=True):
                self.bits[position] = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        return rows


@dataclass
class Alone:
    """What the target says by itself: tokens of each prompt, and the bits behind each."""

    tokens: list[list[int]] = field(default_factory=list)
    bits: list[dict[int, bytes]] = field(default_factory=list)


class Bench:
    """One loaded target, its drafter, and what the target says alone."""

    def __init__(self, folder: ModelFolder, provider: str, drafter: str, num_prompts: int) -> None:
        settings = fastest(folder, replace(SETTINGS, provider=provider))
        engine = open_engine(folder, settings)
        profile = load_or_measure(folder, engine, settings)
        sizes = choose_class(profile)
        assert len(sizes) > 1, "the target has no class of pass sizes with equal bits"
        self.recorder = Recorder(ClassEngine(engine, sizes, batch_exact=profile.batch_exact))
        manifest = folder.manifest
        self.vocabulary, self.n_vocab = manifest.tokenizer_fingerprint, manifest.n_vocab
        self.pass_ms = class_cost_ms(profile.cost_ms, sizes)
        self.verifier = Verifier(self.recorder, target=manifest.fingerprint, vocabulary=self.vocabulary)
        self.loop = VerifierLoop(self.verifier)
        model = open_drafter(drafter, folder, EngineSettings(max_context=1024))
        assert model is not None
        self.model = model
        codec = TextCodec(folder)
        self.prompts = [codec.encode_chat([{"role": "user", "content": text}]) for text in PROMPTS[:num_prompts]]
        self._alone: dict[SamplingParams, Alone] = {}

    def alone(self, params: SamplingParams) -> Alone:
        if params not in self._alone:
            alone = Alone()
            for prompt in self.prompts:
                alone.tokens.append(self.generate(prompt, params, None))
                alone.bits.append(self.deciding_bits(prompt, alone.tokens[-1]))
            self._alone[params] = alone
        return self._alone[params]

    def generate(
        self,
        prompt: list[int],
        params: SamplingParams,
        drafter: Drafter | None,
        link: Link | None = None,
        pace: type[Pace] = Pace,
    ) -> list[int]:
        """Exactly NUM_TOKENS tokens: end-of-text tokens do not end it, so that every prompt counts in full."""
        self.recorder.bits.clear()
        request = GenerationRequest(prompt, NUM_TOKENS, params, (), self.vocabulary, self_drafts=link is not None)

        async def run() -> list[int]:
            with ThreadPoolExecutor(1) as executor:
                # Over the socket the drafter runs ahead and the verifier drafts too, in this process they take turns.
                session = Session(
                    link or InProcessLink(self.loop),
                    drafter,
                    AheadPace() if link else pace(self.pass_ms),
                    executor,
                    max_ahead=MAX_AHEAD if link else 0,
                )
                return [event.token_id async for event in session.generate(request) if isinstance(event, Token)]

        tokens = asyncio.run(run())
        assert len(tokens) == NUM_TOKENS
        return tokens

    def deciding_bits(self, prompt: list[int], tokens: list[int]) -> dict[int, bytes]:
        return {position: self.recorder.bits[position] for position in range(len(prompt), len(prompt) + len(tokens))}

    def must_equal_alone(
        self,
        params: SamplingParams,
        drafter_for: Callable[[int], Drafter | None],
        url: str | None = None,
        pace: type[Pace] = EagerPace,
    ) -> None:
        alone = self.alone(params)
        for number, prompt in enumerate(self.prompts):
            link = WebSocketLink(url) if url else None
            tokens = self.generate(prompt, params, drafter_for(number), link, pace)
            assert tokens == alone.tokens[number], f"prompt {number}"
            assert self.deciding_bits(prompt, tokens) == alone.bits[number], f"prompt {number}"

    def scripted(self, params: SamplingParams, *, accuracy: float, longest: int) -> Callable[[int], Drafter]:
        """Drafters that know what the target will say. For wrong drafts and random lengths."""
        alone = self.alone(params)
        return lambda number: ScriptedDrafter(
            self.prompts[number] + alone.tokens[number],
            accuracy=accuracy,
            longest=longest,
            n_vocab=self.n_vocab,
            seed=number,
        )

    def close(self) -> None:
        self.loop.close()
        self.verifier.check_integrity()
        self.model.close()
        self.recorder.close()


@pytest.fixture(scope="module", params=TARGETS, ids=lambda target: f"{target[0]}-{target[1]}")
def bench(request: pytest.FixtureRequest, real_store: None) -> Iterator[Bench]:
    name, *others = request.param
    made = Bench(catalog.find(name), *others)
    yield made
    made.close()


@pytest.fixture(params=[GREEDY, SAMPLED], ids=["greedy", "sampled"])
def params(request: pytest.FixtureRequest) -> SamplingParams:
    return request.param


def test_model_drafts(bench: Bench, params: SamplingParams) -> None:
    bench.must_equal_alone(params, lambda number: bench.model, pace=Pace)


def test_lookup_drafts(bench: Bench, params: SamplingParams) -> None:
    right = bench.scripted(params, accuracy=1.0, longest=15)
    bench.must_equal_alone(params, lambda number: TakingTurns(LookupDrafter(), right(number)))


def test_wrong_drafts_and_random_lengths_over_the_websocket_with_the_cache_lost_on_the_way(
    bench: Bench, params: SamplingParams
) -> None:
    """Drafts wholly wrong and nearly always right, by turns, 0 to 15 at random; every twentieth pass begins
    with an empty cache."""
    wrong = bench.scripted(params, accuracy=0.0, longest=15)
    right_nearly_always = bench.scripted(params, accuracy=0.9, longest=15)
    step = bench.verifier.step
    count = 0

    def forgetful() -> list:
        nonlocal count
        count += 1
        if count % 20 == 0:
            for name in list(bench.verifier._sessions):
                bench.verifier.drop_cache(name)
        return step()

    bench.verifier.step = forgetful
    try:
        with serving(bench.loop) as url:
            bench.must_equal_alone(params, lambda number: TakingTurns(wrong(number), right_nearly_always(number)), url)
    finally:
        bench.verifier.step = step
    assert count > 20 * len(bench.prompts)


def test_outside_the_class_the_bits_differ(bench: Bench) -> None:
    """The positive control: without the class, passes of one token and of many do not agree."""
    engine = bench.recorder._engine._engine
    prompt, tokens = bench.prompts[0], bench.alone(GREEDY).tokens[0]
    alone = bench.alone(GREEDY).bits[0]
    bench.verifier.cache.clear()  # what ended sessions left there
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, prompt, num_logits=0)])
    differing = 0
    for position, token_id in enumerate(tokens[:32], start=len(prompt) + 1):
        row = engine.extend([Chunk(sequence, [token_id])])[0][0]
        differing += hashlib.blake2b(row.tobytes(), digest_size=16).digest() != alone.get(position)
    engine.release(sequence)
    assert differing > 0
