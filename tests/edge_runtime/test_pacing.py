"""The pace finds the number of drafts that pays, and stops where none do."""

import random

import pytest

from edge_runtime.ahead import AheadPace
from edge_runtime.drafters import Proposal
from edge_runtime.frontier import Frontier
from edge_runtime.pacing import Pace
from outrider.wire import encode

CPU_MS = {k: 30 + 8.0 * k for k in range(1, 33)}
FLAT_MS = {k: 25 + 0.1 * k for k in range(1, 33)}
STEEP_MS = {k: 30.0 * k for k in range(1, 33)}
STAIRS_MS = {k: 38 + 16.0 * ((k + 1) // 2) for k in range(1, 33)}  # passes of even sizes only


def simulate(pace: Pace, accuracy: float, draft_ms: float, pass_ms: dict[int, float]) -> float:
    """Tokens per millisecond over 1200 tokens, relative to plain decoding."""
    rng = random.Random(1)
    elapsed, tokens = 0.0, 0
    while tokens < 1200:
        count, reach = 0, 1.0
        while count < 15 and pace.wants_another("m", reach, count):
            count += 1
            reach *= pace.chance("m", accuracy)
        accepted = 0
        while accepted < count and rng.random() < accuracy:
            accepted += 1
        turn = count * draft_ms + pass_ms[count + 1]
        elapsed += turn
        tokens += accepted + 1
        if count:
            pace.observe_draft("m", draft_ms)
        pace.observe([("m", accuracy)] * count, accepted, accepted + 1, turn)
    return tokens / elapsed * pass_ms[1]


def fixed(count: int, accuracy: float, draft_ms: float, pass_ms: dict[int, float]) -> float:
    """The same of so many drafts each turn: 1 + a + ... + a^k tokens in k d + t(k + 1)."""
    return sum(accuracy**number for number in range(count + 1)) / (count * draft_ms + pass_ms[count + 1]) * pass_ms[1]


@pytest.mark.parametrize("pass_ms", [CPU_MS, FLAT_MS, STEEP_MS, STAIRS_MS], ids=["cpu", "flat", "steep", "stairs"])
@pytest.mark.parametrize("accuracy", [0.02, 0.3, 0.7, 0.9, 0.98])
@pytest.mark.parametrize("draft_ms", [1.0, 14.5, 40.0])
def test_it_is_near_the_best_fixed_number_and_never_slower(pass_ms, accuracy: float, draft_ms: float) -> None:
    best = max(fixed(count, accuracy, draft_ms, pass_ms) for count in range(16))
    paced = simulate(Pace(pass_ms), accuracy, draft_ms, pass_ms)
    assert paced >= 0.95 * best
    assert paced >= 0.95


def test_free_drafts_are_taken_as_far_as_they_pay() -> None:
    pace = Pace(CPU_MS)
    assert pace.num_worthwhile("lookup", []) == 0
    for _ in range(30):
        pace.observe([("lookup", 1.0)] * 8, 8, 9, CPU_MS[9])
    assert pace.num_worthwhile("lookup", [1.0] * 12) == 12
    for _ in range(30):
        pace.observe([("lookup", 0.4)] * 4, 0, 1, CPU_MS[5])
    assert pace.num_worthwhile("lookup", [0.4] * 4) == 0
    assert pace.num_worthwhile("lookup", [1.0] * 12) > 0  # confidences are told apart


def test_a_drafter_that_was_given_up_is_tried_again() -> None:
    pace = Pace(CPU_MS)
    pace.observe_draft("m", 15)
    for _ in range(20):
        pace.observe([("m", 0.5)] * 4, 0, 1, 120)
    assert not pace.wants_another("m", 1.0, 0)
    for _ in range(300):
        pace.observe([], 0, 1, CPU_MS[1])
    assert pace.wants_another("m", 1.0, 0)


def test_easy_text_does_not_make_time_dear_in_hard_text() -> None:
    """What is found in the text costs nothing, and many tokens a turn are no reason to spare a model's drafts after."""
    pace = Pace(CPU_MS)
    pace.observe_draft("m", 10)
    for _ in range(50):
        pace.observe([("lookup", 1.0)] * 15, 15, 16, CPU_MS[16])
    assert pace.rate("lookup") == pytest.approx(16 / CPU_MS[16])
    assert pace.rate("m") == pytest.approx(1 / CPU_MS[1])
    assert pace.wants_another("m", 1.0, 0)
    for _ in range(50):
        pace.observe([("m", 0.9)] * 7, 7, 8, CPU_MS[8] + 70)
    assert pace.rate("m") == pytest.approx(8 / (CPU_MS[8] + 70), rel=1e-3)


def through_stretches(pace: Pace | tuple[int, int], seed: int = 4) -> float:
    """Milliseconds of 3000 tokens: stretches of 60 that the text itself has, then 60 that only a model guesses, nine
    in ten of either rightly. Instead of a pace: so many drafts in the one kind and in the other."""
    rng = random.Random(seed)
    elapsed, place = 0.0, 0
    while place < 3000:
        left, is_easy = 60 - place % 60, place // 60 % 2 == 0
        source, draft_ms = ("lookup", 0.0) if is_easy else ("m", 14.5)
        count = 0
        if isinstance(pace, tuple):
            count = min(pace[is_easy], left - 1)
        elif is_easy:
            count = pace.num_worthwhile(source, [0.9] * min(15, left - 1))
        else:
            while count < min(15, left - 1) and pace.wants_another(source, pace.chance(source, 0.9) ** count, count):
                count += 1
        accepted = next((n for n in range(count) if rng.random() > 0.9), count)
        turn = count * draft_ms + CPU_MS[count + 1]
        if not isinstance(pace, tuple):
            if draft_ms and count:
                pace.observe_draft(source, draft_ms)
            pace.observe([(source, 0.9)] * count, accepted, accepted + 1, turn)
        elapsed, place = elapsed + turn, place + accepted + 1
    return elapsed


def test_stretches_that_the_text_has_and_stretches_for_a_model() -> None:
    best = min(through_stretches((hard, easy)) for hard in range(9) for easy in range(16))
    assert through_stretches(Pace(CPU_MS)) <= 1.04 * best


def test_free_drafts_go_first_where_they_promise_more_than_a_model() -> None:
    pace = Pace(CPU_MS)
    pace.observe_draft("m", 15)
    for _ in range(20):
        pace.observe([("lookup", 1.0)] * 8, 8, 9, CPU_MS[9])
        pace.observe([("lookup", 0.4)] * 2, 0, 1, CPU_MS[3])
        pace.observe([("m", 0.9)] * 4, 4, 5, CPU_MS[5] + 60)
    assert pace.prefers("lookup", [1.0] * 8, "m")
    assert not pace.prefers("lookup", [0.4] * 8, "m")


def test_another_text_begins_anew_and_drafts_cost_what_they_did() -> None:
    """Guesses that were always wrong in one text are tried in the next, and nobody measures the drafter again."""
    pace = Pace(CPU_MS)
    pace.observe_draft("m", 15)
    for _ in range(30):
        pace.observe([("m", 0.9)] * 4, 0, 1, 120)
    assert not pace.wants_another("m", 1.0, 0)
    other = pace.anew()
    assert other.wants_another("m", 1.0, 0)
    for _ in range(60):
        other.observe_draft("m", 1000)
    assert not other.wants_another("m", 1.0, 0)
    assert not pace.anew().wants_another("m", 1.0, 0)
    assert not pace.wants_another("m", 1.0, 0)  # it did not hear what became of the other's


def test_costs_beyond_the_measured_are_extrapolated() -> None:
    assert Pace({1: 10, 2: 12}).pass_ms(4) == 24


def test_a_message_of_drafts_is_small() -> None:
    """64 bytes with a WebSocket's framing, for any list: a round trip on a slow link is its bytes, too."""
    pace = AheadPace()
    count = pace.num_worthwhile("lookup", [1.0] * 200)
    assert count > 0
    frontier = Frontier([7] * 30_000)
    frontier.epoch = 250
    frontier.guess(250, 30_000, Proposal("lookup", [200_000] * count, [1.0] * count))
    draft = frontier.next_draft()
    assert draft is not None
    assert len(encode(draft)) + 6 <= 64  # of framing: two bytes of header, four of mask
    steps = 0
    while pace.wants_another("model", 1.0, steps):
        steps += 1
    assert 0 < steps <= count
