"""Acceptance by rejection: the target's distribution whatever the drafter's, and more of its drafts."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from outrider.choice import SamplingParams, choose, gumbel_noise
from outrider.errors import BadLogits, InvalidParameter
from outrider.rejection import Distribution, choose_or_reject, distribution
from tests.outrider.test_choice import LOGITS, NUM_SAMPLES, chi_square, probabilities

DRAFTER = np.array([0.5, 2.0, 1.5, -1.0, 0.5, 0.0, 1.0, -0.5, 0.2, -2.0], np.float32)
PLAIN = SamplingParams(temperature=1.0)
FILTERED = [
    SamplingParams(temperature=1.3, top_k=4, seed=5),
    SamplingParams(temperature=1.0, top_p=0.8, seed=3),
    SamplingParams(temperature=1.0, min_p=0.15, seed=8),
    SamplingParams(temperature=1.5, top_k=7, top_p=0.9, min_p=0.05, seed=2),
]
FEW = NUM_SAMPLES // 10
Rule = Callable[..., int]


def samples(
    rule: Rule, params: SamplingParams, count: int, drafter: np.ndarray = DRAFTER
) -> tuple[np.ndarray, np.ndarray]:
    """Drafts at so many positions, and what the rule makes of them."""
    drawn_from = distribution(drafter, params)
    drafts = np.array([choose(drafter, params, position) for position in range(count)])
    chosen = [rule(LOGITS, params, position, int(draft), drawn_from) for position, draft in enumerate(drafts)]
    return drafts, np.array(chosen)


def test_it_follows_the_target_distribution() -> None:
    assert chi_square(samples(choose_or_reject, PLAIN, 3 * FEW)[1], PLAIN) > 0.001


@pytest.mark.parametrize("params", [PLAIN, *FILTERED], ids=str)
def test_with_filters_on_both_sides_it_follows_the_filtered_distribution(params: SamplingParams) -> None:
    drafts, chosen = samples(choose_or_reject, params, FEW)
    assert chi_square(chosen, params) > 0.001
    assert chi_square(drafts, params) < 1e-6  # the positive control: the drafter's is another


@pytest.mark.parametrize("is_lookup", [True, False], ids=["one token for ever", "drawn"])
def test_a_draft_that_comes_alone_counts_as_certain(is_lookup: bool) -> None:
    def rule(logits: np.ndarray, params: SamplingParams, position: int, draft: int, _: Distribution) -> int:
        return choose_or_reject(logits, params, position, 2 if is_lookup else draft)

    assert chi_square(samples(rule, PLAIN, FEW)[1], PLAIN) > 0.001


def test_different_seeds_are_different_samples_of_the_same_distribution() -> None:
    params = [SamplingParams(temperature=1.0, seed=seed) for seed in range(FEW)]
    drawn_from = distribution(DRAFTER, PLAIN)
    chosen = [choose_or_reject(LOGITS, each, 7, choose(DRAFTER, each, 7), drawn_from) for each in params]
    assert chi_square(np.array(chosen), PLAIN) > 0.001


def without_residual(logits: np.ndarray, params: SamplingParams, position: int, draft: int, q: Distribution) -> int:
    token_id = choose_or_reject(logits, params, position, draft, q)
    return draft if token_id == draft else choose(logits, params, (2 << 32) + position)


def with_the_drafter_s_noise(
    logits: np.ndarray, params: SamplingParams, position: int, draft: int, q: Distribution
) -> int:
    """Accepted by the very number that drew the draft."""
    number = np.exp(-np.exp(-gumbel_noise(params.seed, position, np.array([draft]))))[0]
    if number * q.of(draft) < distribution(logits, params).of(draft):
        return draft
    residual = np.maximum(probabilities(params) - q.probabilities, 0)
    return int(np.random.default_rng(position).choice(10, p=residual / residual.sum()))


def with_certain_drafts_taken_alone(
    logits: np.ndarray, params: SamplingParams, position: int, draft: int, q: Distribution
) -> int:
    """What a pass would do that looked at a draft only where the drafter was sure of it."""
    if q.of(draft) < 0.15:
        return choose(logits, params, position)
    return choose_or_reject(logits, params, position, draft, q)


@pytest.mark.parametrize("rule", [without_residual, with_the_drafter_s_noise, with_certain_drafts_taken_alone])
def test_planted_bugs_do_not(rule: Rule) -> None:
    assert chi_square(samples(rule, PLAIN, FEW)[1], PLAIN) < 1e-6


def test_it_accepts_what_it_should_and_more_than_the_coupled_rule() -> None:
    count = FEW
    drafts, chosen = samples(choose_or_reject, PLAIN, count)
    q = distribution(DRAFTER, PLAIN).probabilities
    expected = float(np.minimum(probabilities(PLAIN), q).sum())
    assert stats.binomtest(int((drafts == chosen).sum()), count, expected).pvalue > 0.001
    coupled = np.array([choose(LOGITS, PLAIN, position) for position in range(count)])
    assert (drafts == chosen).sum() > (drafts == coupled).sum() * 1.05


def test_it_accepts_every_draft_of_the_target_s_own_distribution() -> None:
    drafts, chosen = samples(choose_or_reject, PLAIN, 2000, LOGITS)
    assert (drafts == chosen).all()


@given(st.integers(0, 9), st.integers(0, 1000))
def test_greedy_it_is_the_coupled_rule(draft: int, position: int) -> None:
    greedy = SamplingParams()
    for drawn_from in (None, distribution(DRAFTER, greedy)):
        assert choose_or_reject(LOGITS, greedy, position, draft, drawn_from) == choose(LOGITS, greedy, position)


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=10, max_size=10),
    st.lists(st.floats(-30, 30, width=32), min_size=10, max_size=10),
    st.integers(0, 99),
)
def test_what_comes_out_is_possible_under_the_target(target: list[float], drafter: list[float], seed: int) -> None:
    params = SamplingParams(temperature=0.7, top_p=0.9, seed=seed)
    logits, q = np.array(target, np.float32), distribution(np.array(drafter, np.float32), params)
    draft = choose(np.array(drafter, np.float32), params, 3)
    assert q.of(draft) > 0
    assert distribution(logits, params).of(choose_or_reject(logits, params, 3, draft, q)) > 0


def test_a_trimmed_drafter_s_distribution_is_over_its_own_ids() -> None:
    id_map = np.array([1, 4, 9], np.int32)
    own = distribution(DRAFTER[id_map], PLAIN, id_map)
    assert [own.of(token_id) > 0 for token_id in range(10)] == [token_id in (1, 4, 9) for token_id in range(10)]
    drafts = [choose(DRAFTER[id_map], PLAIN, position, id_map) for position in range(FEW)]
    chosen = [choose_or_reject(LOGITS, PLAIN, position, draft, own) for position, draft in enumerate(drafts)]
    assert chi_square(np.array(chosen), PLAIN) > 0.001


def test_bad_logits_and_unknown_rules_are_refused() -> None:
    with pytest.raises(BadLogits):
        choose_or_reject(np.full(10, np.nan, np.float32), PLAIN, 0, 1)
    with pytest.raises(InvalidParameter, match="acceptance"):
        SamplingParams(acceptance="perhaps")
