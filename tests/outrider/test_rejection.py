"""Acceptance by rejection: the target's distribution whatever the drafter's, and more of its drafts."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.choice import SamplingParams, choose
from outrider.errors import BadLogits, InvalidParameter
from outrider.rejection import RESIDUAL, Distribution, choose_or_reject, distribution
from tests.outrider.definition import LOGITS, chi_square, choices, choices_or_rejections, noise, p_value, probabilities

DRAFTER = np.array([0.5, 2.0, 1.5, -1.0, 0.5, 0.0, 1.0, -0.5, 0.2, -2.0], np.float32)
PLAIN = SamplingParams(temperature=1.0)
FILTERED = [
    SamplingParams(temperature=1.3, top_k=4, seed=5),
    SamplingParams(temperature=1.0, top_p=0.8, seed=3),
    SamplingParams(temperature=1.0, min_p=0.15, seed=8),
    SamplingParams(temperature=1.5, top_k=7, top_p=0.9, min_p=0.05, seed=2),
]
POSITIONS = np.arange(20_000)
SOME = np.random.default_rng(9).choice(POSITIONS, 300)
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


@functools.cache
def drawn(params: SamplingParams) -> np.ndarray:
    """The drafter's drafts, one a position."""
    return choices(params, POSITIONS, DRAFTER)


def must_be_the_rule_s(
    chosen: np.ndarray, params: SamplingParams, drafts: np.ndarray, drawn_from: Distribution | None
) -> None:
    """At positions drawn by chance: what is defined is what the product does."""
    for position in SOME.tolist():
        given = choose_or_reject(LOGITS, params, position, int(drafts[position]), drawn_from)
        assert given == chosen[position]


@pytest.mark.parametrize("params", [PLAIN, *FILTERED], ids=str)
def test_it_follows_the_target_s_filtered_distribution(params: SamplingParams) -> None:
    """With filters on both sides."""
    drafts = drawn(params)
    chosen = choices_or_rejections(params, POSITIONS, drafts, probabilities(params, DRAFTER))
    assert chi_square(chosen, params) > 0.001
    assert chi_square(drafts, params) < 1e-6  # the positive control: the drafter's is another
    must_be_the_rule_s(chosen, params, drafts, distribution(DRAFTER, params))


@pytest.mark.parametrize("is_lookup", [True, False], ids=["one token for ever", "drawn"])
def test_a_draft_that_comes_alone_counts_as_certain(is_lookup: bool) -> None:
    drafts = np.full_like(POSITIONS, 2) if is_lookup else drawn(PLAIN)
    chosen = choices_or_rejections(PLAIN, POSITIONS, drafts, None)
    assert chi_square(chosen, PLAIN) > 0.001
    must_be_the_rule_s(chosen, PLAIN, drafts, None)


def test_different_seeds_are_different_samples_of_the_same_distribution() -> None:
    here = np.array(7)
    drafts = choices(PLAIN, here, DRAFTER, seeds=POSITIONS)
    chosen = choices_or_rejections(PLAIN, here, drafts, probabilities(PLAIN, DRAFTER), seeds=POSITIONS)
    assert chi_square(chosen, PLAIN) > 0.001
    drawn_from = distribution(DRAFTER, PLAIN)
    for seed in SOME.tolist():
        params = SamplingParams(temperature=1.0, seed=seed)
        assert choose(DRAFTER, params, 7) == drafts[seed]
        assert choose_or_reject(LOGITS, params, 7, int(drafts[seed]), drawn_from) == chosen[seed]


def without_residual(drafts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.where(chosen == drafts, drafts, choices(PLAIN, RESIDUAL + POSITIONS))


def with_the_drafter_s_noise(drafts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Accepted by the very number that drew the draft."""
    p, q = probabilities(PLAIN), probabilities(PLAIN, DRAFTER)
    number = np.exp(-np.exp(-noise(np.array(0), POSITIONS, np.arange(10))))[POSITIONS, drafts]
    residual = np.maximum(p - q, 0)
    redrawn = np.random.default_rng(1).choice(10, len(drafts), p=residual / residual.sum())
    return np.where(number * q[drafts] < p[drafts], drafts, redrawn)


def with_certain_drafts_taken_alone(drafts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """What a pass would do that looked at a draft only where the drafter was sure of it."""
    return np.where(probabilities(PLAIN, DRAFTER)[drafts] < 0.15, choices(PLAIN, POSITIONS), chosen)


@pytest.mark.parametrize("rule", [without_residual, with_the_drafter_s_noise, with_certain_drafts_taken_alone])
def test_planted_bugs_do_not(rule: Rule) -> None:
    drafts = drawn(PLAIN)
    chosen = choices_or_rejections(PLAIN, POSITIONS, drafts, probabilities(PLAIN, DRAFTER))
    assert chi_square(rule(drafts, chosen), PLAIN) < 1e-6


def test_it_accepts_what_it_should_and_more_than_the_coupled_rule() -> None:
    drafts, q = drawn(PLAIN), probabilities(PLAIN, DRAFTER)
    chosen = choices_or_rejections(PLAIN, POSITIONS, drafts, q)
    expected = float(np.minimum(probabilities(PLAIN), q).sum())
    accepted = np.array([(drafts == chosen).sum(), (drafts != chosen).sum()])
    assert p_value(accepted, len(drafts) * np.array([expected, 1 - expected])) > 0.001
    assert (drafts == chosen).sum() > (drafts == choices(PLAIN, POSITIONS)).sum() * 1.05


def test_it_accepts_every_draft_of_the_target_s_own_distribution() -> None:
    own = distribution(LOGITS, PLAIN)
    for position in range(500):
        draft = choose(LOGITS, PLAIN, position)
        assert choose_or_reject(LOGITS, PLAIN, position, draft, own) == draft


@given(st.integers(0, 9), st.integers(0, 1000))
@settings(max_examples=30)
def test_greedy_it_is_the_coupled_rule(draft: int, position: int) -> None:
    greedy = SamplingParams()
    for drawn_from in (None, distribution(DRAFTER, greedy)):
        assert choose_or_reject(LOGITS, greedy, position, draft, drawn_from) == choose(LOGITS, greedy, position)


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=10, max_size=10),
    st.lists(st.floats(-30, 30, width=32), min_size=10, max_size=10),
    st.integers(0, 99),
)
@settings(max_examples=40)
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
    masked = np.full_like(DRAFTER, -np.inf)
    masked[id_map] = DRAFTER[id_map]
    drafts = choices(PLAIN, POSITIONS, masked)
    chosen = choices_or_rejections(PLAIN, POSITIONS, drafts, probabilities(PLAIN, masked))
    assert chi_square(chosen, PLAIN) > 0.001
    must_be_the_rule_s(chosen, PLAIN, drafts, own)
    for position in SOME.tolist():
        assert choose(DRAFTER[id_map], PLAIN, position, id_map) == drafts[position]


def test_bad_logits_and_unknown_rules_are_refused() -> None:
    with pytest.raises(BadLogits):
        choose_or_reject(np.full(10, np.nan, np.float32), PLAIN, 0, 1)
    with pytest.raises(InvalidParameter, match="acceptance"):
        SamplingParams(acceptance="perhaps")
