"""The KV cache as a cache: what was computed is used again, only by its owner, and losing it changes nothing."""

import random

import pytest

from cloud_verifier.limits import Limits
from cloud_verifier.verifier import Verifier
from outrider.wire import Verified, unpack_ids
from tests.cloud_verifier.test_verifier import open_message, run, target_alone
from tests.toy import ToyEngine

LONG = [n % 13 for n in range(100)]


def make(engine: ToyEngine, **over: object) -> Verifier:
    return Verifier(engine, target="t", vocabulary="v", **over)


def answer(verifier: Verifier, prompt: list[int], credential: str = "a", num_tokens: int = 10) -> list[int]:
    got: dict[str, list[int]] = {
        verifier.open(open_message(prompt, num_tokens=num_tokens), credential).session: [],
    }
    run(verifier, got)
    return next(iter(got.values()))


def rows_of(engine: ToyEngine, verifier: Verifier, prompt: list[int], credential: str = "a") -> int:
    """Rows that the engine ran for an answer, beyond one a token."""
    before = len(engine.chunks)
    assert answer(verifier, prompt, credential) == target_alone(prompt, 10)
    return sum(sum(sizes) for sizes in engine.chunks[before:]) - 10 + 1


def test_the_next_turn_of_a_conversation_costs_only_what_is_new() -> None:
    engine = ToyEngine()
    verifier = make(engine)
    assert rows_of(engine, verifier, LONG) == len(LONG)
    longer = LONG + target_alone(LONG, 10) + [1, 2, 3]
    opened = verifier.open(open_message(longer), "a")
    assert opened.num_reused == len(LONG) + 9  # the last token had no pass of its own yet
    verifier.close(opened.session)
    assert rows_of(engine, verifier, longer) == 4


def test_a_shared_beginning_is_copied_while_its_owner_goes_on() -> None:
    engine = ToyEngine()
    verifier = make(engine)
    got: dict[str, list[int]] = {verifier.open(open_message(LONG, num_tokens=30), "a").session: []}
    for name, message in verifier.step():
        got[name] += unpack_ids(message.token_ids)
    other = [*LONG[:80], 5, 6]
    second = verifier.open(open_message(other, num_tokens=10), "a").session
    got[second] = []
    run(verifier, got)
    assert list(got.values()) == [target_alone(LONG, 30), target_alone(other, 10)]
    assert verifier.cache.num_reused_tokens == 80


def test_nobody_gains_from_what_another_credential_sent() -> None:
    engine = ToyEngine()
    verifier = make(engine)
    assert rows_of(engine, verifier, LONG, "a") == len(LONG)
    assert verifier.open(open_message(LONG), "b").num_reused == 0
    assert verifier.open(open_message(LONG), "a").num_reused == len(LONG) - 1  # the other half: it is on


def test_capacity_for_two_and_eight_sessions() -> None:
    engine = ToyEngine(max_sequences=2, max_batch=2)
    verifier = make(engine)
    prompts = [[n, 2, 3] for n in range(8)]
    got = {verifier.open(open_message(prompt), "a").session: [] for prompt in prompts}
    run(verifier, got)
    assert list(got.values()) == [target_alone(prompt) for prompt in prompts]
    assert verifier.cache.num_evictions >= 6


def test_more_sessions_than_places_take_turns_of_many_passes() -> None:
    """One pass each, in order, would fill every cache anew each time."""
    engine = ToyEngine(max_sequences=2, max_batch=1)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.0001
        return now

    verifier = make(engine, pass_ms={1: 1.0, 2: 1.1}, clock=clock)
    prompts = [[n, *LONG] for n in range(6)]
    got = {verifier.open(open_message(prompt, num_tokens=100), "a").session: [] for prompt in prompts}
    run(verifier, got)
    assert list(got.values()) == [target_alone(prompt, 100) for prompt in prompts]
    assert verifier.cache.num_evictions > 6
    assert sum(map(sum, engine.chunks)) < 10 * 6 * (len(LONG) + 100)  # one pass each: fifty times as many


def test_a_newcomer_waits_for_nobody_while_there_is_a_place() -> None:
    engine = ToyEngine(max_sequences=2, max_batch=1)
    verifier = make(engine, pass_ms={1: 1000.0, 2: 1001.0})
    verifier.open(open_message(LONG, num_tokens=100), "a")
    for _ in range(5):
        verifier.step()
    newcomer = verifier.open(open_message([1, 2, 3], num_tokens=9), "a").session
    assert newcomer in [name for _ in range(2) for name, _ in verifier.step()]


def test_a_budget_of_tokens_is_kept() -> None:
    engine = ToyEngine(max_sequences=4, max_batch=1)
    verifier = make(engine, limits=Limits(resident_tokens=250))
    prompts = [[n, *LONG] for n in range(4)]
    got = {verifier.open(open_message(prompt, num_tokens=20), "a").session: [] for prompt in prompts}
    most = 0
    while any(len(tokens) < 20 for tokens in got.values()):
        for name, message in verifier.step():
            assert isinstance(message, Verified)
            got[name] += unpack_ids(message.token_ids)
        most = max(most, verifier.cache.num_tokens)
        verifier.check_integrity()
    assert list(got.values()) == [target_alone(prompt, 20) for prompt in prompts]
    assert most <= 250 + 128
    assert verifier.cache.num_evictions > 0


@pytest.mark.parametrize("seed", range(8))
def test_any_mix_of_prompts_credentials_and_losses_gives_the_target_s_lists(seed: int) -> None:
    rng = random.Random(seed)
    engine = ToyEngine(max_sequences=rng.choice([1, 2, 5]), max_batch=rng.choice([1, 2]))
    verifier = make(engine, limits=Limits(resident_tokens=rng.choice([60, 10_000])))
    known = [LONG[: rng.randrange(1, 60)]]
    got: dict[str, list[int]] = {}
    want: dict[str, list[int]] = {}
    for _ in range(120):
        if len(got) < 12 and rng.random() < 0.3:
            prompt = [*rng.choice(known)[: rng.randrange(1, 60)], rng.randrange(16)]
            known.append(prompt + target_alone(prompt, 8))
            name = verifier.open(open_message(prompt, num_tokens=8), rng.choice("ab")).session
            got[name], want[name] = [], target_alone(prompt, 8)
        if got and rng.random() < 0.1:
            verifier.drop_cache(rng.choice(list(got)))
        for name, message in verifier.step():
            assert isinstance(message, Verified)
            got[name] += unpack_ids(message.token_ids)
        verifier.check_integrity()
    while verifier.num_sessions:
        for name, message in verifier.step():
            got[name] += unpack_ids(message.token_ids)
    assert got == want, f"seed {seed}"


@pytest.mark.parametrize("differs_at", [0, 1, 63, 64, 65, 100, 199])
def test_lists_are_shared_up_to_the_first_token_that_differs(differs_at: int) -> None:
    verifier = make(ToyEngine())
    tokens = [n % 7 for n in range(200)]
    answer(verifier, tokens)
    other = [*tokens[:differs_at], 15, *tokens[differs_at + 1 :]]
    assert verifier.cache.num_shared("a", other) == differs_at
    assert verifier.cache.num_shared("a", [*tokens, 15]) == 200


@pytest.mark.parametrize("max_batch", [1, 2])
def test_more_long_prompts_than_sequences_are_all_filled(max_batch: int) -> None:
    """Each takes seven passes to fill; taking turns they would evict each other half-filled, and none would end."""
    engine = ToyEngine(max_sequences=2, max_batch=max_batch)
    verifier = make(engine, limits=Limits(fill_tokens=16))
    prompts = [[n] * 100 for n in range(5)]
    got = {
        verifier.open(open_message(prompt, num_tokens=5), "ab"[n % 2]).session: [] for n, prompt in enumerate(prompts)
    }
    run(verifier, got)
    assert list(got.values()) == [target_alone(prompt, 5) for prompt in prompts]
