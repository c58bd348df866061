"""A session whose verifier drafts, too, over either link: the target's own tokens, the device's books right."""

import pytest

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.turn import PassReport
from cloud_verifier.verifier import Verifier
from edge_runtime.ahead import MAX_AHEAD
from edge_runtime.links import InProcessLink
from edge_runtime.request import GenerationRequest
from outrider.engines.numerics import ClassEngine
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED, target_alone
from tests.edge_runtime.test_sampling import drafter_of, pairwise
from tests.edge_runtime.test_session import CELLS, GREEDY, PARAMS, collect, drafters, links, request_of
from tests.sampling import PROMPT as SAMPLING_PROMPT
from tests.sampling import alone, params_of, stop_ids_of, toy_compiler
from tests.toy import ToyEngine

CLASSES = [[1], list(range(2, 33)), [64]]
KINDS = ["in process", "websocket"]


def asked(**over: object) -> GenerationRequest:
    return request_of(self_drafts=True, **over)


class Watched:
    """A verifier of the toy with numerics classes, and what its passes did."""

    def __init__(self) -> None:
        engine = ClassEngine(ToyEngine(classes=CLASSES), CLASSES[1])
        self.verifier = Verifier(engine, target="t", vocabulary="v", constrain=toy_compiler())
        self.passes: list[PassReport] = []
        self.verifier.on_pass.append(self.passes.append)
        self.loop = VerifierLoop(self.verifier)

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.close()
        self.verifier.check_integrity()

    @property
    def num_own_accepted(self) -> int:
        return sum(sum(each.own_accepted) for each in self.passes)


@pytest.mark.parametrize(("kind", "drafter", "way"), CELLS)
def test_the_output_is_the_target_s(kind: str, drafter: str, way: str) -> None:
    params = PARAMS[way]
    with Watched() as toy, links(kind, toy.loop) as make_link:
        request = asked(params=params)
        tokens, finished = collect(make_link(), drafters(params)[drafter], request, max_ahead=MAX_AHEAD)
    assert [token.token_id for token in tokens] == target_alone(params=params)
    assert [token.position for token in tokens] == list(range(len(PROMPT), len(PROMPT) + 60))
    report = finished.report
    assert report.num_accepted == sum(token.drafted_by is not None for token in tokens)
    assert report.num_accepted == sum(report.accepted_by.values()) == sum(sum(each.accepted) for each in toy.passes)
    assert report.num_drafted == sum(sum(each.drafted) for each in toy.passes)
    assert report.num_passes == 60 - report.num_accepted - toy.num_own_accepted
    if drafter == "none":
        assert report.num_drafted == 0
        assert toy.num_own_accepted > 0


@pytest.mark.parametrize("kind", KINDS)
def test_in_turns_the_device_alone_drafts(kind: str) -> None:
    with Watched() as toy, links(kind, toy.loop) as make_link:
        _, finished = collect(make_link(), drafters(GREEDY)["mixed"], asked(params=GREEDY))
    assert toy.num_own_accepted == 0
    assert finished.report.num_passes == 60 - finished.report.num_accepted


@pytest.mark.parametrize(("kind", "feature", "way"), pairwise(["none", "mixed", "the target itself"]))
def test_with_everything_that_is_asked_of_a_sampler(kind: str, feature: str, way: str) -> None:
    params = params_of(feature, way)
    request = asked(prompt_ids=SAMPLING_PROMPT, params=params, stop_ids=stop_ids_of(params), num_logprobs=2)
    with Watched() as toy:
        link = InProcessLink(toy.loop)
        tokens, _ = collect(link, drafter_of(kind, params), request, max_ahead=MAX_AHEAD)
    assert tuple(token.token_id for token in tokens) == alone(params)
    assert all(len(token.top_logprobs) == 2 for token in tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_after_every_loss_it_goes_on(kind: str) -> None:
    """The verifier loses what it holds, cache and drafts, again and again; the list does not change."""
    with Watched() as toy, links(kind, toy.loop) as make_link:

        def lose(report: PassReport) -> None:
            if len(toy.passes) % 3 == 0:
                for name in list(toy.verifier._sessions):
                    toy.verifier.drop_cache(name)

        toy.verifier.on_pass.append(lose)
        tokens, _ = collect(make_link(), drafters(SAMPLED)["mixed"], asked(), max_ahead=MAX_AHEAD)
    assert [token.token_id for token in tokens] == target_alone()
