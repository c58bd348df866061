"""Searches as a device asks for them: the same answer over either link, and after the link broke half-way."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloud_verifier.verifier import Verifier
from edge_runtime.links import InProcessLink, Link
from edge_runtime.options import check_request
from edge_runtime.session import Session
from outrider.choice import SamplingParams
from outrider.errors import InvalidParameter, LinkLost
from outrider.search import SearchParams
from outrider.wire import Down, Verified, unpack_ids
from tests.cloud_verifier.test_search import GREEDY, PROMPT, SAMPLED, STOPS, answer, make, open_message
from tests.drafting import EagerPace
from tests.edge_runtime.test_session import collect, links, request_of, toy_loop
from tests.toy import ToyEngine

BEAMS, SAMPLES = SearchParams(num_beams=4, length_penalty=0.5), SearchParams(best_of=3)
KINDS = [(BEAMS, GREEDY), (SAMPLES, SAMPLED)]


@pytest.fixture(params=["in process", "websocket"])
def make_link(request: pytest.FixtureRequest) -> Iterator[Callable[[], Link]]:
    with toy_loop(ToyEngine(max_sequences=4)) as (loop, _), links(request.param, loop) as made:
        yield made


def want(search: SearchParams, params: SamplingParams, **over: object) -> list[int]:
    return answer(make(), open_message(search, params, num_tokens=60, **over))


@pytest.mark.parametrize(("search", "params"), KINDS, ids=["beams", "samples"])
@pytest.mark.parametrize("num_logprobs", [-1, 2])
def test_the_answer_is_the_verifier_s(
    make_link: Callable[[], Link], search: SearchParams, params: SamplingParams, num_logprobs: int
) -> None:
    request = request_of(
        prompt_ids=PROMPT, params=params, stop_ids=STOPS, search=search, num_logprobs=num_logprobs, wants_signature=True
    )
    tokens, finished = collect(make_link(), None, request)
    assert [token.token_id for token in tokens] == want(search, params)
    assert all((token.logprob is None) == (num_logprobs < 0) for token in tokens)
    assert finished.reason in ("stop", "length")
    assert finished.seal is None  # nobody signs for a search
    assert finished.report.num_drafted == 0


class Breaking:
    """A link that breaks once, right after the first word of an answer."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._num_heard = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._link, name)

    async def receive(self) -> Down:
        if self._num_heard == 1:
            self._num_heard += 1
            await self._link.close()
            raise LinkLost("cut")
        message = await self._link.receive()
        self._num_heard += isinstance(message, Verified)
        return message


@pytest.mark.parametrize(("search", "params"), KINDS, ids=["beams", "samples"])
def test_a_broken_link_changes_nothing(
    make_link: Callable[[], Link], search: SearchParams, params: SamplingParams
) -> None:
    link = Breaking(make_link())
    request = request_of(prompt_ids=PROMPT, params=params, search=search)
    tokens, finished = collect(link, None, request)
    assert [token.token_id for token in tokens] == want(search, params, stop_ids=b"")
    assert finished.report.num_reopened == (search == BEAMS)  # samples say nothing before the end


def test_two_searches_at_once_over_one_verifier() -> None:
    verifier = Verifier(ToyEngine(max_sequences=4), target="t", vocabulary="v")
    names = [verifier.open(open_message(search, params, num_tokens=60)).session for search, params in KINDS]
    got: dict[str, list[int]] = {name: [] for name in names}
    while verifier.num_sessions:
        for name, message in verifier.step():
            assert isinstance(message, Verified)
            got[name] += unpack_ids(message.token_ids)
    assert list(got.values()) == [want(search, params) for search, params in KINDS]


@pytest.mark.parametrize(
    ("search", "params", "n"),
    [(BEAMS, SAMPLED, 1), (SAMPLES, GREEDY, 1), (SAMPLES, None, 1), (BEAMS, None, 2), (SAMPLES, SAMPLED, 2)],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    search: SearchParams, params: SamplingParams | None, n: int
) -> None:
    with pytest.raises(InvalidParameter):
        check_request("hello", params, n=n, search=search)
    check_request("hello", None, search=BEAMS)


def test_a_search_that_is_left_leaves_nothing() -> None:
    async def leave(link: Link) -> None:
        with ThreadPoolExecutor(1) as executor:
            events = Session(link, None, EagerPace(), executor).generate(
                request_of(prompt_ids=PROMPT, params=GREEDY, search=BEAMS)
            )
            await anext(events)
            await events.aclose()

    with toy_loop() as (loop, verifier):
        asyncio.run(leave(InProcessLink(loop)))
        loop.close()
        assert verifier.num_sessions == 0
