"""The choice is the target's distribution, and a function of its arguments alone."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.choice import SamplingParams, choose, gumbel_noise, surviving_columns
from outrider.errors import BadLogits, InvalidParameter
from outrider.history import open_history
from tests.outrider.definition import LOGITS, chi_square, choices, noise, p_value, probabilities

NUM_SAMPLES = 100_000
POSITIONS = np.arange(NUM_SAMPLES)
SOME = np.random.default_rng(9).choice(POSITIONS, 500)
PLAIN = SamplingParams(temperature=1.0)
SETTINGS = [
    PLAIN,
    SamplingParams(temperature=0.8, seed=11),
]
FILTERED = [
    SamplingParams(temperature=1.3, top_k=4, seed=5),
    SamplingParams(temperature=1.0, top_p=0.8, seed=3),
    SamplingParams(temperature=1.0, min_p=0.15, seed=8),
    SamplingParams(temperature=1.5, top_k=7, top_p=0.9, min_p=0.05, seed=2),
]


@functools.cache
def draw(params: SamplingParams) -> np.ndarray:
    """One choice at each of NUM_SAMPLES positions."""
    return choices(params, POSITIONS)


def pair_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """p-value of the two being independent."""
    from scipy.special import chdtrc

    pairs = np.full((10, 10), 1e-9)
    np.add.at(pairs, (first, second), 1)
    expected = np.outer(pairs.sum(axis=1), pairs.sum(axis=0)) / pairs.sum()
    return float(chdtrc(9 * 9, ((pairs - expected) ** 2 / expected).sum()))


@pytest.mark.parametrize("params", [*SETTINGS, *FILTERED], ids=str)
def test_a_choice_is_what_it_is_defined_to_be(params: SamplingParams) -> None:
    """At positions drawn by chance; and so the distributions below are its own."""
    assert [choose(LOGITS, params, position) for position in SOME.tolist()] == draw(params)[SOME].tolist()


@pytest.mark.parametrize("params", SETTINGS, ids=str)
def test_sampling_follows_the_target_distribution(params: SamplingParams) -> None:
    assert chi_square(draw(params), params) > 0.001


@pytest.mark.parametrize("params", FILTERED, ids=str)
def test_sampling_with_filters_follows_the_filtered_distribution(params: SamplingParams) -> None:
    assert chi_square(draw(params), params) > 0.001


def test_different_seeds_are_different_samples_of_the_same_distribution() -> None:
    samples = choices(PLAIN, np.array(7), seeds=POSITIONS)
    assert chi_square(samples, PLAIN) > 0.001
    for seed in SOME.tolist():
        assert choose(LOGITS, SamplingParams(temperature=1.0, seed=seed), 7) == samples[seed]


def test_sampling_with_a_history_follows_the_adjusted_distribution() -> None:
    params = SamplingParams(
        temperature=1.0, seed=4, repetition_penalty=1.6, presence_penalty=0.7, logit_bias=((5, 2.0),)
    )
    history = open_history(params, [0, 7, 7, 9])
    assert history is not None
    row = history.adjust(LOGITS)
    samples = choices(params, POSITIONS, row)
    assert [choose(row, params, position) for position in SOME.tolist()] == samples[SOME].tolist()
    logits = LOGITS.astype(np.float64)
    logits[5] += 2
    logits[[0, 7]] /= 1.6
    logits[9] *= 1.6
    logits[[0, 7, 9]] -= 0.7
    expected = np.exp(logits) / np.exp(logits).sum() * len(samples)
    assert p_value(np.bincount(samples, minlength=10), expected) > 0.001
    assert chi_square(samples, params) < 1e-6  # the positive control: it is not the plain distribution


def test_neighbouring_positions_are_independent() -> None:
    samples = draw(PLAIN)
    assert pair_p_value(samples[:-1:2], samples[1::2]) > 0.001


def noise_of_the_position_before(position: np.ndarray) -> np.ndarray:
    """Planted bug: a round's bonus token reuses the noise of the position before it."""
    return np.where(position % 5 == 4, position - 1, position)


def noise_of_the_round(position: np.ndarray) -> np.ndarray:
    """Planted bug: one random number for all positions of a round."""
    return position // 5 * 5


@pytest.mark.parametrize("planted", [noise_of_the_position_before, noise_of_the_round])
def test_a_planted_bug_in_the_noise_fails(planted: Callable[[np.ndarray], np.ndarray]) -> None:
    samples = draw(PLAIN)[planted(np.arange(NUM_SAMPLES))]
    assert pair_p_value(samples[3::5], samples[4::5]) < 1e-6


def test_a_planted_bug_in_the_temperature_fails() -> None:
    assert chi_square(draw(SamplingParams(temperature=0.8, seed=11)), PLAIN) < 0.001


def test_a_planted_lenient_acceptance_fails() -> None:
    """Planted bug: a draft that the target finds likely enough is taken although it is not the choice."""
    drafts = draw(SamplingParams(temperature=0.8, seed=11))
    likely = probabilities(PLAIN)[drafts] > 0.15
    assert chi_square(np.where(likely, drafts, draw(PLAIN)), PLAIN) < 0.001


@pytest.mark.parametrize("seed", [0, 2**31, 2**63 - 1])
def test_noise_is_standard_gumbel(seed: int) -> None:
    from scipy.special import kolmogorov

    drawn = gumbel_noise(seed, 3, np.arange(NUM_SAMPLES))
    uniform = np.exp(-np.exp(-np.sort(drawn)))
    steps = np.arange(NUM_SAMPLES + 1) / NUM_SAMPLES
    distance = max((steps[1:] - uniform).max(), (uniform - steps[:-1]).max())
    assert kolmogorov(distance * NUM_SAMPLES**0.5) > 0.001
    assert (drawn == noise(np.array(seed), np.array(3), np.arange(NUM_SAMPLES))[0]).all()


def test_noise_of_fixed_arguments_never_changes() -> None:
    """Other languages compute the same: these numbers are part of the protocol."""
    noise = gumbel_noise(42, 1000, np.array([0, 1, 2, 151935]))
    assert noise.tolist() == pytest.approx(EXPECTED_NOISE, abs=1e-12)


EXPECTED_NOISE = [0.9177408672536035, 1.4598512417523655, 1.9211693769668519, 0.6163140095336987]


def test_a_column_choice_equals_the_id_choice() -> None:
    """A trimmed vocabulary draws the token that the full one would draw, where that token was kept."""
    kept = np.array([0, 1, 2, 7, 9], np.int32)
    masked = np.full_like(LOGITS, -np.inf)
    masked[kept] = LOGITS[kept]
    params = SamplingParams(temperature=1.0, seed=6)
    for position in range(500):
        assert choose(LOGITS[kept], params, position, kept) == choose(masked, params, position)


def test_greedy_takes_the_best_and_the_lowest_of_equals() -> None:
    assert choose(np.array([1, 3, 3, 2], np.float32), SamplingParams(), 0) == 1


def test_filters_keep_ties() -> None:
    logits = np.array([1, 2, 2, 2, 0], np.float32)
    assert surviving_columns(logits, SamplingParams(temperature=1.0, top_k=2)).tolist() == [1, 2, 3]


@given(st.integers(2, 300), st.floats(0.05, 0.999), st.integers(0, 1000))
@settings(max_examples=40)
def test_top_p_keeps_the_shortest_list_that_reaches_p(size: int, top_p: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=size).astype(np.float32) * 2
    kept = surviving_columns(logits, SamplingParams(temperature=1.0, top_p=top_p))
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    assert p[kept].sum() >= top_p - 1e-9
    assert p[kept].sum() - p[kept].min() < top_p + 1e-9


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_row_is_an_error_not_a_token(bad: float) -> None:
    row = LOGITS.copy()
    row[6] = bad
    for params in (SamplingParams(), SamplingParams(temperature=1.0)):
        with pytest.raises(BadLogits):
            choose(row, params, 0)
    with pytest.raises(BadLogits):
        choose(np.full(4, -np.inf, np.float32), SamplingParams(), 0)


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.01},
        {"top_p": float("nan")},
        {"min_p": -0.5},
        {"min_p": float("nan")},
        {"seed": -1},
        {"seed": 2**63},
        {"repetition_penalty": 0},
        {"repetition_penalty": float("nan")},
        {"frequency_penalty": 2.1},
        {"frequency_penalty": float("nan")},
        {"presence_penalty": -2.1},
        {"min_tokens": -1},
        {"num_prompt": -1},
        {"logit_bias": ((1, 100.1),)},
        {"logit_bias": ((1, float("nan")),)},
        {"logit_bias": ((1, float("-inf")),)},
        {"logit_bias": ((-1, 1.0),)},
        {"logit_bias": ((2**31, 1.0),)},
        {"logit_bias": ((1.5, 1.0),)},
        {"logit_bias": (("1", 1.0),)},
        {"logit_bias": ((1, 1.0), (1, 2.0))},
        {"logit_bias": tuple((number, 1.0) for number in range(1025))},
    ],
    ids=lambda setting: str(setting)[:50],
)
def test_parameters_out_of_range_are_refused_by_name(setting: dict[str, float]) -> None:
    with pytest.raises(InvalidParameter, match=next(iter(setting))):
        SamplingParams(**setting)


@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-300])
@pytest.mark.parametrize("filters", [{}, {"top_p": 5e-324}, {"top_p": 0.5}, {"min_p": 5e-324}, {"top_k": 2}])
def test_a_temperature_of_almost_nothing_is_greedy(temperature: float, filters: dict[str, float]) -> None:
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(size=50).astype(np.float32)
        assert choose(logits, SamplingParams(temperature=temperature, seed=seed, **filters), 3) == logits.argmax()
        assert choose(-abs(logits), SamplingParams(temperature=temperature, **filters), 3) == (-abs(logits)).argmax()
