"""The verifier's core over the toy: what comes out is the target's own list, whatever comes in."""

import functools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from cloud_verifier.verifier import Verifier
from outrider.choice import SamplingParams, choose
from outrider.engines.base import Chunk
from outrider.engines.numerics import ClassEngine
from outrider.errors import ContextExceeded, EmptyPrompt, InvalidToken, ModelMismatch, OutriderError, VocabularyMismatch
from outrider.wire import Cancel, Draft, Fault, Limit, Open, Opened, Params, Verified, pack_ids, unpack_ids
from tests.toy import ToyEngine

PROMPT = [1, 2, 3, 4, 5]
SAMPLED = SamplingParams(temperature=1.2, seed=5)


def open_message(
    prompt: list[int] = PROMPT, num_tokens: int = 60, params: SamplingParams | None = None, **over
) -> Open:
    fields = {
        "vocabulary": "v",
        "target": "",
        "params": Params.of(params or SAMPLED),
        "limit": len(prompt) + num_tokens,
        "patience_ms": 0,
        "stop_ids": b"",
        "token_ids": pack_ids(prompt),
    }
    return Open(**{**fields, **over})


def make(engine: ToyEngine | ClassEngine | None = None) -> Verifier:
    return Verifier(engine or ToyEngine(), target="t", vocabulary="v")


def target_alone(prompt: Sequence[int] = PROMPT, num_tokens: int = 60, params: SamplingParams = SAMPLED) -> list[int]:
    """The definition of the output: one token at a time, no verifier."""
    return list(_alone(tuple(prompt), num_tokens, params))


@functools.cache
def _alone(prompt: tuple[int, ...], num_tokens: int, params: SamplingParams) -> tuple[int, ...]:
    engine = ToyEngine()
    sequence, tokens, new = engine.allocate(), list(prompt), list(prompt)
    for _ in range(num_tokens):
        logits = engine.extend([Chunk(sequence, new)])[0]
        new = [choose(logits[0], params, len(tokens))]
        tokens += new
    return tuple(tokens[len(prompt) :])


def run(verifier: Verifier, sessions: dict[str, list[int]], max_steps: int = 1000) -> None:
    """Steps until all sessions are finished; their tokens go to `sessions`."""
    live = set(sessions)
    for _ in range(max_steps):
        for name, message in verifier.step():
            assert isinstance(message, Verified)
            sessions[name] += unpack_ids(message.token_ids)
            if message.finish:
                live.discard(name)
        verifier.check_integrity()
        if not live:
            return
    raise AssertionError(f"not finished after {max_steps} steps")


@pytest.mark.parametrize("params", [SamplingParams(), SAMPLED], ids=["greedy", "sampled"])
def test_without_drafts_it_is_the_target_alone(params: SamplingParams) -> None:
    verifier = make()
    got = {verifier.open(open_message(params=params)).session: []}
    run(verifier, got)
    assert list(got.values()) == [target_alone(params=params)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("params", [SamplingParams(), SAMPLED], ids=["greedy", "sampled"])
def test_any_drafts_in_any_order_give_the_same_list(seed: int, params: SamplingParams) -> None:
    """Good, bad, stale, overlapping, repeated, reordered and far-off drafts; caches lost on the way."""
    rng = random.Random(seed)
    want = target_alone(params=params)
    full = PROMPT + want
    verifier = make(ToyEngine(max_sequences=rng.choice([1, 4])))
    name = verifier.open(open_message(params=params, patience_ms=rng.choice([0, -1]))).session
    got: list[int] = []
    old: list[Draft] = []
    epoch = 0
    finished = False
    for _ in range(2000):
        frontier = len(PROMPT) + len(got)
        for _ in range(rng.randrange(3)):
            start = max(0, frontier + rng.randrange(-4, 4))
            ids = full[start : start + rng.randrange(9)]
            ids = [token_id if rng.random() < 0.8 else rng.randrange(16) for token_id in ids]
            epoch = max(0, epoch + rng.choice([0, 0, 1, 1, -1]))
            old.append(Draft(epoch, start, pack_ids(ids)))
            verifier.receive(name, old[-1])
        if old and rng.random() < 0.3:
            verifier.receive(name, rng.choice(old))
        if rng.random() < 0.1:
            verifier.drop_cache(name)
        epoch += 1
        verifier.receive(name, Draft(epoch, frontier, b""))
        for _, message in verifier.step():
            assert isinstance(message, Verified)
            assert message.start == len(PROMPT) + len(got)  # every position once, none skipped
            got += unpack_ids(message.token_ids)
            finished = message.finish == "length"
        verifier.check_integrity()
        if finished:
            break
    assert got == want, f"seed {seed}"


def test_drafts_in_several_messages_are_one_run() -> None:
    want = target_alone()
    verifier = make()
    name = verifier.open(open_message(patience_ms=-1)).session
    for start in range(0, 8, 2):
        verifier.receive(name, Draft(0, len(PROMPT) + start, pack_ids(want[start : start + 2])))
    verifier.receive(name, Draft(0, len(PROMPT) + 7, pack_ids(want[7:9])))  # overlapping
    (_, message), *_ = verifier.step()
    assert unpack_ids(message.token_ids) == want[:10]


def test_good_drafts_save_passes() -> None:
    want = target_alone()
    verifier = make()
    name = verifier.open(open_message(patience_ms=-1)).session
    got: list[int] = []
    while len(got) < 60:
        for _, message in verifier.step():
            got += unpack_ids(message.token_ids)
        start = len(PROMPT) + len(got)
        verifier.receive(name, Draft(0, start, pack_ids(want[len(got) : len(got) + 5])))
    assert got == want
    assert verifier.num_passes == 1 + 10  # the first token, then six a pass, the last one shorter


def test_drafts_that_lie_left_of_the_frontier_are_compared_not_dropped() -> None:
    want = target_alone()
    verifier = make()
    name = verifier.open(open_message(patience_ms=-1)).session
    verifier.step()
    verifier.receive(name, Draft(0, len(PROMPT), pack_ids(want[:5])))  # its first token is verified already
    [(_, message)] = verifier.step()
    assert (unpack_ids(message.token_ids), message.num_accepted, message.num_drafted) == (want[1:6], 4, 4)


def test_a_dead_epoch_is_dropped_unread() -> None:
    want = target_alone()
    verifier = make()
    name = verifier.open(open_message(patience_ms=-1)).session
    verifier.step()
    start = len(PROMPT) + 1
    wrong = (want[1] + 1) % 16
    verifier.receive(name, Draft(0, start, pack_ids([wrong])))
    verifier.step()
    verifier.receive(name, Draft(0, start + 1, pack_ids(want[2:6])))  # sent before the device heard of the miss
    assert verifier.step() == []
    verifier.receive(name, Draft(1, start + 1, pack_ids(want[2:6])))
    [(_, message)] = verifier.step()
    assert message.num_accepted == 4


def test_it_waits_for_drafts_when_told_and_steps_alone_when_asked() -> None:
    verifier = make()
    name = verifier.open(open_message(patience_ms=-1)).session
    assert len(verifier.step()) == 1
    assert verifier.step() == []
    assert verifier.wait_s() > 500  # nothing to do until it counts as idle
    verifier.receive(name, Draft(0, len(PROMPT) + 1, b""))
    assert verifier.wait_s() == 0
    assert len(verifier.step()) == 1


def test_patience_runs_out() -> None:
    now = 0.0
    verifier = Verifier(ToyEngine(), target="t", vocabulary="v", clock=lambda: now)
    verifier.open(open_message(patience_ms=50))
    verifier.step()
    assert verifier.step() == []
    assert verifier.wait_s() == pytest.approx(0.05)
    now = 0.051
    assert verifier.wait_s() == 0
    assert len(verifier.step()) == 1


def test_many_sessions_each_get_their_own_list() -> None:
    prompts = [[n, (3 * n) % 16, 7, 1] for n in range(12)]
    verifier = make(ToyEngine(max_sequences=3, max_batch=3))
    names = {verifier.open(open_message(prompt, 30)).session: prompt for prompt in prompts}
    got: dict[str, list[int]] = {name: [] for name in names}
    run(verifier, got)
    for name, prompt in names.items():
        assert got[name] == target_alone(prompt, 30)


def test_a_long_prompt_is_filled_in_pieces_between_others_passes() -> None:
    long = [n % 16 for n in range(400)]
    engine = ToyEngine(max_batch=2)
    verifier = make(engine)
    slow = verifier.open(open_message(long, 4)).session
    quick = verifier.open(open_message(PROMPT, 4)).session
    order = []
    for _ in range(12):
        order += [name for name, message in verifier.step()]
    assert order[:3] == [quick] * 3
    assert order.count(slow) == 4
    assert max(max(sizes) for sizes in engine.chunks) <= 128


def test_stop_ids_end_the_list_also_inside_accepted_drafts() -> None:
    want = target_alone()
    stop = want[3]
    end = want.index(stop) + 1
    for drafts in ([], want[1:10]):
        verifier = make()
        name = verifier.open(open_message(stop_ids=pack_ids([stop]), patience_ms=0)).session
        got: list[int] = []
        finish = None
        while finish is None:
            for _, message in verifier.step():
                got += unpack_ids(message.token_ids)
                finish = message.finish
            verifier.receive(name, Draft(0, len(PROMPT) + 1, pack_ids(drafts)))
        assert (got, finish) == (want[:end], "stop")
        verifier.check_integrity()
        assert verifier.step() == []


def test_resuming_is_open_with_a_longer_list() -> None:
    want = target_alone()
    verifier = make()
    for cut in (1, 17, 59):
        name = verifier.open(open_message(PROMPT + want[:cut], 60 - cut)).session
        got = {name: []}
        run(verifier, got)
        assert got[name] == want[cut:]


def test_a_shorter_limit_ends_it_sooner() -> None:
    verifier = make()
    name = verifier.open(open_message()).session
    verifier.step()
    verifier.receive(name, Limit(len(PROMPT) + 3))
    got: dict[str, list[int]] = {name: []}
    run(verifier, got)
    assert len(got[name]) == 2


def test_cancel_frees_everything() -> None:
    engine = ToyEngine(max_sequences=1)
    verifier = make(engine)
    name = verifier.open(open_message()).session
    verifier.step()
    verifier.receive(name, Cancel())
    verifier.receive(name, Draft(0, 0, pack_ids([1])))  # too late, and harmless
    assert verifier.step() == []
    verifier.cache.clear()
    assert engine.allocate() == 0


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"vocabulary": "other"}, VocabularyMismatch),
        ({"target": "other"}, ModelMismatch),
        ({"token_ids": b""}, EmptyPrompt),
        ({"token_ids": pack_ids([1, 16])}, InvalidToken),
        ({"token_ids": pack_ids([2**32 - 1])}, InvalidToken),
        ({"stop_ids": pack_ids([16])}, InvalidToken),
        ({"token_ids": pack_ids([1] * 512)}, ContextExceeded),
        ({"limit": len(PROMPT)}, ContextExceeded),
    ],
)
def test_what_cannot_be_served_is_refused_before_the_engine_is_asked(over: dict, error: type[OutriderError]) -> None:
    engine = ToyEngine()
    verifier = make(engine)
    with pytest.raises(error):
        verifier.open(open_message(**over))
    assert engine.num_passes == 0
    verifier.check_integrity()


def test_a_bad_draft_id_is_refused_and_the_session_lives() -> None:
    verifier = make()
    name = verifier.open(open_message()).session
    with pytest.raises(InvalidToken):
        verifier.receive(name, Draft(0, len(PROMPT), pack_ids([16])))
    got: dict[str, list[int]] = {name: []}
    run(verifier, got)
    assert got[name] == target_alone()


def test_a_nan_row_ends_that_session_alone() -> None:
    engine = ToyEngine()
    engine.poison = 9
    verifier = make(engine)
    clean_prompt = next([a, b] for a in range(16) for b in range(16) if 9 not in [a, b, *target_alone([a, b], 20)])
    clean = verifier.open(open_message(clean_prompt, 20)).session
    poisoned = verifier.open(open_message([9], 20)).session
    got: list[int] = []
    faults = []
    for _ in range(30):
        for name, message in verifier.step():
            if isinstance(message, Fault):
                faults.append((name, message.code))
            elif name == clean:
                got += unpack_ids(message.token_ids)
        verifier.check_integrity()
    assert faults == [(poisoned, "bad_logits")]
    assert got == target_alone(clean_prompt, 20)


def test_an_engine_failure_is_a_fault_and_the_verifier_lives() -> None:
    engine = ToyEngine()
    verifier = make(engine)
    name = verifier.open(open_message()).session
    engine.fail_next = True
    [(failed, message)] = verifier.step()
    assert failed == name
    assert isinstance(message, Fault)
    assert (message.code, message.may_retry) == ("engine_failed", True)
    again = {verifier.open(open_message()).session: []}
    run(verifier, again)
    assert list(again.values()) == [target_alone()]


def test_opened_says_what_is_in_force() -> None:
    opened = make(ToyEngine(max_context=40)).open(open_message(num_tokens=1000))
    assert isinstance(opened, Opened)
    assert (opened.limit, opened.max_context, opened.n_vocab, opened.target) == (40, 40, 16, "t")
    assert len(opened.session) >= 43  # 256 bits


@pytest.mark.parametrize("seed", range(10))
def test_logits_of_accepted_positions_are_the_same_bits_inside_a_class(seed: int) -> None:
    """Spies on the logits that decided each position: with drafts, and with the cache lost, as alone."""
    classes = [[1], list(range(2, 33)), [64]]

    def decided(disturb: bool) -> dict[int, bytes]:
        rng = random.Random(seed)
        exact = ClassEngine(ToyEngine(classes=classes), classes[1])
        verifier = Verifier(exact, target="t", vocabulary="v")
        name = verifier.open(open_message(patience_ms=0)).session
        rows: dict[int, bytes] = {}
        extend = exact.extend

        def spy(chunks):
            result = extend(chunks)
            for chunk, logits in zip(chunks, result, strict=True):
                first = exact.length(chunk.sequence) - len(logits) + 1
                for offset, row in enumerate(logits):
                    rows[first + offset] = row.tobytes()
            return result

        exact.extend = spy
        tokens = list(PROMPT)
        while True:
            for _, message in verifier.step():
                tokens += unpack_ids(message.token_ids)
                if message.finish:
                    return {position: row for position, row in rows.items() if position < len(tokens)}
            if disturb:
                drafts = [t if rng.random() < 0.8 else rng.randrange(16) for t in target_alone()][len(tokens) - 5 :]
                verifier.receive(name, Draft(len(tokens), len(tokens), pack_ids(drafts[: rng.randrange(9)])))
                if rng.random() < 0.2:
                    verifier.drop_cache(name)

    alone, drafted = decided(False), decided(True)
    assert {p: drafted[p] for p in alone} == alone
    assert np.frombuffer(alone[10], np.float32).shape == (16,)
