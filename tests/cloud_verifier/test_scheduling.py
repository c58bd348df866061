"""Many sessions, one engine: everybody advances, nobody pays for another's drafts, failures stay with their cause."""

import itertools
import random

import pytest

from cloud_verifier.fairness import FairShare
from cloud_verifier.limits import Limits
from cloud_verifier.pacing import DraftGuard
from cloud_verifier.verifier import Verifier
from outrider.errors import EngineError, Overloaded, TooMany
from outrider.wire import Draft, Fault, Load, Verified, pack_ids, unpack_ids
from tests.cloud_verifier.test_verifier import PROMPT, open_message, run, target_alone
from tests.toy import ToyEngine


def make(engine: ToyEngine | None = None, **over: object) -> Verifier:
    return Verifier(engine or ToyEngine(), target="t", vocabulary="v", **over)


def test_a_pass_takes_every_ready_session_within_its_budget() -> None:
    engine = ToyEngine(max_sequences=8, max_batch=8)
    verifier = make(engine, limits=Limits(pass_tokens=20))
    prompts = [[n, 2, 3] for n in range(6)]
    got = {verifier.open(open_message(prompt)).session: [] for prompt in prompts}
    run(verifier, got)
    assert list(got.values()) == [target_alone(prompt) for prompt in prompts]
    assert max(len(sizes) for sizes in engine.chunks) == 6
    assert max(sum(sizes) for sizes in engine.chunks) <= 20


def test_drafts_share_a_pass_that_is_too_small_for_all_of_them() -> None:
    """Whoever was served more before the others came is last in line; that must not leave it without drafts."""
    engine = ToyEngine(max_sequences=4, max_batch=4)
    ticks = itertools.count()
    free_rows = dict.fromkeys(range(1, 33), 1.0)
    verifier = make(engine, limits=Limits(pass_tokens=4 + 10), pass_ms=free_rows, clock=lambda: next(ticks) / 1000)
    prompts = [[n, 2, 3] for n in range(4)]
    scripts = [prompt + target_alone(prompt, 200) for prompt in prompts]
    names: list[str] = []
    told, taken = [0] * 4, [0] * 4
    for number in range(60):
        if number in (0, 20):  # one alone at first, then all
            names += [
                verifier.open(open_message(prompt, num_tokens=190), str(prompt)).session
                for prompt in (prompts[:1] if number == 0 else prompts[1:])
            ]
        for which, name in enumerate(names if number >= 20 else ()):
            start = len(prompts[which]) + told[which]
            verifier.receive(name, Draft(number, start, pack_ids(scripts[which][start : start + 8])))
        for name, message in verifier.step():
            assert isinstance(message, Verified)
            told[names.index(name)] += len(message.token_ids) // 4
            taken[names.index(name)] += message.num_drafted
    assert sum(taken) > 300
    assert min(taken) >= 0.6 * max(taken), taken  # two or three of ten a pass


def test_a_long_prompt_is_filled_in_between_the_others_passes() -> None:
    engine = ToyEngine(max_sequences=2, max_batch=2)
    verifier = make(engine, limits=Limits(fill_tokens=16))
    short = verifier.open(open_message()).session
    verifier.step()
    long_prompt = [n % 16 for n in range(300)]
    verifier.open(open_message(long_prompt, num_tokens=5))
    tokens = 0
    while len(engine.chunks) < 19:
        tokens += sum(len(message.token_ids) // 4 for name, message in verifier.step() if name == short)
    assert tokens >= 18  # a token a pass, all the while
    assert max(max(sizes) for sizes in engine.chunks) == 16


def test_credentials_share_alike_whatever_their_number_of_sessions() -> None:
    verifier = make(ToyEngine(max_sequences=8, max_batch=1))
    greedy = [verifier.open(open_message(num_tokens=400), "many").session for _ in range(7)]
    single = verifier.open(open_message(num_tokens=400), "one").session
    served = {"many": 0, "one": 0}
    for _ in range(200):
        for name, message in verifier.step():
            assert isinstance(message, Verified)
            served["one" if name == single else "many"] += 1
    assert abs(served["one"] - served["many"]) <= 2
    assert all(verifier.credential_of(name) == "many" for name in greedy)


def test_prompts_of_one_credential_in_every_place_shut_nobody_out() -> None:
    now_s = itertools.count()
    engine = ToyEngine(max_sequences=4)
    verifier = make(engine, limits=Limits(fill_tokens=16), clock=lambda: next(now_s) / 10)
    greedy = {verifier.open(open_message([n % 16] * 400, num_tokens=4), "many").session: n % 16 for n in range(8)}
    for _ in range(6):
        verifier.step()
    honest = verifier.open(open_message([1, 2, 3], num_tokens=30), "few").session
    told: dict[str, list[int]] = {name: [] for name in (honest, *greedy)}
    firsts = []
    for number in range(10_000):
        for name, message in verifier.step():
            if isinstance(message, Verified):
                told[name] += unpack_ids(message.token_ids)
                firsts += [number] if name == honest and not firsts else []
        verifier.check_integrity()
        if not verifier.num_sessions:
            break
    assert firsts[0] <= 4
    assert told[honest][-1] == target_alone([1, 2, 3], 30)[-1]
    assert all(told[name] == target_alone([first] * 400, 4) for name, first in greedy.items())


def test_idle_time_is_not_saved_up() -> None:
    share = FairShare()
    for _ in range(100):
        assert share.order([(0.0, "a", "busy")], 1) == ["a"]
        share.charge("busy", 1.0)
    turns = []
    for _ in range(10):
        chosen = share.order([(0.0, "a", "busy"), (0.0, "b", "new")], 1)[0]
        share.charge("busy" if chosen == "a" else "new", 1.0)
        turns.append(chosen)
    assert turns.count("b") <= 6


def test_newcomers_do_not_pass_those_who_wait() -> None:
    share = FairShare()
    for turn in range(1, 20):  # one goes, one comes
        ready = [(float(came), f"session{came}", f"credential{came}") for came in range(turn - 1, turn + 3)]
        assert share.order(reversed(ready), 1) == [f"session{turn - 1}"]
        share.charge(f"credential{turn - 1}", 1.0)


def spent(accuracy: float, num_sessions: int = 1, num_tokens: int = 400) -> tuple[float, int]:
    """Engine time, in plain passes, that a drafter of this accuracy costs its credential; and the tokens it got."""
    pass_ms = {rows: 1 + 0.2 * (rows - 1) for rows in range(1, 33)}
    engine = ToyEngine()
    verifier = make(engine, pass_ms=pass_ms, limits=Limits(max_sessions_each=1))
    rng = random.Random(1)
    cost, tokens = 0.0, 0
    for _ in range(num_sessions):
        name = verifier.open(open_message(num_tokens=num_tokens, patience_ms=-1), "c").session
        full = PROMPT + target_alone(num_tokens=num_tokens)
        frontier, epoch, ended = len(PROMPT), 0, False
        while not ended:
            ids = [i if rng.random() < accuracy else (i + 1) % 16 for i in full[frontier : frontier + 16]]
            verifier.receive(name, Draft(epoch, frontier, pack_ids(ids), bytes([255] * len(ids))))
            before = len(engine.chunks)
            said = verifier.step()
            for sizes in engine.chunks[before:]:
                rows = sum(sizes) if frontier > len(PROMPT) else 1 + sum(sizes) - len(PROMPT)
                cost += pass_ms[max(1, min(32, rows))]
            for _, message in said:
                if isinstance(message, Verified):
                    frontier += len(unpack_ids(message.token_ids))
                    tokens += len(unpack_ids(message.token_ids))
                    ended = ended or message.finish is not None
            epoch += 1
        verifier.check_integrity()
    return cost, tokens


@pytest.mark.parametrize("num_sessions", [1, 8], ids=["one session", "a new session again and again"])
def test_a_hostile_drafter_costs_hardly_more_than_none(num_sessions: int) -> None:
    cost, tokens = spent(0.0, num_sessions, num_tokens=100 if num_sessions > 1 else 400)
    assert cost <= 1.02 * tokens + 16


def test_a_good_drafter_is_not_held_back() -> None:
    cost, tokens = spent(1.0)
    assert cost < 0.5 * tokens


def test_the_guard_opens_again_after_enough_plain_passes() -> None:
    guard = DraftGuard(lambda rows: 1 + 0.2 * (rows - 1))
    while guard.allows_drafts:
        guard.observe(num_drafted=16, num_accepted=0, num_tokens=1)
    for _ in range(200):
        guard.observe(num_drafted=0, num_accepted=0, num_tokens=1)
    assert guard.allows_drafts


def test_under_load_sessions_that_draft_are_asked_for_patience() -> None:
    verifier = make(ToyEngine(max_sequences=8, max_batch=1), pass_ms={1: 20.0, 2: 21.0})
    names = [verifier.open(open_message(num_tokens=300)).session for _ in range(6)]
    for name in names:
        verifier.receive(name, Draft(0, len(PROMPT), pack_ids([0])))
    heard = [message for _ in range(12) for _, message in verifier.step() if isinstance(message, Load)]
    assert any(message.patience_ms > 40 for message in heard)
    for name in names[1:]:
        verifier.close(name)
    heard = [message for _ in range(3) for _, message in verifier.step() if isinstance(message, Load)]
    assert heard[-1].patience_ms == 0


def test_the_door_closes_when_all_sessions_are_taken() -> None:
    verifier = make(limits=Limits(max_sessions=3, max_sessions_each=2))
    verifier.open(open_message(), "a")
    verifier.open(open_message(), "a")
    with pytest.raises(TooMany):
        verifier.open(open_message(), "a")
    name = verifier.open(open_message(), "b").session
    with pytest.raises(Overloaded):
        verifier.open(open_message(), "c")
    verifier.close(name)
    verifier.open(open_message(), "c")


class PoisonedEngine(ToyEngine):
    """Fails whenever a chunk holds the token 15 first."""

    def extend(self, chunks):
        if any(chunk.token_ids[0] == 15 for chunk in chunks):
            raise EngineError("poisoned")
        return super().extend(chunks)


def test_one_poisoned_session_takes_no_other_along() -> None:
    verifier = make(PoisonedEngine(max_sequences=8, max_batch=8, n_vocab=16))
    prompts = [[n, 2, 3] for n in range(7)]
    got = {verifier.open(open_message(prompt, num_tokens=1)).session: [] for prompt in prompts}
    poisoned = verifier.open(open_message([15, 1, 2])).session
    faults = []
    for _ in range(50):
        for name, message in verifier.step():
            if isinstance(message, Fault):
                faults.append((name, message.code, message.may_retry))
            elif isinstance(message, Verified):
                got[name] += unpack_ids(message.token_ids)
        verifier.check_integrity()
    assert faults == [(poisoned, "engine_failed", True)]
    assert list(got.values()) == [target_alone(prompt, 1) for prompt in prompts]


def test_an_engine_that_cannot_take_back_is_filled_again() -> None:
    engine = ToyEngine()
    engine.can_truncate = False
    verifier = make(engine)
    name = verifier.open(open_message(patience_ms=-1)).session
    full = PROMPT + target_alone()
    got: list[int] = []
    rng = random.Random(3)
    for epoch in range(200):
        frontier = len(PROMPT) + len(got)
        ids = [i if rng.random() < 0.6 else (i + 1) % 16 for i in full[frontier : frontier + 4]]
        verifier.receive(name, Draft(epoch, frontier, pack_ids(ids)))
        for _, message in verifier.step():
            if isinstance(message, Verified):
                got += unpack_ids(message.token_ids)
        verifier.check_integrity()
    assert got == target_alone()
