"""The search and its verdict, on a simulated link and clock with the product's own pacing: nothing is timed here."""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from benchmarks.simulation import Link, bursts, simulate
from edge_runtime.knobs import Knobs
from edge_runtime.tuning.compare import compare, median_interval
from edge_runtime.tuning.goals import ENERGY, LATENCY, VERIFIER_COST, Sample, cost, score
from edge_runtime.tuning.prompts import Prompt, load_prompts, split
from edge_runtime.tuning.search import Ask
from edge_runtime.tuning.space import Space
from edge_runtime.tuning.tune import Outcome, tune
from outrider.errors import EngineError, InvalidParameter
from outrider.worth import PassCost

PASS_MS = PassCost({rows: 40 + 4.0 * (rows - 1) for rows in range(1, 33)})
NUM_TOKENS = 40
DRAFTERS = {"none": (0.0, float("inf")), "slow": (0.6, 30.0), "fast": (0.95, 4.0)}  # how often right, ms a draft
SPACE = Space(Knobs("slow", max_ahead=4, min_reach=0.05), list(DRAFTERS), [0], [0], [4, 16, 64])
SEARCHED, HELD_OUT = split(load_prompts("both"))
BUDGET_S = 300.0


@functools.cache
def simulated(prompt: Prompt, drafter: str, max_ahead: int, rtt_ms: float) -> Sample:
    acceptance, draft_ms = DRAFTERS[drafter]
    text = bursts(NUM_TOKENS, acceptance, 0, random.Random(prompt.text))
    result = simulate(text, Link(rtt_ms), PASS_MS, draft_ms, max_ahead=max_ahead)
    return Sample(text.token_ids, result.elapsed_ms, result.busy_ms, 0.0)


@dataclass
class World:
    """A device far from its verifier. `now_s` moves by what answers take, and `noise` around that."""

    noise: float = 0.0
    rtt_ms: float = 150.0
    now_s: float = 0.0
    asked: list[tuple[Knobs, Prompt]] = field(default_factory=list)
    before: Callable[[Knobs, int], None] = lambda knobs, number: None  # an answer, by its number
    same: bool = False  # all settings cost the same

    def clock(self) -> float:
        return self.now_s

    def begin(self, knobs: Knobs) -> Ask:
        def ask(prompt: Prompt) -> Sample:
            self.before(knobs, len(self.asked))
            rng = random.Random(f"{prompt.text} {len(self.asked)}")
            self.asked.append((knobs, prompt))
            answer = simulated(prompt, *(("slow", 4) if self.same else (knobs.drafter, knobs.max_ahead)), self.rtt_ms)
            elapsed_ms = answer.elapsed_ms * (1 + rng.uniform(-self.noise, self.noise))
            self.now_s += elapsed_ms / 1000
            return msgspec.structs.replace(answer, elapsed_ms=elapsed_ms)

        return ask

    def tune(self, goal: str = LATENCY, budget_s: float = BUDGET_S) -> Outcome:
        return tune(SPACE, SEARCHED, HELD_OUT, self.begin, goal, budget_s, clock=self.clock)


@pytest.fixture(scope="module")
def tuned() -> tuple[World, Outcome]:
    world = World(noise=0.1)
    return world, world.tune()


def test_a_planted_better_setting_is_found_and_proven(tuned: tuple[World, Outcome]) -> None:
    _, outcome = tuned
    assert outcome.found.trials[0].knobs == SPACE.defaults
    assert outcome.found.challenger is not None
    best = outcome.found.challenger.knobs
    assert (best.drafter, best.max_ahead > 4) == ("fast", True)
    assert outcome.is_gain
    assert outcome.is_exact
    assert outcome.comparison is not None
    assert outcome.comparison.interval is not None
    assert outcome.comparison.interval[1] < 0.8
    assert outcome.comparison.num_pairs >= len(HELD_OUT)


def test_what_proves_was_not_searched_on(tuned: tuple[World, Outcome]) -> None:
    world, outcome = tuned
    num_searched = sum(trial.num_prompts for trial in outcome.found.trials)
    assert {prompt for _, prompt in world.asked[:num_searched]} == set(SEARCHED)
    compared = world.asked[-2 * outcome.comparison.num_pairs :] if outcome.comparison else []
    assert {prompt for _, prompt in compared} == set(HELD_OUT)
    assert not set(SEARCHED) & set(HELD_OUT)


def test_both_answer_in_turns_and_begin_in_turns(tuned: tuple[World, Outcome]) -> None:
    world, outcome = tuned
    assert outcome.comparison is not None
    first = [knobs for knobs, _ in world.asked[-2 * outcome.comparison.num_pairs :][::2]]
    assert abs(first.count(SPACE.defaults) - len(first) / 2) <= 1
    pairs = world.asked[-2 * outcome.comparison.num_pairs :]
    assert all(one[1] == two[1] and one[0] != two[0] for one, two in zip(pairs[::2], pairs[1::2], strict=True))


def test_poor_settings_are_given_up_early(tuned: tuple[World, Outcome]) -> None:
    _, outcome = tuned
    pruned = [trial for trial in outcome.found.trials if trial.end == "pruned"]
    assert pruned
    assert all(2 <= trial.num_prompts < len(SEARCHED) for trial in pruned)  # a prompt of each kind at least
    assert min(trial.score for trial in pruned) > min(trial.score for trial in outcome.found.trials)


def test_defaults_that_are_best_stay() -> None:
    space = msgspec.structs.replace(SPACE.defaults, drafter="fast", max_ahead=64)
    world = World(noise=0.1)
    best_first = Space(space, SPACE.drafters, [0], [0], [64, 4])
    outcome = tune(best_first, SEARCHED, HELD_OUT, world.begin, LATENCY, BUDGET_S, clock=world.clock)
    assert outcome.comparison is not None  # measured, not only said
    assert outcome.comparison.num_prompts == len(HELD_OUT)
    assert not outcome.is_gain


@pytest.mark.parametrize(("noise", "rtt_ms"), [(0.0, 150.0), (0.3, 20.0), (0.3, 150.0)])
def test_where_nothing_matters_no_gain_is_seen_in_the_noise(noise: float, rtt_ms: float) -> None:
    outcome = World(noise, rtt_ms, same=True).tune(budget_s=200)
    assert outcome.comparison is not None
    assert not outcome.is_gain, outcome.comparison


def test_less_of_the_verifier_is_another_goal_than_less_time() -> None:
    """With a slow drafter that is seldom right the verifier is least busy when nobody drafts."""
    drafters = ["slow", "none"]
    world = World()
    space = Space(msgspec.structs.replace(SPACE.defaults), drafters, [0], [0], [4])
    outcome = tune(space, SEARCHED, HELD_OUT, world.begin, VERIFIER_COST, BUDGET_S, clock=world.clock)
    by_drafter = {trial.knobs.drafter: trial.score for trial in outcome.found.trials[:2]}
    assert by_drafter["none"] == pytest.approx(PASS_MS(1) * NUM_TOKENS / (NUM_TOKENS - 1))
    sample = Sample([1, 2, 3], elapsed_ms=8.0, verifier_ms=6.0, energy=0.01)
    assert [cost(goal, sample) for goal in (LATENCY, VERIFIER_COST, ENERGY)] == [4.0, 3.0, 5.0]
    assert score({"code": [1.0, 2.0, 9.0], "chat": [8.0]}) == pytest.approx(4.0)


def test_the_budget_is_kept_and_used() -> None:
    tried = []
    for budget_s in (150.0, 300.0):
        world = World()
        outcome = world.tune(budget_s=budget_s)
        longest_s = 2 * 1.2 * NUM_TOKENS * PASS_MS(1) / 1000
        assert 0.6 * budget_s < world.now_s <= budget_s + longest_s
        assert outcome.comparison is not None
        tried.append(len(outcome.found.trials))
    assert 3 <= tried[0] < tried[1]
    with pytest.raises(InvalidParameter, match="budget"):
        World().tune(budget_s=0)
    short = World()
    with pytest.raises(InvalidParameter, match="no time even for the defaults"):
        short.tune(budget_s=8)
    assert len(short.asked) < len(SEARCHED)


def test_a_space_that_is_known_whole_ends_the_search() -> None:
    world = World()
    none = Space(Knobs("none"), ["none"])
    outcome = tune(none, SEARCHED, HELD_OUT, world.begin, LATENCY, BUDGET_S, clock=world.clock)
    assert [trial.end for trial in outcome.found.trials] == ["done"]
    assert (outcome.comparison, outcome.is_gain) == (None, False)
    assert len(world.asked) == len(SEARCHED)


def interrupting(*numbers: int) -> Callable[[Knobs, int], None]:
    """Ctrl-C before these answers, once each."""
    left = list(numbers)

    def before(knobs: Knobs, number: int) -> None:
        if left and number == left[0]:
            left.pop(0)
            raise KeyboardInterrupt

    return before


def test_ctrl_c_keeps_the_best_so_far() -> None:
    world = World(before=interrupting(40))
    outcome = world.tune()
    assert outcome.is_interrupted
    assert outcome.is_gain  # every drafter was tried once by then
    assert sum(trial.num_prompts for trial in outcome.found.trials) <= 40


def test_a_second_ctrl_c_ends_the_comparison_with_what_there_is() -> None:
    outcome = World(before=interrupting(40, 60)).tune()
    assert outcome.is_interrupted
    assert outcome.comparison is not None
    assert 0 < outcome.comparison.num_pairs <= 10
    few = World(before=interrupting(40, 44)).tune()
    assert not few.is_gain  # too few to say


def test_ctrl_c_before_anything_is_known_is_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt):
        World(before=interrupting(3)).tune()


def test_a_setting_that_says_something_else_is_out_and_told() -> None:
    world = World()

    def begin(knobs: Knobs) -> Ask:
        ask = world.begin(knobs)
        if knobs.drafter != "fast":
            return ask
        return lambda prompt: msgspec.structs.replace(ask(prompt), token_ids=[0] * NUM_TOKENS)

    outcome = tune(SPACE, SEARCHED, HELD_OUT, begin, LATENCY, BUDGET_S, clock=world.clock)
    assert not outcome.is_exact
    assert outcome.found.challenger is None or outcome.found.challenger.knobs.drafter != "fast"
    held_out_only = compare(
        world.begin(SPACE.defaults), begin(Knobs("fast")), HELD_OUT, LATENCY, until_s=float("inf"), clock=world.clock
    )
    assert not held_out_only.is_exact
    assert not held_out_only.is_gain


def test_a_drafter_that_cannot_be_opened_costs_only_its_place() -> None:
    world = World()

    def begin(knobs: Knobs) -> Ask:
        if knobs.drafter == "none":
            raise EngineError("it does not load; take another")
        return world.begin(knobs)

    outcome = tune(SPACE, SEARCHED, HELD_OUT, begin, LATENCY, BUDGET_S, clock=world.clock)
    failed = [trial for trial in outcome.found.trials if trial.end == "failed"]
    assert {(trial.knobs.drafter, trial.why) for trial in failed} == {("none", "it does not load; take another")}
    assert outcome.is_exact
    assert outcome.is_gain


def test_intervals_of_a_median_hold_it_as_often_as_they_say() -> None:
    rng = random.Random(3)
    held = 0
    for _ in range(1000):
        interval = median_interval([rng.expovariate(1.0) for _ in range(12)])
        assert interval is not None
        held += interval[0] <= 0.6931 <= interval[1]
    assert 940 <= held <= 990


def test_own_prompts_are_each_there_once_and_long_enough_to_prove_something() -> None:
    for which in ("code", "chat", "both"):
        prompts = load_prompts(which)
        searched, held_out = split(prompts)
        assert sorted(map(str, [*searched, *held_out])) == sorted(set(map(str, prompts)))
        assert median_interval([1.0] * len(held_out)) is not None
        assert {prompt.kind for prompt in searched} == {prompt.kind for prompt in held_out}
