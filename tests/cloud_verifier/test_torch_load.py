"""The verifier over the torch engine: many sessions in shared passes, each told what it is told alone."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache

import pytest

from cloud_verifier.limits import Limits
from cloud_verifier.verifier import Verifier
from outrider.choice import SamplingParams
from outrider.engines import Engine, EngineSettings, open_engine
from outrider.manifest import ModelFolder
from outrider.wire import Draft, Load, Verified, pack_ids, pack_parents, unpack_ids
from tests.cloud_verifier.test_verifier import open_message, run
from tests.outrider.engines.tiny import N_VOCAB, tiny_hf

NUM_SESSIONS, NUM_TOKENS = 12, 14
LIMITS = Limits(fill_tokens=16, pass_tokens=96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_hf(tmp_path_factory.mktemp("hf") / "tiny")


@dataclass(frozen=True)
class Work:
    """Long and short prompts, how to choose, and what each session says alone."""

    prompts: list[list[int]]
    params: list[SamplingParams]
    alone: list[list[int]]


@pytest.fixture(scope="module")
def work(folder: ModelFolder) -> Iterator[Callable[[int], Work]]:
    """By seed."""
    with closing(open_engine(folder, EngineSettings(num_threads=1, max_context=160, max_sequences=1))) as engine:

        @cache
        def work(seed: int) -> Work:
            rng = random.Random(seed)
            prompts = [[rng.randrange(N_VOCAB) for _ in range(rng.choice([1, 9, 90]))] for _ in range(NUM_SESSIONS)]
            params = [SamplingParams(temperature=number % 2, seed=number) for number in range(NUM_SESSIONS)]
            alone = []
            for prompt, choice in zip(prompts, params, strict=True):
                verifier = Verifier(engine, target="t", vocabulary="v", limits=LIMITS)
                got = {verifier.open(open_message(prompt, NUM_TOKENS, choice)).session: []}
                run(verifier, got)
                alone += got.values()
                verifier.cache.clear()
            return Work(prompts, params, alone)

        yield work


@pytest.fixture(params=[12, 5], ids=["room for all", "eviction pressure"])
def engine(folder: ModelFolder, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = open_engine(folder, EngineSettings(num_threads=1, max_context=160, max_sequences=request.param))
    yield engine
    engine.close()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_every_output_is_its_serial_run(engine: Engine, work: Callable[[int], Work], seed: int) -> None:
    """Drafts right and wrong, in chains and trees, that come at any time."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    prompts, params, alone = work(seed).prompts, work(seed).params, work(seed).alone
    verifier = Verifier(engine, target="t", vocabulary="v", limits=LIMITS)
    num_sessions: list[int] = []
    verifier.on_pass.append(lambda report: num_sessions.append(report.num_sessions))
    names = [
        verifier.open(open_message(prompt, NUM_TOKENS, choice)).session
        for prompt, choice in zip(prompts, params, strict=True)
    ]
    told: dict[str, list[int]] = {name: [] for name in names}
    epochs = dict.fromkeys(names, 0)
    for _ in range(2000):
        for name, message in verifier.step():
            if isinstance(message, Load):  # more are ready than a pass takes
                continue
            assert isinstance(message, Verified)
            told[name] += unpack_ids(message.token_ids)
        verifier.check_integrity()
        for number, name in enumerate(names):
            if rng.random() < 0.6 and len(told[name]) < NUM_TOKENS:
                epochs[name] += 1
                verifier.receive(name, drafts(rng, epochs[name], len(prompts[number]), told[name], alone[number]))
        if not verifier.num_sessions:
            break
    assert list(told.values()) == alone
    assert max(num_sessions) == min(NUM_SESSIONS, engine.max_sequences)
    verifier.cache.clear()


def drafts(rng: random.Random, epoch: int, num_prompt: int, told: list[int], truth: list[int]) -> Draft:
    right = truth[len(told) : len(told) + rng.randint(1, 6)]
    guessed = [token if rng.random() < 0.8 else rng.randrange(N_VOCAB) for token in right]
    if rng.random() < 0.5:
        return Draft(epoch, num_prompt + len(told), pack_ids(guessed), bytes([250] * len(guessed)))
    # A wrong sibling before each guess: a tree whose right path takes every other row.
    ids, parents = [], []
    for depth, token in enumerate(guessed):
        ids += [(token + 1) % N_VOCAB, token]
        parents += [2 * depth - 1] * 2
    return Draft(epoch, num_prompt + len(told), pack_ids(ids), bytes([250] * len(ids)), pack_parents(parents))
