"""Beams against an independent beam search over the same weights: that of transformers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import cache
from typing import Any

import pytest

from cloud_verifier.verifier import Verifier
from outrider.choice import SamplingParams
from outrider.engines import EngineSettings, open_engine
from outrider.manifest import ModelFolder
from outrider.search import SearchParams
from outrider.wire import Open, Params, Search, pack_ids
from tests.cloud_verifier.test_search import run, tokens_of
from tests.outrider.engines.tiny import tiny_hf

PROMPT = [5, 17, 40, 41, 3, 60]
NUM_TOKENS = 16
STOPS = [80, 0, 7, 30]  # the first is what the model likes to say: where an answer ends hangs on the penalty


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_hf(tmp_path_factory.mktemp("search") / "tiny")


@pytest.fixture(scope="module")
def verifier_of(folder: ModelFolder) -> Iterator[Callable[[int], Verifier]]:
    """By number of sequences."""
    with ExitStack() as stack:

        @cache
        def verifier_of(num_sequences: int) -> Verifier:
            settings = EngineSettings(num_threads=1, max_context=128, max_sequences=num_sequences)
            engine = stack.enter_context(closing(open_engine(folder, settings)))
            return Verifier(engine, target="t", vocabulary="v")

        yield verifier_of


@pytest.fixture(scope="module")
def search(folder: ModelFolder) -> Callable[[int, int, float], Any]:
    """That of transformers, by number of beams, number of stops and length penalty."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder.path)

    @cache
    def search(num_beams: int, num_stops: int, length_penalty: float) -> Any:
        with torch.no_grad():
            return model.generate(
                torch.tensor([PROMPT]),
                attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
                num_beams=num_beams,
                do_sample=False,
                length_penalty=length_penalty,
                early_stopping="never",
                max_new_tokens=NUM_TOKENS,
                eos_token_id=STOPS[:num_stops] or None,
                pad_token_id=1,
                return_dict_in_generate=True,
                output_scores=True,
            )

    return search


# Each number of sequences with each kind of search, each of these with two penalties or three.
CELLS = [
    (1, 2, 1, 1.0),
    (3, 2, 1, 0.0),
    (8, 2, 1, 2.0),
    (1, 4, 4, -1.0),
    (3, 4, 4, 2.0),
    (8, 4, 4, 0.0),
    (1, 8, 0, 0.0),
    (3, 8, 0, 1.0),
    (8, 8, 0, -1.0),
]


@pytest.mark.parametrize(("num_sequences", "num_beams", "num_stops", "length_penalty"), CELLS)
def test_tokens_and_scores_are_those_of_transformers(
    verifier_of: Callable[[int], Verifier],
    search: Callable[[int, int, float], Any],
    num_sequences: int,
    num_beams: int,
    num_stops: int,
    length_penalty: float,
) -> None:
    verifier = verifier_of(num_sequences)
    theirs = search(num_beams, num_stops, length_penalty)
    want = theirs.sequences[0, len(PROMPT) :].tolist()
    message = Open(
        vocabulary="v",
        target="",
        params=Params.of(SamplingParams(num_prompt=len(PROMPT))),
        limit=len(PROMPT) + NUM_TOKENS,
        patience_ms=0,
        stop_ids=pack_ids(STOPS[:num_stops]),
        token_ids=pack_ids(PROMPT),
        num_logprobs=0,
        search=Search.of(SearchParams(num_beams, length_penalty)),
    )
    name = verifier.open(message).session
    told = run(verifier, [name])[name]
    got = tokens_of(told)
    assert got == want[: len(got)]
    assert set(want[len(got) :]) <= {1}  # padding
    score = sum(each.chosen for message in told for each in message.logprobs) / len(got) ** length_penalty
    assert score == pytest.approx(float(theirs.sequences_scores[0]), rel=1e-4)
