"""A session that accepts drafts by rejection: the answer's distribution is the target's, whatever was drafted when."""

import functools
import itertools
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cloud_verifier.pending import Pending
from cloud_verifier.session import VerifierSession
from cloud_verifier.verifier import Verifier
from outrider.choice import SamplingParams, choose
from outrider.rejection import Distribution, distribution
from outrider.wire import Draft, LocalDraft, Open, Params, Verified, pack_ids, pack_parents, unpack_ids
from tests.outrider.definition import p_value as pearson
from tests.toy import ToyEngine

PROMPT = [1, 2]
LENGTH = 3  # of the answer
NUM_ANSWERS = 3_500  # as many show a residual that is drawn by the draft's own random number
PARAMS = SamplingParams(temperature=1.0, acceptance="rejection", presence_penalty=0.6, top_k=3, num_prompt=2)
N_VOCAB = 4


def table(seed: int) -> dict[tuple[int, ...], np.ndarray]:
    """Logits after every beginning of an answer, as by a model that is another for each seed."""
    rng = np.random.default_rng(seed)
    lists = [ids for length in range(LENGTH + 1) for ids in itertools.product(range(N_VOCAB), repeat=length)]
    return {ids: rng.normal(size=N_VOCAB).astype(np.float32) for ids in lists}


TARGET, DRAFTER = table(1), table(2)


def penalized(row: np.ndarray, answer: tuple[int, ...]) -> np.ndarray:
    row = row.copy()
    row[list(set(answer))] -= np.float32(PARAMS.presence_penalty)
    return row


def chance(answer: tuple[int, ...]) -> float:
    """Of the whole answer, by definition."""
    total = 1.0
    for place, token_id in enumerate(answer):
        total *= distribution(penalized(TARGET[answer[:place]], answer[:place]), PARAMS).of(token_id)
    return total


@functools.cache
def drafting(guessed: tuple[int, ...]) -> tuple[np.ndarray, Distribution]:
    """The drafter's logits after these tokens, and what it draws from."""
    row = penalized(DRAFTER[guessed], guessed)
    return row, distribution(row, PARAMS)


def answer_of(seed: int, num_drafts: int, most: int | None = None) -> tuple[tuple[int, ...], int]:
    """One answer, drafted `num_drafts` at a time; and how many drafts were accepted. `most`: a bug, which takes no more
    than so many of those that wait, those that are sure."""
    params = replace(PARAMS, seed=seed)
    fields = ("", "", Params.of(params), len(PROMPT) + LENGTH, -1, b"", pack_ids(PROMPT))
    session = VerifierSession(Open(*fields), len(PROMPT) + LENGTH)
    accepted = 0
    for epoch in range(LENGTH):
        answer = tuple(session.token_ids[2:])
        guessed, drawn_from = answer, []
        while len(guessed) < min(LENGTH, len(answer) + num_drafts):
            row, drawn = drafting(guessed)
            drawn_from.append(drawn)
            guessed += (choose(row, params, len(PROMPT) + len(guessed)),)
        drafts = guessed[len(answer) :]
        if drafts and not session.pending:
            session.receive(LocalDraft(epoch, session.frontier, pack_ids(drafts), b"", b"", drawn_from))
        taken = session.drafts_for_pass(31)
        if most is not None and taken and drawn_from and drawn_from[0].of(drafts[0]) < 0.4:
            taken = Pending()
        logits = [TARGET[(*answer, *taken.token_ids[:place])] for place in range(len(taken) + 1)]
        verified, path = session.advance(taken, np.array(logits))
        accepted += len(path)
        if verified.finish:
            break
    return tuple(session.token_ids[2:]), accepted


def p_value(answers: list[tuple[int, ...]]) -> float:
    """Of the answers against the target; 0 for one that cannot be. Those that are rare are counted together."""
    expected: dict[tuple[int, ...], float] = {}
    observed: Counter[tuple[int, ...]] = Counter()
    for ids in itertools.product(range(N_VOCAB), repeat=LENGTH):
        often = chance(ids) * len(answers)
        key = ids if often > 5 else ()
        if often > 0:
            expected[key] = expected.get(key, 0.0) + often
            observed[key] += answers.count(ids)
    if observed.total() < len(answers):
        return 0.0
    return pearson(np.array([observed[key] for key in expected]), np.array(list(expected.values())))


def test_whole_answers_follow_the_target_distribution() -> None:
    """Three drafts at first; where they missed as many as the rest takes, down to one."""
    answers = [answer_of(seed, LENGTH) for seed in range(NUM_ANSWERS)]
    assert p_value([answer for answer, _ in answers]) > 0.001
    assert sum(accepted for _, accepted in answers) > NUM_ANSWERS // 2


def test_picking_drafts_by_what_they_are_shows() -> None:
    """The positive control, and why such a session takes all that wait."""
    assert p_value([answer_of(seed, 1, most=1)[0] for seed in range(2_000)]) < 1e-5


def test_a_pass_takes_all_that_wait_or_none() -> None:
    verifier = Verifier(ToyEngine(), target="t", vocabulary="v", pass_ms={rows: rows for rows in range(1, 33)})
    drafts = [3] * 9
    sizes = {}
    for acceptance in ("coupled", "rejection"):
        params = SamplingParams(temperature=1.0, acceptance=acceptance)
        name = verifier.open(Open("", "", Params.of(params), 400, -1, b"", pack_ids(PROMPT))).session
        verifier.step()
        sizes[acceptance] = []
        for epoch in range(40):
            frontier = len(verifier._sessions[name].session.token_ids)
            verifier.receive(name, Draft(epoch, frontier, pack_ids(drafts), bytes(9)))
            verifier.receive(name, Draft(epoch, frontier, b""))
            [message] = [said for _, said in verifier.step() if isinstance(said, Verified)]
            sizes[acceptance].append(message.num_drafted)
            verifier.check_integrity()
        verifier.close(name)
    assert set(sizes["rejection"]) == {0, 9}  # none once they had cost too much
    assert set(sizes["coupled"]) == {0}  # of hopeless ones the other takes none


@pytest.mark.parametrize("seed", range(10))
def test_greedy_it_is_the_target_alone_whatever_comes(seed: int) -> None:
    """Chains and trees, distributions that are missing, too many or lies; caches lost on the way."""
    rng = random.Random(seed)
    lists = []
    for acceptance in ("coupled", "rejection"):
        verifier = Verifier(ToyEngine(supports_tree=True), target="t", vocabulary="v")
        params = Params.of(SamplingParams(acceptance=acceptance))
        name = verifier.open(Open("", "", params, 62, -1, b"", pack_ids(PROMPT))).session
        got: list[int] = []
        for epoch in range(300):
            frontier = len(PROMPT) + len(got)
            ids = [rng.randrange(16) for _ in range(rng.randrange(1, 5))]
            if lists:
                ids = [t if rng.random() < 0.8 else 0 for t in lists[0][len(got) : len(got) + 6]] or ids
            drawn_from = [distribution(np.zeros(16, np.float32), SamplingParams(temperature=1.0))] * rng.randrange(9)
            parents = pack_parents(range(-1, len(ids) - 1)) if rng.random() < 0.5 else b""
            verifier.receive(name, LocalDraft(epoch, frontier, pack_ids(ids), b"", parents, drawn_from))
            if rng.random() < 0.2:
                verifier.drop_cache(name)
            for _, message in verifier.step():
                if isinstance(message, Verified):
                    got += unpack_ids(message.token_ids)
            verifier.check_integrity()
            if len(got) == 60:
                break
        lists.append(got)
    assert lists[0] == lists[1]
    assert len(lists[0]) == 60
