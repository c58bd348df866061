"""What the tokens so far do to logits: as defined, however the list came to be what it is."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.choice import SamplingParams
from outrider.errors import GrammarFailed
from outrider.history import History, open_history
from tests.sampling import FEATURES, PROMPT, STOP, adjusted, alone, params_of, toy_compiler

ROW = (2 * np.random.default_rng(3).normal(size=16)).astype(np.float32)
IDS = st.lists(st.integers(0, 15), max_size=30)


def history_of(params: SamplingParams, token_ids: list[int]) -> History:
    history = open_history(params, token_ids, stop_ids=[STOP], constrain=toy_compiler())
    assert history is not None
    return history


def test_nothing_to_adjust_is_no_history() -> None:
    assert open_history(SamplingParams(temperature=0.7, top_k=5, num_prompt=3), [1, 2, 3]) is None


@pytest.mark.parametrize("feature", FEATURES)
@given(answer=IDS)
@settings(max_examples=20)
def test_it_adjusts_as_defined(feature: str, answer: list[int]) -> None:
    params = params_of(feature, "greedy")
    tokens = PROMPT + answer
    row = ROW.copy()
    assert history_of(params, tokens).adjust(row).tolist() == adjusted(ROW, params, tokens, [STOP]).tolist()
    assert row.tolist() == ROW.tolist()  # the engine's buffer is its own


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("seed", range(3))
def test_any_way_to_a_list_gives_the_history_of_that_list(feature: str, seed: int) -> None:
    """Right tokens and wrong ones, taken back and said again, other lists in between."""
    rng = random.Random(seed)
    params = params_of(feature, "sampled")
    truth = PROMPT + list(alone(params))
    history = history_of(params, truth[: rng.randrange(len(truth))])
    tokens = truth[: len(history)]
    for step in range(60):
        what = rng.randrange(4)
        if what == 0:
            tokens = tokens[: max(0, len(tokens) - rng.randrange(8))]
            history.truncate(len(tokens))
        elif what == 1:
            tokens = truth[: rng.randrange(len(truth))] + [rng.randrange(16) for _ in range(rng.choice([0, 0, 2]))]
            history.follow(tokens)
        elif what == 2:
            history.truncate(len(tokens) + 3)  # beyond the end: nothing
        else:
            right = len(tokens) < len(truth) and rng.random() < 0.8
            tokens = [*tokens, truth[len(tokens)] if right else rng.randrange(16)]
            history.append(tokens[-1])
        assert len(history) == len(tokens)
        want = adjusted(ROW, params, tokens, [STOP]).tolist()
        assert history.adjust(ROW).tolist() == want, f"seed {seed}, step {step}"


@pytest.mark.parametrize("feature", FEATURES)
def test_a_trimmed_vocabulary_sees_its_columns_of_the_same(feature: str) -> None:
    params = params_of(feature, "greedy")
    kept = np.array([0, 1, 2, 4, 5, 7, 8, 11, 12, 15], np.int32)
    tokens = PROMPT + list(alone(params)[:3])
    got = history_of(params, tokens).adjust(ROW[kept], kept)
    assert got.tolist() == adjusted(ROW, params, tokens, [STOP])[kept].tolist()


def test_ids_that_a_model_lacks_are_no_trouble() -> None:
    """A drafter may have fewer columns than the target has ids."""
    params = SamplingParams(presence_penalty=1.0, logit_bias=((14, 2.0), (2, 1.0)))
    assert history_of(params, [3, 15]).adjust(ROW[:10]).tolist() == [
        *ROW[:2].tolist(),
        float(ROW[2] + np.float32(1)),
        float(ROW[3] - np.float32(1)),
        *ROW[4:10].tolist(),
    ]


def test_where_a_trimmed_vocabulary_holds_no_allowed_id_it_says_so() -> None:
    history = history_of(params_of("json", "greedy"), PROMPT)  # only { or space may come
    with pytest.raises(GrammarFailed):
        history.adjust(ROW[5:8], np.array([5, 6, 7], np.int32))


def test_a_nan_stays_one_for_the_choice_to_find() -> None:
    row = ROW.copy()
    row[3] = np.nan
    assert np.isnan(history_of(params_of("presence", "greedy"), [*PROMPT, 3]).adjust(row)[3])


def test_a_finished_grammar_may_end_before_min_tokens() -> None:
    params = SamplingParams(min_tokens=100, grammar=FEATURES["regex"]["grammar"])
    answer = alone(params_of("regex", "greedy"))[:-1]
    row = history_of(params, list(answer)).adjust(ROW)
    assert np.flatnonzero(row > -np.inf).tolist() == [STOP]
