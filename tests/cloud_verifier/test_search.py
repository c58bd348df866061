"""Beams and the best of several samples, run in the verifier: what a plain search finds, whoever else is at work."""

import functools
import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from cloud_verifier.beams import BeamSearch
from cloud_verifier.limits import Limits
from cloud_verifier.verifier import Verifier
from outrider.choice import SamplingParams
from outrider.constraint import Grammar
from outrider.engines.base import Chunk
from outrider.engines.numerics import ClassEngine
from outrider.errors import InvalidParameter, OutriderError, Overloaded, ProtocolError, TooMany
from outrider.search import SearchParams
from outrider.wire import Cancel, Draft, Fault, Limit, Open, Params, Search, Verified, pack_ids, unpack_ids
from tests.cloud_verifier.test_verifier import target_alone
from tests.sampling import JSON, STOP, adjusted, text_of, toy_compiler
from tests.toy import ToyEngine

PROMPT = [1, 2, 3, 4, 5]
GREEDY = SamplingParams(num_prompt=len(PROMPT))
SAMPLED = SamplingParams(temperature=1.2, seed=5, num_prompt=len(PROMPT))
STOPS = (STOP, 7)


def open_message(search: SearchParams, params: SamplingParams = GREEDY, num_tokens: int = 24, **over: object) -> Open:
    fields = {
        "vocabulary": "v",
        "target": "",
        "params": Params.of(params),
        "limit": len(PROMPT) + num_tokens,
        "patience_ms": 0,
        "stop_ids": pack_ids(STOPS),
        "token_ids": pack_ids(PROMPT),
        "search": Search.of(search),
    }
    return Open(**{**fields, **over})


def make(engine: ToyEngine | ClassEngine | None = None, **over: object) -> Verifier:
    return Verifier(engine or ToyEngine(), target="t", vocabulary="v", constrain=toy_compiler(), **over)


def run(verifier: Verifier, names: Sequence[str], max_steps: int = 3000) -> dict[str, list[Verified]]:
    """What each session was told, to its end."""
    said: dict[str, list[Verified]] = {name: [] for name in names}
    for _ in range(max_steps):
        for name, message in verifier.step():
            assert isinstance(message, Verified), message
            said[name].append(message)
        verifier.check_integrity()
        if all(told and told[-1].finish for told in said.values()):
            assert verifier.num_sessions == 0
            return said
    raise AssertionError(f"not finished after {max_steps} steps")


def tokens_of(told: Sequence[Verified]) -> list[int]:
    return [token_id for message in told for token_id in unpack_ids(message.token_ids)]


def answer(verifier: Verifier, message: Open) -> list[int]:
    name = verifier.open(message).session
    return tokens_of(run(verifier, [name])[name])


@functools.cache
def logprobs_after(token_ids: tuple[int, ...], params: SamplingParams = GREEDY) -> np.ndarray:
    """By definition: a fresh engine, one pass over all."""
    engine = ToyEngine()
    row = engine.extend([Chunk(engine.allocate(), token_ids)])[0][0]
    row = adjusted(row, params, token_ids, STOPS).astype(np.float64)
    return row - row.max() - math.log(np.exp(row - row.max()).sum())


def naive(num_beams: int, length_penalty: float, num_tokens: int, params: SamplingParams = GREEDY) -> tuple[int, ...]:
    """Beam search to the very end, without any thought of stopping early."""
    live, finished = [(0.0, ())], []
    for length in range(1, num_tokens + 1):
        grown = []
        for place, (score, ids) in enumerate(live):
            row = logprobs_after((*PROMPT, *ids), params)
            grown += [(-(score + row[i]), place, i, (*ids, i)) for i in range(16) if row[i] > -math.inf]
        grown.sort()
        live = []
        for rank, (cost, _, token_id, ids) in enumerate(grown):
            if token_id in STOPS or length == num_tokens:
                if rank < num_beams:
                    finished.append((-cost / length**length_penalty, ids))
            elif len(live) < num_beams:
                live.append((-cost, ids))
    return max(finished, key=lambda each: each[0])[1]


@pytest.mark.parametrize(
    ("num_beams", "length_penalty"), [(2, 1.0), (2, -1.0), (3, 0.0), (3, 2.5), (5, 1.0), (5, -1.0), (16, 2.5)]
)
def test_it_is_what_plain_beam_search_finds(num_beams: int, length_penalty: float) -> None:
    want = naive(num_beams, length_penalty, 24)
    for engine in (ToyEngine(max_sequences=16, max_batch=16), ToyEngine(max_sequences=3), ToyEngine(max_sequences=1)):
        assert answer(make(engine), open_message(SearchParams(num_beams, length_penalty))) == list(want)


@pytest.mark.parametrize("length_penalty", [1.0, -0.5])
def test_beams_wide_enough_find_the_best_of_all_answers(length_penalty: float) -> None:
    rng = np.random.default_rng(4)
    length, n_vocab, stop = 4, 3, 2
    table = {
        ids: np.log(rng.dirichlet(np.ones(n_vocab)))
        for count in range(length)
        for ids in itertools.product(range(n_vocab), repeat=count)
    }
    answers = {}
    for count in range(1, length + 1):
        for ids in itertools.product(range(n_vocab), repeat=count):
            if stop not in ids[:-1] and (ids[-1] == stop or count == length):
                total = sum(table[ids[:place]][token_id] for place, token_id in enumerate(ids))
                answers[ids] = total / count**length_penalty
    search = BeamSearch(3**length, length_penalty, length, {stop})
    while not search.is_over:
        search.step([(range(n_vocab), table[tuple(beam.token_ids)]) for beam in search.live])
    assert tuple(search.best.token_ids) == max(answers, key=answers.__getitem__)


@pytest.mark.parametrize(
    ("length_penalty", "logprob", "best"),
    [
        (1.0, -2.5, [1, 1, 9]),  # two more tokens make it the better one: -2.52 / 3 against -1
        (-1.0, -0.45, [1, 9]),  # the very next token does: -0.46 * 2 against -1
    ],
)
def test_what_may_still_come_to_a_better_answer_goes_on(length_penalty: float, logprob: float, best: list[int]) -> None:
    search = BeamSearch(2, length_penalty, 10, {9})
    search.step([([9, 1, 2], [-1.0, logprob, -9.0])])
    assert search.best.token_ids == [9]
    while search.best.token_ids == [9]:
        assert not search.is_over
        likeliest = best[len(search.live[0].token_ids)]
        search.step([([likeliest, 3, 4], [-0.01, -8.0, -9.0])] * len(search.live))
    assert search.best.token_ids == best


def test_an_end_counts_only_among_the_best() -> None:
    """As many continuations as there are beams: an end that is no better than they are is no answer."""
    search = BeamSearch(2, 1.0, 3, {9})
    search.step([([1, 2, 9], [-0.5, -0.7, -0.8])])
    assert (search.best, [beam.token_ids for beam in search.live]) == (None, [[1], [2]])
    search.step([([1, 9], [-5.0, -6.0]), ([9, 1], [-5.0, -9.0])])
    assert search.best.token_ids == [2, 9]
    assert [beam.token_ids for beam in search.live] == [[1, 1], [2, 1]]


@pytest.mark.parametrize("max_sequences", [1, 4])
def test_one_beam_is_greedy(max_sequences: int) -> None:
    search = BeamSearch(1, 1.0, 24, ())
    while not search.is_over:
        row = logprobs_after((*PROMPT, *search.live[0].token_ids))
        best = np.argsort(-row, kind="stable")
        search.step([(best.tolist(), row[best].tolist())])
    want = target_alone(params=SamplingParams(), num_tokens=24)
    assert search.best.token_ids == want
    engine = ToyEngine(max_sequences=max_sequences)
    assert answer(make(engine), open_message(SearchParams(), stop_ids=b"")) == want


@pytest.mark.parametrize("num_beams", [2, 4])
def test_what_is_certain_is_told_before_the_end(num_beams: int) -> None:
    verifier = make(ToyEngine(max_sequences=4))
    name = verifier.open(open_message(SearchParams(num_beams), stop_ids=b"", num_tokens=60)).session
    told = run(verifier, [name])[name]
    assert tuple(tokens_of(told)) == naive_without_stops(num_beams, 60)
    assert len(told) > 3
    assert [message.start for message in told] == [
        len(PROMPT) + sum(len(unpack_ids(each.token_ids)) for each in told[:place]) for place in range(len(told))
    ]
    assert [message.finish for message in told] == [None] * (len(told) - 1) + ["length"]


def naive_without_stops(num_beams: int, num_tokens: int) -> tuple[int, ...]:
    live = [(0.0, ())]
    for _ in range(num_tokens):
        grown = []
        for place, (score, ids) in enumerate(live):
            row = logprobs_after((*PROMPT, *ids))
            grown += [(-(score + row[i]), place, i, (*ids, i)) for i in range(16)]
        live = [(-cost, ids) for cost, _, _, ids in sorted(grown)[:num_beams]]
    return live[0][1]


@pytest.mark.parametrize("num_told", [1, 5, 11])
@pytest.mark.parametrize("num_beams", [2, 4])
def test_a_resumed_search_goes_on_where_it_was(num_beams: int, num_told: int) -> None:
    message = open_message(SearchParams(num_beams), stop_ids=b"", num_tokens=60)
    want = answer(make(), message)
    resumed = replace(message, token_ids=pack_ids([*PROMPT, *want[:num_told]]))
    assert answer(make(), resumed) == want[num_told:]


def test_an_answer_so_far_that_is_another_is_refused() -> None:
    verifier = make()
    message = open_message(SearchParams(3), stop_ids=b"", num_tokens=60)
    wrong = (answer(make(), message)[0] + 1) % 16
    name = verifier.open(replace(message, token_ids=pack_ids([*PROMPT, wrong]))).session
    said = [each for _ in range(200) for each in verifier.step()]
    assert [(to, fault.code) for to, fault in said] == [(name, "invalid_parameter")]
    assert verifier.num_sessions == 0
    verifier.check_integrity()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("search", [SearchParams(4), SearchParams(best_of=4)], ids=["beams", "samples"])
def test_lost_caches_and_others_change_nothing(search: SearchParams, seed: int) -> None:
    """Beside plain sessions of its own and of another credential, over an engine with a numerics class."""
    rng = random.Random(seed)
    params = GREEDY if search.num_beams > 1 else SAMPLED
    toy = ToyEngine(classes=[[1], list(range(2, 65))], max_sequences=rng.choice([1, 2, 4, 6]), max_batch=4)
    alone = ToyEngine(classes=[[1], list(range(2, 65))], max_sequences=8)
    message = open_message(search, params, num_logprobs=0)
    plain = Open("v", "", Params.of(SamplingParams()), 45, 0, b"", pack_ids(PROMPT))

    def engine_of(toy: ToyEngine) -> ClassEngine:
        return ClassEngine(toy, range(2, 65), batch_exact=True)

    fresh = make(engine_of(alone))
    [want] = run(fresh, [fresh.open(message).session]).values()
    fresh = make(engine_of(alone))
    [want_plain] = run(fresh, [fresh.open(plain).session]).values()
    verifier = make(engine_of(toy))
    name = verifier.open(message, "a").session
    others = [verifier.open(plain, credential).session for credential in "ab"]
    said: dict[str, list[Verified]] = {each: [] for each in (name, *others)}
    for _ in range(3000):
        if rng.random() < 0.1:
            verifier.drop_cache(rng.choice([name, *others]))
        for to, each in verifier.step():
            said[to].append(each)
        verifier.check_integrity()
        if not verifier.num_sessions:
            break
    assert tokens_of(said[name]) == tokens_of(want), f"seed {seed}"
    assert [log.chosen for each in said[name] for log in each.logprobs] == [
        log.chosen for each in want for log in each.logprobs
    ]
    assert [tokens_of(said[other]) for other in others] == [tokens_of(want_plain)] * 2


def test_a_search_takes_turns_with_others() -> None:
    """Of another credential's passes it takes none but its share."""
    verifier = make(ToyEngine(max_sequences=8, max_batch=1), pass_ms={1: 1.0, 2: 1.1})
    search = verifier.open(open_message(SearchParams(4), stop_ids=b"", num_tokens=60), "a").session
    plain = verifier.open(Open("v", "", Params.of(SamplingParams()), 45, 0, b"", pack_ids(PROMPT)), "b").session
    num_passes = 0
    while verifier.credential_of(plain) is not None:
        verifier.step()
        num_passes += 1
    assert num_passes <= 2 * 40 + 6
    assert verifier.credential_of(search) == "a"


def test_lanes_share_the_prompt_s_cache() -> None:
    for search, params in ((SearchParams(4), GREEDY), (SearchParams(best_of=4), SAMPLED)):
        engine = ToyEngine(max_sequences=4, max_batch=4)
        verifier = make(engine)
        long_prompt = [i % 11 for i in range(200)]
        params = SamplingParams(params.temperature, seed=5, num_prompt=200)
        message = open_message(search, params, stop_ids=b"", token_ids=pack_ids(long_prompt), limit=220)
        answer(verifier, message)
        rows = sum(sum(sizes) for sizes in engine.chunks)
        assert rows <= 200 + 20 * 4
        assert verifier.cache.num_evictions == 0


def test_one_sequence_is_enough_and_reads_again_only_what_differs() -> None:
    engine = ToyEngine(max_sequences=1)
    long_prompt = [i % 11 for i in range(200)]
    params = SamplingParams(num_prompt=200)
    message = open_message(SearchParams(4), params, stop_ids=b"", token_ids=pack_ids(long_prompt), limit=220)
    answer(make(engine), message)
    assert sum(sum(sizes) for sizes in engine.chunks) < 200 + 20 * 4 * 20


def test_canceling_frees_all_lanes() -> None:
    for search, params in ((SearchParams(4), GREEDY), (SearchParams(best_of=4), SAMPLED)):
        verifier = make()
        name = verifier.open(open_message(search, params)).session
        assert verifier.num_sessions == 4
        for _ in range(5):
            verifier.step()
        verifier.receive(name, Cancel())
        assert verifier.num_sessions == 0
        assert verifier.wait_s() is None
        assert verifier.step() == []
        verifier.check_integrity()


def test_a_poisoned_lane_ends_its_search_and_nothing_else() -> None:
    for search, params in ((SearchParams(4), GREEDY), (SearchParams(best_of=4), SAMPLED)):
        clean = answer(make(), open_message(search, params, stop_ids=b"", num_tokens=60))
        engine = ToyEngine()
        engine.poison = next(token_id for token_id in clean if token_id not in PROMPT)
        verifier = make(engine)
        name = verifier.open(open_message(search, params, stop_ids=b"", num_tokens=60)).session
        said = [each for _ in range(300) for each in verifier.step()]
        faults = [(to, each.code) for to, each in said if isinstance(each, Fault)]
        assert faults == [(name, "bad_logits")]
        assert verifier.num_sessions == 0
        verifier.check_integrity()


def test_a_failing_engine_ends_it_once() -> None:
    engine = ToyEngine()
    verifier = make(engine)
    name = verifier.open(open_message(SearchParams(4))).session
    verifier.step()
    engine.fail_next = True
    assert verifier.step() == []  # each alone once more
    verifier.check_integrity()
    engine.fail_next = True
    assert [(to, fault.code) for to, fault in verifier.step()] == [(name, "engine_failed")]
    assert verifier.num_sessions == 0
    verifier.check_integrity()


def test_a_pass_that_fails_once_changes_nothing() -> None:
    for search, params in ((SearchParams(4), GREEDY), (SearchParams(best_of=4), SAMPLED)):
        engine = ToyEngine()
        verifier = make(engine)
        name = verifier.open(open_message(search, params)).session
        verifier.step()
        verifier.step()
        engine.fail_next = True
        assert verifier.step() == []
        assert tokens_of(run(verifier, [name])[name]) == answer(make(), open_message(search, params))


@pytest.mark.parametrize(
    "over",
    [
        {"repetition_penalty": 1.5},
        {"logit_bias": ((3, 2.5), (7, -100.0)), "frequency_penalty": 0.5},
        {"min_tokens": 12},
        {"grammar": Grammar("regex", "[abcd]{8,20}(0|1|2)+,")},
    ],
    ids=str,
)
@pytest.mark.parametrize("num_beams", [2, 4])
def test_penalties_biases_and_grammars_bear_on_scores(num_beams: int, over: dict) -> None:
    params = SamplingParams(num_prompt=len(PROMPT), **over)
    got = answer(make(), open_message(SearchParams(num_beams), params))
    assert got == list(naive(num_beams, 1.0, 24, params))


def test_beams_keep_to_a_schema() -> None:
    params = SamplingParams(num_prompt=len(PROMPT), grammar=JSON)
    got = answer(make(), open_message(SearchParams(4, 0.0), params, stop_ids=pack_ids([STOP]), num_tokens=60))
    assert got[-1] == STOP
    assert text_of(got).startswith("{")


@pytest.mark.parametrize("num_logprobs", [-1, 0, 3])
@pytest.mark.parametrize("best_of", [2, 5])
def test_the_best_of_several_samples_is_the_likeliest(best_of: int, num_logprobs: int) -> None:
    answers = []
    for number in range(best_of):
        params = Params.of(SamplingParams(temperature=1.2, seed=5 + number, num_prompt=len(PROMPT)))
        verifier = make()
        name = verifier.open(open_message(SearchParams(), params=SAMPLED, num_logprobs=num_logprobs)).session
        verifier.close(name)
        message = replace(open_message(SearchParams(), SAMPLED, num_logprobs=max(0, num_logprobs)), params=params)
        name = verifier.open(message).session
        told = run(verifier, [name])[name]
        logprobs = [each for message in told for each in message.logprobs]
        answers.append((sum(each.chosen for each in logprobs) / len(logprobs), tokens_of(told), logprobs))
    _, tokens, logprobs = max(answers, key=lambda each: each[0])
    verifier = make()
    name = verifier.open(open_message(SearchParams(best_of=best_of), SAMPLED, num_logprobs=num_logprobs)).session
    told = run(verifier, [name])[name]
    assert tokens_of(told) == tokens
    assert [each for message in told for each in message.logprobs] == (logprobs if num_logprobs >= 0 else [])
    assert len({tuple(tokens) for _, tokens, _ in answers}) > 1


@pytest.mark.parametrize("num_logprobs", [0, 3])
def test_log_probabilities_of_beams_are_the_model_s_own(num_logprobs: int) -> None:
    params = SamplingParams(num_prompt=len(PROMPT), repetition_penalty=1.4)
    verifier = make()
    name = verifier.open(open_message(SearchParams(3), params, num_logprobs=num_logprobs)).session
    told = run(verifier, [name])[name]
    tokens, logprobs = tokens_of(told), [each for message in told for each in message.logprobs]
    assert len(tokens) == len(logprobs)
    for place, (token_id, each) in enumerate(zip(tokens, logprobs, strict=True)):
        row = logprobs_after((*PROMPT, *tokens[:place]))
        assert each.chosen == pytest.approx(row[token_id])
        assert unpack_ids(each.token_ids) == np.argsort(-row)[:num_logprobs].tolist()


def test_long_answers_are_told_in_messages_that_fit() -> None:
    verifier = make(ToyEngine(max_context=800))
    params = SamplingParams(temperature=1.0, num_prompt=len(PROMPT))
    message = open_message(SearchParams(best_of=2), params, stop_ids=b"", num_tokens=300)
    name = verifier.open(message).session
    told = run(verifier, [name])[name]
    assert [len(unpack_ids(each.token_ids)) for each in told] == [256, 44]
    assert [each.finish for each in told] == [None, "length"]
    resumed = replace(message, token_ids=pack_ids([*PROMPT, *tokens_of(told)[:256]]))
    assert answer(make(ToyEngine(max_context=800)), resumed) == tokens_of(told)[256:]


@pytest.mark.parametrize(
    ("search", "params"),
    [
        (Search(num_beams=4), SAMPLED),
        (Search(best_of=4), GREEDY),
        (Search(num_beams=2, best_of=2), GREEDY),
        (Search(num_beams=4), SamplingParams()),  # where does the prompt end?
    ],
)
def test_searches_that_cannot_be_are_refused(search: Search, params: SamplingParams) -> None:
    engine = ToyEngine()
    verifier = make(engine)
    with pytest.raises(InvalidParameter):
        verifier.open(replace(open_message(SearchParams(), params), search=search))
    assert (engine.num_passes, verifier.num_sessions) == (0, 0)
    assert not verifier.guards


@pytest.mark.parametrize(
    "over", [{"num_beams": 0}, {"num_beams": 17}, {"best_of": -1}, {"length_penalty": math.nan}, {"length_penalty": 11}]
)
def test_numbers_out_of_bounds_are_refused(over: dict) -> None:
    with pytest.raises(InvalidParameter):
        SearchParams(**over)


@pytest.mark.parametrize(
    ("limits", "error"),
    [(Limits(max_sessions=4), Overloaded), (Limits(max_sessions_each=4), TooMany)],
)
def test_a_search_counts_as_many_sessions_as_it_has_lanes(limits: Limits, error: type[OutriderError]) -> None:
    verifier = make(limits=limits)
    verifier.open(open_message(SearchParams(3)))
    with pytest.raises(error):
        verifier.open(open_message(SearchParams(2)))
    verifier.open(open_message(SearchParams()))
    assert verifier.num_sessions == 4


@pytest.mark.parametrize("message", [Draft(0, 5, pack_ids([1])), Draft(0, 5, b""), Limit(9)], ids=str)
def test_a_search_takes_no_drafts(message: Draft | Limit) -> None:
    verifier = make()
    name = verifier.open(open_message(SearchParams(3))).session
    with pytest.raises(ProtocolError):
        verifier.receive(name, message)


def test_what_passes_cost_says_nothing_of_the_credential_s_drafts() -> None:
    verifier = make()
    answer(verifier, open_message(SearchParams(4), stop_ids=b"", num_tokens=60))
    assert [guard.balance_ms for guard in verifier.guards.values()] == [0.0]


def test_an_idle_verifier_with_a_search_does_not_end_it() -> None:
    now = [0.0]
    verifier = make(ToyEngine(max_batch=1), clock=lambda: now[0], limits=Limits(idle_s=5))
    name = verifier.open(open_message(SearchParams(4))).session
    told = []
    while verifier.num_sessions:
        now[0] += 7
        told += [each for _, each in verifier.step()]
    assert tokens_of(told) == answer(make(), open_message(SearchParams(4)))
    assert verifier.credential_of(name) is None


def test_every_sample_has_a_seed_of_its_own_or_none_begins() -> None:
    search = SearchParams(best_of=2)
    last = SamplingParams(1.2, seed=2**63 - 2, num_prompt=len(PROMPT))
    assert answer(make(), open_message(search, last))
    with pytest.raises(InvalidParameter, match=f"seed is {2**63 - 1}; best of 2"):
        make().open(open_message(search, SamplingParams(1.2, seed=2**63 - 1, num_prompt=len(PROMPT))))
