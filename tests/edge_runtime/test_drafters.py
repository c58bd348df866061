"""What a drafter says again when it is asked again, and what it costs to ask."""

import random
from pathlib import Path

import pytest

from edge_runtime.drafters import CascadeDrafter, Drafter, LookupDrafter, ModelDrafter
from edge_runtime.drafters.base import shared_length
from edge_runtime.parts import open_drafter
from outrider.choice import SamplingParams
from outrider.engines import EngineSettings
from outrider.errors import UnknownModel
from outrider.past_texts import PastTexts
from tests.drafting import EagerPace
from tests.outrider.engines.tiny import tiny_gguf
from tests.toy import ToyEngine

GREEDY = SamplingParams()
SAMPLED = SamplingParams(temperature=1.2, seed=5)
PAST = PastTexts([[3, 4, 5, 6, 7, 8], [9, 5, 6, 11, 12]])


def model(engine: ToyEngine | None = None) -> ModelDrafter:
    return ModelDrafter(engine or ToyEngine(max_sequences=1), name="model")


MAKERS = {
    "lookup": LookupDrafter,
    "past": lambda: LookupDrafter(PAST),
    "model": model,
    "cascade": lambda: CascadeDrafter(LookupDrafter(PAST), model()),
}


def drafts(drafter: Drafter, token_ids: list[int], params: SamplingParams = GREEDY, count: int = 6) -> list[int]:
    return drafter.propose(token_ids, params, EagerPace(), count).token_ids


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("kind", ["lookup", "past", "model"])
def test_what_it_was_asked_before_changes_no_draft(kind: str, params: SamplingParams) -> None:
    """Whatever lists came before, agreeing or not: it drafts as a new one would."""
    chance = random.Random(3)
    used = MAKERS[kind]()
    tokens = [1, 2, 3]
    for _ in range(150):
        proposal = drafts(used, tokens, params, chance.randrange(1, 7))
        assert proposal == drafts(MAKERS[kind](), tokens, params, len(proposal) or 1)
        tokens = tokens[: max(1, len(tokens) - chance.choice([0, 0, 1, 5]))]
        tokens += proposal[: chance.randrange(7)]
        tokens += [chance.randrange(8) for _ in range(chance.randrange(3))]
        tokens = tokens[:300]
        if chance.random() < 0.2:
            used.prefill(tokens)


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("kind", list(MAKERS))
def test_drafts_go_on_from_a_list_that_agrees_with_them(kind: str, params: SamplingParams) -> None:
    chance = random.Random(4)
    drafter = MAKERS[kind]()
    tokens = [5, 6, *(chance.randrange(6) for _ in range(40)), 4, 5, 6]
    first = drafts(drafter, tokens, params, 8)
    assert len(first) > 1
    for number in range(len(first)):
        rest = first[number:]
        assert drafts(drafter, tokens + first[:number], params, len(rest)) == rest


def test_a_model_runs_each_token_once_and_rewinds_to_the_miss() -> None:
    engine = ToyEngine(max_sequences=1)
    drafter = model(engine)
    prompt = [1, 2, 3, 4, 5]
    drafter.prefill(prompt)
    ahead: list[int] = []
    for _ in range(6):  # one at a time, while others are being verified
        ahead += drafts(drafter, prompt + ahead, GREEDY, 1)
    assert engine.chunks == [[4]] + [[1]] * 6
    engine.chunks.clear()
    assert drafts(drafter, prompt, GREEDY, 6) == ahead
    assert drafts(drafter, prompt + ahead[:3], GREEDY, 3) == ahead[3:]
    assert engine.chunks == []  # it said all that before
    wrong = (ahead[2] + 1) % 16
    after = drafts(drafter, [*prompt, *ahead[:2], wrong], GREEDY, 2)
    assert engine.chunks == [[1], [1]]  # the correction, then its own first draft; what stood before is kept
    assert after == drafts(model(), [*prompt, *ahead[:2], wrong], GREEDY, 2)


def test_other_parameters_are_other_drafts() -> None:
    drafter = model()
    greedy = drafts(drafter, [1, 2, 3], GREEDY, 8)
    sampled = drafts(drafter, [1, 2, 3], SAMPLED, 8)
    assert sampled == drafts(model(), [1, 2, 3], SAMPLED, 8)
    assert sampled != greedy
    assert drafts(drafter, [1, 2, 3], GREEDY, 8) == greedy


def test_a_model_that_failed_starts_over() -> None:
    engine = ToyEngine(max_sequences=1)
    drafter = model(engine)
    expected = drafts(drafter, [1, 2, 3], GREEDY, 4)
    engine.fail_next = True
    assert drafts(drafter, [1, 2, 4], GREEDY, 4) == []
    assert drafts(drafter, [1, 2, 3], GREEDY, 4) == expected
    engine.fail_next = True
    drafter.prefill([1, 2, 3, 4, 5, 6])
    assert drafts(drafter, [1, 2, 3], GREEDY, 4) == expected


def test_a_model_drafts_up_to_its_context() -> None:
    drafter = model(ToyEngine(max_sequences=1, max_context=8))
    assert len(drafts(drafter, [1, 2, 3, 4, 5], GREEDY, 9)) == 3
    assert drafts(drafter, [1] * 9, GREEDY, 9) == []
    drafter.prefill([1] * 20)
    assert len(drafts(drafter, [1, 2], GREEDY, 9)) == 6


def test_the_longer_match_goes_first_and_the_text_s_own_where_they_are_equal() -> None:
    drafter = LookupDrafter(PAST)
    proposal = drafter.propose([4, 5, 6], GREEDY, EagerPace(), 3)
    assert (proposal.source, proposal.token_ids) == ("past", [7, 8])
    proposal = drafter.propose([5, 6, 1, 5, 6], GREEDY, EagerPace(), 3)
    assert (proposal.source, proposal.token_ids) == ("lookup", [1, 5, 6])
    proposal = drafter.propose([5, 6, 1, 4, 5, 6], GREEDY, EagerPace(), 3)
    assert (proposal.source, proposal.token_ids) == ("past", [7, 8])


def test_shared_length() -> None:
    chance = random.Random(5)
    for _ in range(300):
        left = [chance.randrange(2) for _ in range(chance.randrange(9))]
        right = [chance.randrange(2) for _ in range(chance.randrange(9))]
        agree = next(
            (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
        )
        assert shared_length(left, right) == agree
        assert shared_length(left, tuple(right)) == agree


def test_a_drafter_is_opened_by_name(tmp_path: Path) -> None:
    target = tiny_gguf(tmp_path / "target")
    settings = EngineSettings(max_context=64)
    assert open_drafter("none", target, settings) is None
    assert isinstance(open_drafter("auto", target, settings), LookupDrafter)  # the default drafter is not here
    lookup = open_drafter("lookup", target, settings, past=PAST)
    assert lookup is not None
    assert drafts(lookup, [4, 5, 6]) == [7, 8]
    model = open_drafter(str(target.path), target, settings)
    assert isinstance(model, ModelDrafter)
    assert len(drafts(model, [1, 2, 3])) == 6
    model.close()
    with pytest.raises(UnknownModel):
        open_drafter("nobody", target, settings)
