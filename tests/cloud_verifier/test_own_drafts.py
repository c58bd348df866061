"""The verifier's own drafts: the same list, sooner; paid for by the same rule; not counted as the device's."""

import itertools
import random

import msgspec
import pytest

from cloud_verifier.limits import Limits
from cloud_verifier.own_drafts import PIECE, OwnDrafts
from cloud_verifier.turn import PassReport
from cloud_verifier.verifier import Verifier
from outrider.choice import SamplingParams
from outrider.engines.base import Engine
from outrider.engines.numerics import ClassEngine
from outrider.errors import InvalidParameter
from outrider.lookup import SuffixAutomaton
from outrider.wire import Draft, Verified, decode_up, encode, pack_ids, unpack_ids
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED, open_message, run, target_alone
from tests.sampling import FEATURES, WAYS, alone, params_of, stop_ids_of, toy_compiler
from tests.sampling import PROMPT as SAMPLING_PROMPT
from tests.toy import ToyEngine

GREEDY = SamplingParams()
CLASSES = [[1], list(range(2, 33)), [64]]
both = pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])


def make(engine: Engine | None = None, **over: object) -> tuple[Verifier, list[PassReport]]:
    verifier = Verifier(engine or ToyEngine(), target="t", vocabulary="v", **over)
    passes: list[PassReport] = []
    verifier.on_pass.append(passes.append)
    return verifier, passes


def num_own(passes: list[PassReport]) -> tuple[int, int]:
    """Drafted and accepted."""
    return sum(sum(each.own_drafted) for each in passes), sum(sum(each.own_accepted) for each in passes)


@both
@pytest.mark.parametrize("has_classes", [False, True], ids=["one class", "numerics classes"])
def test_a_device_that_sends_nothing_gets_the_same_list_in_fewer_passes(
    params: SamplingParams, has_classes: bool
) -> None:
    engine = ClassEngine(ToyEngine(classes=CLASSES), CLASSES[1]) if has_classes else ToyEngine()
    verifier, passes = make(engine)
    got = {verifier.open(open_message(params=params, num_tokens=200, self_drafts=True)).session: []}
    run(verifier, got)
    assert list(got.values()) == [target_alone(params=params, num_tokens=200)]
    drafted, accepted = num_own(passes)
    assert verifier.num_passes == 200 - accepted
    assert 0 < accepted <= drafted
    if params is GREEDY:  # the toy goes round in circles
        assert verifier.num_passes < 60


@both
@pytest.mark.parametrize("seed", range(6))
def test_with_any_drafts_of_the_device_between_them(params: SamplingParams, seed: int) -> None:
    """Right, wrong, early and late ones; caches lost on the way. What is told of drafts is told of the device's."""
    rng = random.Random(seed)
    want = target_alone(params=params, num_tokens=150)
    full = PROMPT + want
    verifier, passes = make(ClassEngine(ToyEngine(classes=CLASSES, max_sequences=rng.choice([1, 4])), CLASSES[1]))
    name = verifier.open(open_message(params=params, num_tokens=150, self_drafts=True)).session
    got: list[int] = []
    epoch, sent, told, told_drafted, told_accepted = 0, 0, 0, 0, 0
    while len(got) < len(want):
        if rng.random() < 0.4:
            epoch += rng.choice([0, 1])
            start = len(PROMPT) + len(got) + rng.randrange(-3, 2)
            ids = [i if rng.random() < 0.9 else (i + 1) % 16 for i in full[start : start + rng.randrange(9)]]
            sent += len(ids)
            verifier.receive(name, Draft(epoch, start, pack_ids(ids)))
        if rng.random() < 0.1:
            verifier.drop_cache(name)
        for _, message in verifier.step():
            assert isinstance(message, Verified)
            assert message.start == len(PROMPT) + len(got)
            got += unpack_ids(message.token_ids)
            told += 1
            told_drafted += message.num_drafted
            told_accepted += message.num_accepted
        verifier.check_integrity()
    assert got == want, f"seed {seed}"
    assert told_drafted == sum(sum(each.drafted) for each in passes) <= sent
    assert told_accepted == sum(sum(each.accepted) for each in passes)
    assert told == len(want) - told_accepted - num_own(passes)[1]
    assert verifier.guards[""].num_rejected == told_drafted - told_accepted


def test_they_go_on_where_the_device_s_drafts_end() -> None:
    repeated = [3, 1, 4, 1, 5, 9, 2, 6]
    engine = Following(repeated)
    verifier, passes = make(engine)
    name = verifier.open(open_message([*repeated, *repeated], params=GREEDY, self_drafts=True)).session
    verifier.receive(name, Draft(0, 16, pack_ids(repeated[:3]), bytes([250] * 3)))
    [(_, message)] = verifier.step()
    assert (message.num_drafted, message.num_accepted) == (3, 3)
    drafted, accepted = num_own(passes)
    assert drafted == accepted > 10
    assert unpack_ids(message.token_ids) == (repeated * 4)[: 4 + accepted]


class Following(ToyEngine):
    """Says the ids of a circle, one after the other."""

    def __init__(self, circle: list[int]) -> None:
        super().__init__(classes=())
        self._circle = circle

    def _row(self, cache):
        row = super()._row(cache)
        row[self._circle[len(cache) % len(self._circle)]] = 100.0
        return row


@pytest.mark.parametrize(("feature", "way"), list(zip(FEATURES, itertools.cycle(WAYS), strict=False)))
def test_with_everything_that_is_asked_of_a_sampler(feature: str, way: str) -> None:
    params = params_of(feature, way)
    verifier, _ = make(constrain=toy_compiler())
    over = {"limit": len(SAMPLING_PROMPT) + 60, "stop_ids": pack_ids(stop_ids_of(params)), "self_drafts": True}
    got = {verifier.open(open_message(SAMPLING_PROMPT, params=params, **over)).session: []}
    run(verifier, got)
    assert tuple(*got.values()) == alone(params)


@pytest.mark.parametrize(
    ("asked", "patience_ms", "lookup_tokens"),
    [(False, 0, 1000), (True, -1, 1000), (True, 0, 0)],
    ids=["not asked for", "the device decides when there is a pass", "switched off"],
)
def test_where_there_are_none(asked: bool, patience_ms: int, lookup_tokens: int) -> None:
    verifier, passes = make(limits=Limits(lookup_tokens=lookup_tokens))
    message = open_message(params=GREEDY, self_drafts=asked, patience_ms=patience_ms)
    got = {verifier.open(message).session: []}
    while len(got[name := next(iter(got))]) < 60:
        verifier.receive(name, Draft(0, len(PROMPT) + len(got[name]), b""))
        got[name] += [i for _, message in verifier.step() for i in unpack_ids(message.token_ids)]
    assert got[name] == target_alone(params=GREEDY)
    assert verifier.num_passes == 60
    assert num_own(passes) == (0, 0)


def test_the_memory_for_them_is_bounded_and_shared() -> None:
    verifier, _ = make(limits=Limits(lookup_tokens=3 * 65))  # 65 for each

    def open_for(credential: str) -> str:
        return verifier.open(open_message(params=GREEDY, self_drafts=True), credential).session

    names = [open_for(credential) for credential in "aabcd"]

    def drafting() -> list[bool]:
        return [live.own is not None for live in verifier._sessions.values()]

    assert drafting() == [True, False, True, True, False]
    verifier.close(names[2])
    open_for("d")
    assert drafting() == [True, False, True, False, True]
    with pytest.raises(InvalidParameter, match="lookup_tokens is -1; give a number from 0 on"):
        Limits(lookup_tokens=-1)


def test_own_drafts_that_keep_missing_cost_hardly_more_than_none() -> None:
    """Noise over few ids: every end of the text occurred before, and tells nothing of what follows."""
    pass_ms = {rows: 1 + 0.5 * (rows - 1) for rows in range(1, 33)}
    params = SamplingParams(temperature=50.0, seed=0)
    verifier, passes = make(ToyEngine(n_vocab=3, max_context=2000), pass_ms=pass_ms)
    got = {verifier.open(open_message([0, 1, 2], 1000, params, self_drafts=True)).session: []}
    run(verifier, got, max_steps=2000)
    drafted, accepted = num_own(passes)
    assert drafted > accepted
    cost = sum(pass_ms[min(32, max(1, each.num_rows - each.num_filled))] for each in passes)
    assert cost <= 1.02 * 1000 + 8 + pass_ms[32]


class Contrary(ToyEngine):
    """Never says what looking up would propose. For one session."""

    def __init__(self, **over):
        super().__init__(**over)
        self._text = SuffixAutomaton()

    def _row(self, cache):
        token_ids, text = [token_id for token_id, _ in cache], self._text
        while text.token_ids != token_ids[: len(text.token_ids)]:
            text.truncate(len(text.token_ids) - 1)
        for token_id in token_ids[len(text.token_ids) :]:
            text.append(token_id)
        row = super()._row(cache)
        row[text.propose(1).token_ids] = -100.0
        return row


def test_the_guard_bounds_what_own_drafts_cost_whatever_the_text() -> None:
    pass_ms = {rows: 1 + 0.1 * (rows - 1) for rows in range(1, 33)}
    verifier, passes = make(Contrary(n_vocab=3, max_context=2000), pass_ms=pass_ms)
    got = {verifier.open(open_message([0, 1, 2], 500, GREEDY, self_drafts=True)).session: []}
    run(verifier, got)
    drafted, accepted = num_own(passes)
    assert drafted > accepted == 0
    assert sum(pass_ms[1 + sum(each.own_drafted)] for each in passes) <= 1.02 * 500 + 4 + pass_ms[32]


def test_they_leave_the_device_s_drafts_half_of_the_slack() -> None:
    circle = [3, 1, 4, 1, 5, 9, 2, 6]
    verifier, passes = make(Following(circle), pass_ms={rows: 1 + 0.1 * (rows - 1) for rows in range(1, 33)})
    name = verifier.open(open_message(circle * 2, params=GREEDY, self_drafts=True)).session
    guard = verifier.guards[""]
    while guard.allows_own:
        guard.observe(num_drafted=10, num_accepted=0, num_tokens=1, num_own=10)
    assert guard.allows_drafts
    assert guard.num_rejected == 0
    verifier.step()
    assert (passes[-1].drafted, passes[-1].own_drafted) == ([0], [0])
    verifier.receive(name, Draft(0, 17, pack_ids(circle[1:5]), bytes([250] * 4)))
    verifier.step()
    assert (passes[-1].drafted, passes[-1].own_drafted) == ([4], [0])
    verifier.step()  # what the device's drafts gained is theirs as well
    assert passes[-1].own_drafted[0] > 0


def test_a_long_prompt_is_read_a_piece_at_a_time_while_it_is_filled_in() -> None:
    engine = ToyEngine(max_context=4000)
    verifier, passes = make(engine, limits=Limits(fill_tokens=128))
    prompt = [n % 5 for n in range(3000)]
    name = verifier.open(open_message(prompt, 200, GREEDY, self_drafts=True)).session
    [live] = verifier._sessions.values()
    held = 0
    while not passes or not passes[-1].emitted:
        verifier.step()
        assert len(live.own._text.token_ids) - held <= PIECE + 1
        held = len(live.own._text.token_ids)
    assert held == 3000
    verifier.check_integrity()
    verifier.close(name)


def test_of_a_longer_text_the_end_is_held() -> None:
    rng = random.Random(1)
    token_ids = [rng.randrange(50) for _ in range(100)]
    own = OwnDrafts(64)
    for _ in range(400):
        own.read(token_ids)
        own.check_integrity(token_ids)
        held = len(own._text.token_ids)
        assert 32 <= held <= 64
        assert own.propose(token_ids, 5) == SuffixAutomaton(token_ids[-held:]).propose(5)
        token_ids += [rng.randrange(50) for _ in range(rng.randrange(3))]
        token_ids += token_ids[-7:-3]


def test_what_follows_waiting_drafts_is_asked_for_without_keeping_them() -> None:
    own = OwnDrafts()
    text = [1, 2, 3, 4, 5, 6, 7, 1]
    assert own.propose(text, 2, after=[2, 3]).token_ids == [4, 5]
    assert own.propose([*text, 2], 2).token_ids == [3, 4]
    own.check_integrity([*text, 2])
    with pytest.raises(AssertionError):
        own.check_integrity([*text, 3])


def test_a_device_that_does_not_know_of_them_does_not_ask() -> None:
    fields = msgspec.msgpack.decode(encode(open_message()))
    assert decode_up(msgspec.msgpack.encode(fields[:-1])) == open_message(self_drafts=False)
