"""What a user asks of the sampler, over a whole session: with every drafter what the target says by definition."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.ahead import AheadPace
from edge_runtime.drafters import CascadeDrafter, Drafter, LookupDrafter, ModelDrafter
from edge_runtime.events import Token
from edge_runtime.frontier import Frontier
from edge_runtime.links import InProcessLink, WebSocketLink
from edge_runtime.report import Report
from edge_runtime.session import Session
from outrider.choice import SamplingParams
from outrider.constraint import Grammar
from outrider.engines.base import Chunk, Logits
from outrider.errors import InvalidParameter, ProtocolError
from outrider.wire import Logprobs, Verified, pack_ids
from tests.drafting import EagerPace, ScriptedDrafter
from tests.edge_runtime.test_session import collect, request_of
from tests.sampling import FEATURES, PROMPT, WAYS, alone, params_of, stop_ids_of, toy_compiler
from tests.serving import serving
from tests.toy import ToyEngine


class TrimmedToy(ToyEngine):
    """The toy with the columns of some ids only, the stop id among them."""

    id_map = np.array([0, 1, 2, 3, 4, 6, 8, 9, 10, 12, 13, 14, 15], np.int32)

    def extend(self, chunks: list[Chunk]) -> list[Logits]:
        return [rows[:, self.id_map] for rows in super().extend(chunks)]


@pytest.fixture(scope="module")
def loop() -> Iterator[VerifierLoop]:
    verifier = Verifier(ToyEngine(), target="t", vocabulary="v", constrain=toy_compiler())
    running = VerifierLoop(verifier)
    yield running
    running.close()
    verifier.check_integrity()


@pytest.fixture(scope="module")
def url(loop: VerifierLoop) -> Iterator[str]:
    with serving(loop) as url:
        yield url


def model(engine: ToyEngine, *, keeps_grammars: bool = True) -> ModelDrafter:
    return ModelDrafter(engine, name="model", constrain=toy_compiler() if keeps_grammars else None)


def drafter_of(kind: str, params: SamplingParams) -> Drafter | None:
    script = PROMPT + list(alone(params))
    return {
        "none": lambda: None,
        "lookup": LookupDrafter,
        "the target itself": lambda: model(ToyEngine(max_sequences=1)),
        "the target itself, without grammars": lambda: model(ToyEngine(max_sequences=1), keeps_grammars=False),
        "another model": lambda: model(ToyEngine(seed=1, max_sequences=1)),
        "a trimmed one": lambda: model(TrimmedToy(max_sequences=1)),
        "cascade": lambda: CascadeDrafter(LookupDrafter(), model(ToyEngine(max_sequences=1))),
        "adversarial": lambda: ScriptedDrafter(script, accuracy=0, longest=8, n_vocab=16),
        "mixed": lambda: ScriptedDrafter(script, accuracy=0.7, longest=12, n_vocab=16),
    }[kind]()


KINDS = (
    "none",
    "lookup",
    "the target itself",
    "the target itself, without grammars",
    "another model",
    "a trimmed one",
    "cascade",
    "adversarial",
    "mixed",
)


def pairwise(kinds: Sequence[str]) -> list[tuple[str, str, str]]:
    """Each drafter with each feature, and either of them both greedily and sampled."""
    ways = list(WAYS)
    return [
        (kind, feature, ways[(number + other) % 2])
        for number, kind in enumerate(kinds)
        for other, feature in enumerate(FEATURES)
    ]


# Without a grammar a drafter that keeps to none is the same drafter.
CELLS = [
    (kind, feature, way)
    for kind, feature, way in pairwise(KINDS)
    if kind != "the target itself, without grammars" or "grammar" in FEATURES[feature]
]


@pytest.mark.parametrize(("kind", "feature", "way"), CELLS)
def test_the_output_is_as_defined(loop: VerifierLoop, kind: str, feature: str, way: str) -> None:
    params = params_of(feature, way)
    request = request_of(prompt_ids=PROMPT, params=params, stop_ids=stop_ids_of(params))
    tokens, finished = collect(InProcessLink(loop), drafter_of(kind, params), request)
    assert tuple(token.token_id for token in tokens) == alone(params)
    if kind == "the target itself" and not params.min_tokens:  # the drafter sees what the target sees
        report = finished.report
        assert report.num_accepted == report.num_drafted > 0 or finished.reason == "stop"


@pytest.mark.parametrize("way", WAYS)
def test_drafts_that_keep_to_the_grammar_are_accepted_more_often(loop: VerifierLoop, way: str) -> None:
    params = params_of("regex", way)
    request = request_of(prompt_ids=PROMPT, params=params, stop_ids=stop_ids_of(params))
    passes = {
        kind: collect(InProcessLink(loop), drafter_of(kind, params), request)[1].report.num_passes
        for kind in ("the target itself", "the target itself, without grammars")
    }
    assert passes["the target itself"] < passes["the target itself, without grammars"] / 2


@pytest.mark.parametrize("feature", FEATURES)
def test_it_travels(url: str, feature: str) -> None:
    params = params_of(feature, "sampled")
    request = request_of(prompt_ids=PROMPT, params=params, stop_ids=stop_ids_of(params))
    tokens, _ = collect(WebSocketLink(url), drafter_of("mixed", params), request)
    assert tuple(token.token_id for token in tokens) == alone(params)


@pytest.mark.parametrize(
    ("kind", "num_logprobs"), [("none", 3), ("mixed", 3), ("the target itself", 3), ("mixed", -1), ("mixed", 0)]
)
def test_log_probabilities_are_the_model_s_own(url: str, kind: str, num_logprobs: int) -> None:
    params = params_of("all", "sampled")
    request = request_of(prompt_ids=PROMPT, params=params, stop_ids=stop_ids_of(params), num_logprobs=num_logprobs)
    tokens, _ = collect(WebSocketLink(url), drafter_of(kind, params), request)
    engine = ToyEngine()
    sequence = engine.allocate()
    row = engine.extend([Chunk(sequence, PROMPT)])[0][0]
    for token in tokens:
        if num_logprobs < 0:
            assert (token.logprob, token.top_logprobs) == (None, ())
            continue
        own = row - np.log(np.exp(row.astype(np.float64)).sum())
        best = np.argsort(-own)[:num_logprobs]
        assert token.logprob == pytest.approx(own[token.token_id])
        assert [token_id for token_id, _ in token.top_logprobs] == best.tolist()
        assert [value for _, value in token.top_logprobs] == pytest.approx(own[best].tolist())
        row = engine.extend([Chunk(sequence, [token.token_id])])[0][0]
    assert tuple(token.token_id for token in tokens) == alone(params)


LIES = {
    "none": [],
    "too many": [Logprobs(-1.0)] * 2,
    "more than asked": [Logprobs(-1.0, pack_ids([1, 2]), [-1.0, -2.0])],
    "no pairs": [Logprobs(-1.0, pack_ids([1]), [])],
    "no token": [Logprobs(-1.0, pack_ids([16]), [-1.0])],
}


@pytest.mark.parametrize("lie", LIES)
def test_log_probabilities_that_cannot_be_are_refused(lie: str) -> None:
    frontier = Frontier(PROMPT)
    told = Verified(0, 5, pack_ids([1]), 0, 0, None, LIES[lie])
    with pytest.raises(ProtocolError):
        frontier.commit(told, limit=9, n_vocab=16, num_logprobs=1)
    assert frontier.token_ids == PROMPT
    good = Verified(0, 5, pack_ids([1]), 0, 0, None, [Logprobs(-1.0, pack_ids([15]), [-0.5])])
    [token] = frontier.commit(good, limit=9, n_vocab=16, num_logprobs=1).tokens
    assert (token.logprob, token.top_logprobs) == (-1.0, ((15, -0.5),))


def test_a_grammar_that_the_verifier_refuses_is_the_same_error_here(loop: VerifierLoop) -> None:
    params = SamplingParams(grammar=Grammar("lark", "start: nothing"), num_prompt=len(PROMPT))
    for drafter in (None, drafter_of("the target itself", SamplingParams())):
        with pytest.raises(InvalidParameter, match="the grammar cannot be used"):
            collect(InProcessLink(loop), drafter, request_of(prompt_ids=PROMPT, params=params))


def test_a_drafter_goes_from_one_answer_to_another() -> None:
    """Its history follows the list and the parameters it is asked for, whatever it was asked before."""
    one = drafter_of("the target itself", SamplingParams())
    for feature in [*FEATURES, *reversed(FEATURES)]:
        params = params_of(feature, "sampled")
        full = PROMPT + list(alone(params))
        for cut in (len(full) // 2, len(PROMPT), len(full) - 2):
            fresh = drafter_of("the target itself", SamplingParams())
            got = [each.propose(full[:cut], params, EagerPace(), 6).token_ids for each in (one, fresh)]
            assert got[0] == got[1] != []


OTHER_PROMPT = (9, 8, 7, 6, 5)  # as long: with the same parameters only the list tells the two apart


@pytest.mark.parametrize(
    ("kind", "max_ahead"),
    [("lookup", 24), ("the target itself", 0), ("the target itself", 24), ("another model", 24), ("cascade", 0)],
)
def test_answers_side_by_side_share_a_drafter(loop: VerifierLoop, kind: str, max_ahead: int) -> None:
    """Each has its turn in the drafter's one thread; what the others asked of it in between changes nothing."""
    drafter = drafter_of(kind, SamplingParams())
    pace = AheadPace() if max_ahead else EagerPace()
    asked = [
        (params_of(feature, way), prompt)
        for feature, way in (("repetition", "sampled"), ("regex", "greedy"), ("all", "sampled"))
        for prompt in (tuple(PROMPT), OTHER_PROMPT)
    ]

    async def answer(
        params: SamplingParams, prompt: tuple[int, ...], executor: ThreadPoolExecutor
    ) -> tuple[tuple[int, ...], Report]:
        session = Session(InProcessLink(loop), drafter, pace, executor, max_ahead=max_ahead)
        request = request_of(prompt_ids=list(prompt), params=params, stop_ids=stop_ids_of(params))
        events = [event async for event in session.generate(request)]
        return tuple(event.token_id for event in events if isinstance(event, Token)), session.report

    async def together() -> list[tuple[tuple[int, ...], Report]]:
        with ThreadPoolExecutor(1) as executor:
            return await asyncio.gather(*(answer(params, prompt, executor) for params, prompt in asked))

    answers = asyncio.run(together())
    assert [token_ids for token_ids, _ in answers] == [alone(params, prompt=prompt) for params, prompt in asked]
    if kind == "the target itself" and not max_ahead:
        for (params, _), (_, report) in zip(asked, answers, strict=True):
            assert params.min_tokens or report.num_accepted == report.num_drafted > 0
