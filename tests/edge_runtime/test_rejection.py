"""Acceptance by rejection for the local pair, and for no other."""

from dataclasses import replace

import pytest

from edge_runtime.drafters import CascadeDrafter, Drafter, LookupDrafter, ModelDrafter
from edge_runtime.links import InProcessLink, WebSocketLink
from outrider.choice import SamplingParams
from outrider.errors import InvalidParameter
from tests.cloud_verifier.test_verifier import PROMPT, target_alone
from tests.drafting import EagerPace, ScriptedDrafter
from tests.edge_runtime.test_sampling import TrimmedToy
from tests.edge_runtime.test_session import collect, request_of, toy_loop
from tests.serving import serving
from tests.toy import ToyEngine

PARAMS = SamplingParams(temperature=1.2, top_p=0.95, acceptance="rejection", repetition_penalty=1.2, num_prompt=5)


def model(**over: object) -> ModelDrafter:
    return ModelDrafter(ToyEngine(max_sequences=1, **over), name="model")


def similar() -> ModelDrafter:
    """A drafter that is the target, a little off."""

    class Off(ToyEngine):
        def extend(self, chunks):
            return [rows * 0.7 for rows in super().extend(chunks)]

    return ModelDrafter(Off(max_sequences=1), name="similar")


def test_drafts_of_the_target_s_own_distribution_are_all_accepted() -> None:
    with toy_loop() as (loop, _):
        tokens, finished = collect(InProcessLink(loop), model(), request_of(params=PARAMS))
    assert len(tokens) == 60
    assert finished.report.num_accepted == finished.report.num_drafted > 40


@pytest.mark.parametrize("max_ahead", [0, 16])
@pytest.mark.parametrize("kind", ["none", "lookup", "similar", "trimmed", "cascade", "scripted"])
def test_every_drafter_may_be_used_and_greedy_changes_nothing(kind: str, max_ahead: int) -> None:
    def drafter() -> Drafter | None:
        return {
            "none": lambda: None,
            "lookup": LookupDrafter,
            "similar": similar,
            "trimmed": lambda: ModelDrafter(TrimmedToy(max_sequences=1), name="trimmed"),
            "cascade": lambda: CascadeDrafter(LookupDrafter(), similar()),
            "scripted": lambda: ScriptedDrafter(PROMPT * 20, accuracy=0.5, longest=6, n_vocab=16),
        }[kind]()

    with toy_loop() as (loop, _):
        tokens, _ = collect(InProcessLink(loop), drafter(), request_of(params=PARAMS), max_ahead=max_ahead)
        assert len(tokens) == 60
        greedy = SamplingParams(acceptance="rejection")
        tokens, _ = collect(InProcessLink(loop), drafter(), request_of(params=greedy), max_ahead=max_ahead)
    assert [token.token_id for token in tokens] == target_alone(params=SamplingParams())


def test_the_same_seed_and_drafter_give_the_same_answer() -> None:
    """Also where the drafter remembers its guesses of the first time."""
    answers, used = [], similar()
    for drafter in (similar(), used, used):
        with toy_loop() as (loop, _):
            tokens, _ = collect(InProcessLink(loop), drafter, request_of(params=PARAMS))
            answers.append([token.token_id for token in tokens])
    assert answers[0] == answers[1] == answers[2]
    assert answers[0] != target_alone(params=replace(PARAMS, acceptance="coupled"))


def test_what_a_guess_was_drawn_from_comes_with_it_and_is_not_kept_for_ever() -> None:
    drafter = model()
    tokens = list(PROMPT)
    for _ in range(40):
        proposal = drafter.propose(tokens, PARAMS, EagerPace(), 5)
        assert len(proposal.distributions) == len(proposal.token_ids) == 5
        for token_id, drawn_from in zip(proposal.token_ids, proposal.distributions, strict=True):
            assert drawn_from is not None
            assert drawn_from.of(token_id) > 0
            assert drawn_from.probabilities.sum() == pytest.approx(1)
        again = drafter.propose([*tokens, *proposal.token_ids[:2]], PARAMS, EagerPace(), 3)
        assert again.token_ids == proposal.token_ids[2:]
        assert again.distributions == proposal.distributions[2:]
        tokens += proposal.token_ids[:3]
        assert len(drafter._drawn) <= 6
    assert drafter.propose(tokens, SamplingParams(temperature=1.2), EagerPace(), 5).distributions == []


def test_a_verifier_elsewhere_refuses_it() -> None:
    with toy_loop() as (loop, _), serving(loop) as url:
        for drafter in (None, model()):
            with pytest.raises(InvalidParameter, match="one process"):
                collect(WebSocketLink(url), drafter, request_of(params=PARAMS))
        tokens, _ = collect(WebSocketLink(url), model(), request_of(params=replace(PARAMS, acceptance="coupled")))
    assert len(tokens) == 60
