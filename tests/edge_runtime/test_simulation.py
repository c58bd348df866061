"""Over any link, text and machine: never slower than the target alone, near the best fixed setting; closed forms agree.

Everything is simulated with the product's own rules (`benchmarks/simulation/`) and a seed; nothing is timed.
"""

import math
import random
from collections.abc import Callable

import pytest

from benchmarks.simulation import Link, Text, bursts, simulate
from outrider.worth import PassCost

MACHINES: dict[str, PassCost] = {
    "one CPU core": PassCost({rows: 95 + 13.0 * (rows - 1) for rows in range(1, 33)}),
    "GPU, 25 ms": PassCost({rows: 25 + max(0.0, rows - 16) for rows in range(1, 33)}),
    "GPU, 10 ms": PassCost({rows: 10 + 0.1 * (rows - 1) for rows in range(1, 33)}),
    "every row costs a pass": PassCost({rows: 30.0 * rows for rows in range(1, 33)}),
}
NUM_TOKENS = 225
NEVER = float("inf")
NEAR = 0.98  # of the best fixed setting
SEEDS = [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 60))]


def speed_up(text: Text, link: Link, cost: Callable[[int], float], draft_ms: float, **over: object) -> float:
    plain_ms = cost(1) * len(text.token_ids)
    return plain_ms / simulate(text, link, cost, draft_ms, **over).elapsed_ms


RTTS_MS = (0, 14, 50, 300)
TEXTS = ((0.05, 1), (0.4, 0), (0.71, 4), (0.97, 38))  # acceptance, and the mean length of a run of right drafts
CELLS = [
    (machine, rtt_ms, draft_ms, *TEXTS[(row + column + shift) % 4])
    for row, machine in enumerate(MACHINES)
    for column, rtt_ms in enumerate(RTTS_MS)
    for shift, draft_ms in ((0, 3.0), (1, 16.3))
]


def test_the_cells_are_a_square_of_all_pairs() -> None:
    """Every text meets every machine and every round trip, with a fast drafter and with a slow one."""
    for machine_or_rtt in (0, 1):
        met = {(cell[machine_or_rtt], *cell[2:]) for cell in CELLS}
        assert len(met) == len(CELLS) == 4 * 2 * len(TEXTS)


@pytest.mark.parametrize(("machine", "rtt_ms", "draft_ms", "acceptance", "run"), CELLS)
def test_never_slower_and_near_the_best_fixed_setting(
    machine: str, rtt_ms: float, draft_ms: float, acceptance: float, run: int
) -> None:
    cost = MACHINES[machine]
    text = bursts(NUM_TOKENS, acceptance, run, random.Random(5))
    ours = speed_up(text, Link(rtt_ms), cost, draft_ms)
    best = max(speed_up(text, Link(rtt_ms), cost, draft_ms, fixed_drafts=count) for count in (2, 16))
    assert ours >= 0.98
    assert ours >= NEAR * best


@pytest.mark.parametrize("seed", SEEDS)
def test_random_links_texts_and_machines(seed: int) -> None:
    rng = random.Random(seed)
    plain, row = rng.uniform(5, 150), rng.uniform(0, 1)
    cost = PassCost({rows: plain * (1 + row * (rows - 1) * rng.choice([0.02, 0.2, 1])) for rows in range(1, 33)})
    link = Link(rng.uniform(0, 300), rng.choice([0, 5, 80]))
    text = bursts(400, rng.uniform(0.05, 0.98), rng.choice([0, 3, 20, 60]), rng, rng.choice([0.05, 0.3]))
    assert speed_up(text, link, cost, rng.uniform(1, 60), seed=seed) >= 0.98, f"seed {seed}"  # the slack is 2 % of 400


def test_a_hostile_drafter_that_is_always_sure() -> None:
    for cost in MACHINES.values():
        text = bursts(NUM_TOKENS, 0.0, 1, random.Random(1))
        sure = Text(text.token_ids, [False] * NUM_TOKENS, [1.0] * NUM_TOKENS)
        assert speed_up(sure, Link(14), cost, 1.0) >= 0.95  # the slack of eight passes is 4 % of 225


def test_text_that_turns_from_easy_to_hard_and_back() -> None:
    rng = random.Random(3)
    parts = [bursts(100, acceptance, 0, rng) for acceptance in (0.98, 0.1, 0.98, 0.1)]
    text = Text(
        [token for part in parts for token in part.token_ids],
        [agrees for part in parts for agrees in part.agrees],
        [confidence for part in parts for confidence in part.confidences],
    )
    for cost in MACHINES.values():
        assert speed_up(text, Link(50), cost, 10.0) >= 0.98


def test_without_a_drafter_it_is_plain_streaming_exactly() -> None:
    text = bursts(NUM_TOKENS, 0.9, 0, random.Random(1))
    for rtt_ms in (0, 300):
        result = simulate(text, Link(rtt_ms), MACHINES["GPU, 25 ms"], NEVER)
        assert result.elapsed_ms == pytest.approx(25.0 * NUM_TOKENS)
        assert result.num_passes == NUM_TOKENS


@pytest.mark.parametrize("draft_ms", [2.0, 12.0])
def test_with_perfect_drafts_the_slower_of_both_decides(draft_ms: float) -> None:
    """A flat pass of 25 ms: the device makes a token in `draft_ms`, the verifier takes at most 32 in a pass."""
    text = Text([1] * 1500, [True] * 1500, [1.0] * 1500)
    flat = PassCost(dict.fromkeys(range(1, 33), 25.0))
    result = simulate(text, Link(20), flat, draft_ms)
    assert result.ms_per_token == pytest.approx(max(draft_ms, 25 / 32), rel=0.08)


@pytest.mark.parametrize("rtt_ms", [0, 50, 150])
def test_after_each_miss_the_round_trip_goes_at_plain_speed(rtt_ms: float) -> None:
    """Misses at fixed distances: n_c = ceil((RTT + 2 d) / (t(1) - d)) tokens at t(1), the rest as drafts come."""
    plain_ms, draft_ms, run = 25.0, 10.0, 60
    text = Text([1] * 1500, [(place + 1) % run != 0 for place in range(1500)], [0.98] * 1500)
    flat = PassCost(dict.fromkeys(range(1, 33), plain_ms))
    slow = math.ceil((rtt_ms + 2 * draft_ms) / (plain_ms - draft_ms))
    predicted_ms = (slow * plain_ms + (run - slow) * draft_ms) / run
    assert simulate(text, Link(rtt_ms), flat, draft_ms).ms_per_token == pytest.approx(predicted_ms, rel=0.1)


def test_the_same_seed_the_same_run() -> None:
    text = bursts(NUM_TOKENS, 0.8, 0, random.Random(1))
    runs = [simulate(text, Link(50, 20), MACHINES["GPU, 25 ms"], 5.0, seed=4).trace for _ in range(2)]
    assert runs[0] == runs[1]
