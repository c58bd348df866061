"""Penalties, biases and grammars under speculation: token for token what the definition says, whatever is drafted."""

import random

import pytest
from msgspec.structs import replace

from cloud_verifier.verifier import Verifier
from outrider.choice import SamplingParams
from outrider.constraint import Grammar
from outrider.errors import InvalidParameter, InvalidToken, OutriderError, ProtocolError
from outrider.wire import Draft, Fault, Open, Params, Verified, pack_ids, pack_parents, unpack_ids
from tests.cloud_verifier.test_trees import grow
from tests.cloud_verifier.test_verifier import run
from tests.sampling import (
    FEATURES,
    HARD,
    JSON,
    PROMPT,
    REGEX,
    STOP,
    WAYS,
    alone,
    params_of,
    stop_ids_of,
    toy_compiler,
)
from tests.toy import ToyEngine

every_way = pytest.mark.parametrize("way", WAYS)
every_feature = pytest.mark.parametrize("feature", FEATURES)


def make(**over: object) -> Verifier:
    return Verifier(ToyEngine(**over), target="t", vocabulary="v", constrain=toy_compiler())


def open_message(params: SamplingParams, answer: tuple[int, ...] = (), **over: object) -> Open:
    fields = {
        "vocabulary": "v",
        "target": "",
        "params": Params.of(params),
        "limit": len(PROMPT) + 60,
        "patience_ms": -1,
        "stop_ids": pack_ids(stop_ids_of(params)),
        "token_ids": pack_ids([*PROMPT, *answer]),
    }
    return Open(**{**fields, **over})


@every_way
@every_feature
def test_without_drafts_it_is_as_defined(feature: str, way: str) -> None:
    params = params_of(feature, way)
    verifier = make()
    got = {verifier.open(open_message(params, patience_ms=0)).session: []}
    run(verifier, got)
    assert tuple(*got.values()) == alone(params)


@every_way
@every_feature
@pytest.mark.parametrize("supports_tree", [False, True], ids=["chains", "trees"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_any_drafts_give_the_same_list(feature: str, way: str, supports_tree: bool, seed: int) -> None:
    """Right, wrong, illegal and stale drafts, chains and trees, caches lost on the way."""
    rng = random.Random(seed)
    params = params_of(feature, way)
    want = list(alone(params))
    verifier = make(supports_tree=supports_tree)
    name = verifier.open(open_message(params)).session
    got: list[int] = []
    accepted = 0
    finish = None
    for epoch in range(400):
        frontier = len(PROMPT) + len(got)
        start = max(len(PROMPT), frontier - rng.randrange(3))
        truth = want[start - len(PROMPT) :]
        if rng.random() < 0.5:
            ids, parents = grow(rng, truth)
            verifier.receive(name, Draft(epoch, start, pack_ids(ids), parents=pack_parents(parents)))
        else:
            ids = [t if rng.random() < 0.8 else rng.randrange(16) for t in truth[: rng.randrange(9)]]
            verifier.receive(name, Draft(epoch, start, pack_ids([*ids, rng.randrange(16)])))
        if rng.random() < 0.1:
            verifier.drop_cache(name)
        verifier.receive(name, Draft(epoch, frontier, b""))
        for _, message in verifier.step():
            if isinstance(message, Verified):
                assert message.start == len(PROMPT) + len(got)
                got += unpack_ids(message.token_ids)
                accepted += message.num_accepted
                finish = message.finish
        verifier.check_integrity()
        if finish:
            break
    assert got == want, f"seed {seed}"
    assert finish == ("length" if len(want) == 60 and want[-1] not in stop_ids_of(params) else "stop")
    assert accepted > 0


@every_feature
def test_resuming_goes_on_as_if_nothing_had_been(feature: str) -> None:
    """What is counted and where the grammar stands follow from the list alone."""
    params = params_of(feature, "sampled")
    want = alone(params)
    for cut in {1, len(want) // 2, len(want) - 1}:
        verifier = make()
        got = {verifier.open(open_message(params, want[:cut], patience_ms=0)).session: []}
        run(verifier, got)
        assert tuple(*got.values()) == want[cut:]


def test_tokens_after_an_accepted_stop_are_not_looked_at() -> None:
    params = params_of("json", "greedy")
    want = list(alone(params))
    verifier = make()
    name = verifier.open(open_message(params)).session
    verifier.step()
    verifier.receive(name, Draft(0, len(PROMPT) + 1, pack_ids([*want[1:], 3, STOP, 0, 3])))
    got = {name: want[:1]}
    run(verifier, got)
    assert got[name] == want


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"params": Params(0.0, 0, 1.0, 0.0, 0, bias_ids=pack_ids([16]), biases=[1.0])}, InvalidToken),
        ({"params": Params(0.0, 0, 1.0, 0.0, 0, bias_ids=pack_ids([2**32 - 1]), biases=[1.0])}, InvalidToken),
        ({"params": Params(0.0, 0, 1.0, 0.0, 0, bias_ids=pack_ids([1, 1]), biases=[1.0, 2.0])}, InvalidParameter),
        ({"params": Params(0.0, 0, 1.0, 0.0, 0, bias_ids=pack_ids([1]))}, ProtocolError),
        ({"params": Params(0.0, 0, 1.0, 0.0, 0, num_prompt=6)}, InvalidParameter),
        ({"params": Params(0.0, 0, 1.0, 0.0, 0, grammar="a")}, InvalidParameter),
        ({"params": Params(0.0, 0, 1.0, 0.0, 0, grammar_kind="regex")}, InvalidParameter),
        ({"params": Params(0.0, 0, 1.0, 0.0, 0, grammar_kind="regex", grammar="(")}, InvalidParameter),
        ({"params": Params.of(SamplingParams(grammar=JSON))}, InvalidParameter),  # the prompt is no JSON
    ],
)
def test_what_cannot_be_is_refused_before_the_engine_is_asked(over: dict, error: type[OutriderError]) -> None:
    engine = ToyEngine()
    verifier = Verifier(engine, target="t", vocabulary="v", constrain=toy_compiler())
    with pytest.raises(error):
        verifier.open(replace(open_message(SamplingParams()), **over))
    assert (engine.num_passes, verifier.num_sessions) == (0, 0)
    assert not verifier.guards
    verifier.check_integrity()


def test_a_verifier_without_a_compiler_refuses_grammars() -> None:
    verifier = Verifier(ToyEngine(), target="t", vocabulary="v")
    with pytest.raises(InvalidParameter, match="no grammars"):
        verifier.open(open_message(params_of("regex", "greedy")))


def test_a_grammar_that_fails_ends_its_session_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.constraint.MAX_ITEMS", 200)
    verifier = make()
    hard = SamplingParams(grammar=HARD, logit_bias=((8, 50.0),), num_prompt=len(PROMPT))
    message = open_message(hard, limit=500, patience_ms=0)
    failing = verifier.open(message).session
    good = verifier.open(open_message(params_of("all", "sampled"), patience_ms=0)).session
    faults, got = [], []
    while verifier.num_sessions:
        for name, message in verifier.step():
            if isinstance(message, Fault):
                faults.append((name, message.code, message.may_retry))
            elif name == good:
                got += unpack_ids(message.token_ids)
        verifier.check_integrity()
    assert faults == [(failing, "grammar_failed", False)]
    assert tuple(got) == alone(params_of("all", "sampled"))


def test_logprobs_are_the_model_s_own_whatever_is_asked_of_the_sampler() -> None:
    params = SamplingParams(grammar=Grammar("regex", "a{20}"), num_prompt=len(PROMPT))
    told = []
    for each in (params, SamplingParams()):
        verifier = make()
        verifier.open(open_message(each, num_logprobs=16))
        [(_, message)] = verifier.step()
        told.append(message.logprobs[0])
    assert told[0].token_ids == told[1].token_ids
    assert told[0].logprobs == told[1].logprobs
    assert told[0].chosen < told[1].chosen  # the grammar made it take another than the best


def test_the_answer_so_far_must_follow_the_grammar() -> None:
    with pytest.raises(InvalidParameter, match="does not follow"):
        make().open(open_message(SamplingParams(grammar=REGEX, num_prompt=len(PROMPT)), (0,)))
