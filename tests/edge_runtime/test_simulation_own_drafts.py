"""With the verifier's own drafts over any link, text and machine: never slower than plain streaming, near the best
fixed setting of who drafts how many, and hardly ever slower than with the device's drafts alone."""

import itertools
import random

import pytest

from benchmarks.simulation import Link, Text, bursts, repeating, simulate
from outrider.lookup import SuffixAutomaton
from outrider.worth import PassCost
from tests.edge_runtime.test_simulation import MACHINES, NEAR, NEVER, SEEDS, speed_up

NUM_TOKENS = 200
REPEATS = {"code": (30, 4), "mixed": (4, 11)}  # mean lengths of copied and of new pieces


def text_of(kind: str, acceptance: float, mean_run: float, seed: int) -> Text:
    text = bursts(NUM_TOKENS, acceptance, mean_run, random.Random(seed))
    if kind == "misleading":  # so few ids that each end of the text occurred before, by chance
        return Text([token_id % 6 for token_id in text.token_ids], text.agrees, text.confidences)
    return repeating(text, *REPEATS[kind], random.Random(seed + 1))


@pytest.mark.parametrize(("kind", "proposes", "right"), [("code", 0.85, 6.0), ("mixed", 0.28, 2.4)])
def test_the_texts_repeat_themselves_as_real_ones_do(kind: str, proposes: float, right: float) -> None:
    """Of 8 tokens looked up, the first so many are right: measured, code 85 % of positions and 6.9, mixed 30 %, 2.4."""
    num_places = num_found = num_right = 0
    for seed in range(6):
        text = text_of(kind, 0.5, 0, seed)
        so_far = SuffixAutomaton(text.prompt_ids)
        for place in range(NUM_TOKENS - 8):
            num_places += 1
            if found := so_far.propose(8).token_ids:
                num_found += 1
                agrees = [a == b for a, b in zip(found, text.token_ids[place:], strict=False)]
                num_right += [*agrees, False].index(False)
            so_far.append(text.token_ids[place])
    assert num_found / num_places == pytest.approx(proposes, abs=0.08)
    assert num_right / num_found == pytest.approx(right, abs=0.8)


KINDS = ("code", "mixed", "misleading")
RTTS_MS = (0, 50, 300)
DRAFTERS = ((3.0, 0.71, 4), (16.3, 0.97, 38), (3.0, 0.05, 1))  # milliseconds, acceptance, mean run
CELLS = [
    (kind, machine, RTTS_MS[(row + column) % 3], *DRAFTERS[(row + 2 * column) % 3])
    for row, kind in enumerate(KINDS)
    for column, machine in enumerate(MACHINES)
]


def test_the_cells_are_a_square_of_all_pairs() -> None:
    every = [KINDS, list(MACHINES), RTTS_MS, DRAFTERS]
    factors = [(*cell[:3], cell[3:]) for cell in CELLS]
    for one, other in itertools.combinations(range(4), 2):
        assert {(cell[one], cell[other]) for cell in factors} == set(itertools.product(every[one], every[other]))


@pytest.mark.parametrize(("kind", "machine", "rtt_ms", "draft_ms", "acceptance", "run"), CELLS)
def test_never_slower_and_near_the_best_fixed_setting(
    kind: str, machine: str, rtt_ms: float, draft_ms: float, acceptance: float, run: int
) -> None:
    cost, link = MACHINES[machine], Link(rtt_ms)
    text = text_of(kind, acceptance, run, 5)
    ours = speed_up(text, link, cost, draft_ms, self_drafts=True)
    best = max(
        speed_up(text, link, cost, draft_ms, fixed_drafts=count, self_drafts=own)
        for count, own in ((2, False), (2, True), (16, True))
    )
    assert ours >= 0.98
    assert ours >= NEAR * best
    assert ours >= NEAR * speed_up(text, link, cost, draft_ms), "less than the device alone"


@pytest.mark.parametrize("seed", SEEDS)
def test_random_links_texts_and_machines(seed: int) -> None:
    rng = random.Random(seed)
    plain, row = rng.uniform(5, 150), rng.uniform(0, 1)
    cost = PassCost({rows: plain * (1 + row * (rows - 1) * rng.choice([0.02, 0.2, 1])) for rows in range(1, 33)})
    link = Link(rng.uniform(0, 300), rng.choice([0, 5, 80]))
    text = text_of(rng.choice(["code", "mixed", "misleading"]), rng.uniform(0.05, 0.98), rng.choice([0, 3, 20]), seed)
    draft_ms = rng.choice([NEVER, rng.uniform(1, 60)])
    assert speed_up(text, link, cost, draft_ms, self_drafts=True, seed=seed) >= 0.98, f"seed {seed}"


@pytest.mark.parametrize(("kind", "least"), [("code", 2.0), ("mixed", 1.05)])
@pytest.mark.parametrize("machine", ["one CPU core", "GPU, 25 ms"])
def test_without_a_drafter_repeating_text_comes_sooner_at_any_round_trip(kind: str, least: float, machine: str) -> None:
    texts = [text_of(kind, 0.5, 0, seed) for seed in range(3)]
    for rtt_ms in (0, 300):
        gains = [speed_up(text, Link(rtt_ms), MACHINES[machine], NEVER, self_drafts=True) for text in texts]
        assert sum(gains) / len(gains) >= least


def test_a_text_that_repeats_one_token_takes_the_longest_passes() -> None:
    """All 31 drafts of a pass right: 32 tokens a pass, as soon as the calibration believes it."""
    text = Text([7] * 3200, [True] * 3200, [1.0] * 3200)
    flat = PassCost(dict.fromkeys(range(1, 33), 25.0))
    result = simulate(text, Link(100), flat, NEVER, self_drafts=True)
    assert result.num_own == result.num_drafted
    assert result.num_passes == pytest.approx(100, abs=5)
