"""Devices that `benchmarks.service` has in a process of their own: Jobs come in, a line each, what was Heard goes out.

Without the process of its own a device's work would be counted as the service's.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from benchmarks.pinned import tell, telling_errors
from benchmarks.record import Answer
from edge_runtime.drafters import Drafter, LookupDrafter
from edge_runtime.events import Token
from edge_runtime.links import WebSocketLink
from edge_runtime.pacing import Pace
from edge_runtime.parts import open_drafter
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.engines import EngineSettings
from outrider.wire import Draft, Open, Params, Verified, pack_ids, unpack_ids

__all__ = ["Heard", "Job"]


class Job(msgspec.Struct, frozen=True):
    """`num_sessions` sessions at once, the prompts dealt out to them.

    With `drafter` "counting" a session is a bare link: it knows what comes next, and sends as fast as it hears.
    """

    url: str
    drafter: str
    num_sessions: int
    prompts: list[list[int]]
    max_tokens: int
    stop_ids: list[int] = []
    vocabulary: str = ""
    target: str = ""  # the name of the model, for a drafter that is one
    num_vocab: int = 0
    num_drafts: int = 4


class Heard(msgspec.Struct, frozen=True):
    answers: list[Answer]  # one a prompt
    num_messages: int
    elapsed_s: float
    busy_s: float  # processor time of this process meanwhile


async def run(job: Job) -> Heard:
    answers: list[Answer | None] = [None for _ in job.prompts]
    counts = [0] * len(job.prompts)
    drafters = [_drafter(job) for _ in range(min(job.num_sessions, len(job.prompts)))]

    async def session(first: int) -> None:
        for number in range(first, len(job.prompts), job.num_sessions):
            if job.drafter == "counting":
                answers[number], counts[number] = await _count(job, job.prompts[number])
            else:
                answers[number] = await _generate(job, job.prompts[number], drafters[first])

    began_s, began_busy_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(session(first) for first in range(len(drafters))))
    elapsed_s, busy_s = time.perf_counter() - began_s, time.process_time() - began_busy_s
    for drafter in drafters:
        if drafter is not None:
            drafter.close()
    return Heard([each for each in answers if each is not None], sum(counts), elapsed_s, busy_s)


def _drafter(job: Job) -> Drafter | None:
    if job.drafter in ("counting", "none"):
        return None
    if job.drafter == "lookup":
        return LookupDrafter()
    return open_drafter(job.drafter, catalog.find(job.target), EngineSettings(num_threads=1, max_context=2048))


async def _generate(job: Job, prompt: Sequence[int], drafter: Drafter | None) -> Answer:
    request = GenerationRequest(prompt, job.max_tokens, stop_ids=job.stop_ids, vocabulary=job.vocabulary)
    token_ids = []
    with ThreadPoolExecutor(1) as executor:
        session = Session(WebSocketLink(job.url), drafter, Pace(), executor)
        async for event in session.generate(request):
            if isinstance(event, Token):
                token_ids.append(event.token_id)
    return Answer.of(token_ids, session.report)


async def _count(job: Job, prompt: Sequence[int]) -> tuple[Answer, int]:
    """The answer, and how many messages it took, both ways."""
    link = WebSocketLink(job.url)
    await link.open()
    limit = len(prompt) + job.max_tokens
    await link.send(
        Open(
            target="",
            vocabulary=job.vocabulary,
            params=Params.of(SamplingParams()),
            limit=limit,
            patience_ms=-1,
            stop_ids=b"",
            token_ids=pack_ids(prompt),
            is_padded=link.is_padded,
        )
    )
    num_messages, frontier = 1, len(prompt)
    token_ids: list[int] = []
    began_s = first_s = time.perf_counter()
    passes = 0
    while True:
        message = await link.receive()
        num_messages += 1
        if not isinstance(message, Verified):
            continue
        first_s = first_s if token_ids else time.perf_counter()
        passes += 1
        token_ids += unpack_ids(message.token_ids)
        if message.finish:
            await link.close()
            answer = Answer(
                token_ids=token_ids, seconds=time.perf_counter() - first_s, first_s=first_s - began_s, passes=passes
            )
            return answer, num_messages
        frontier = len(prompt) + len(token_ids)
        drafts = [(token_ids[-1] + step) % job.num_vocab for step in range(1, 1 + job.num_drafts)]
        await link.send(Draft(0, frontier, pack_ids(drafts[: limit - frontier - 1]), b""))
        num_messages += 1


if __name__ == "__main__":
    with telling_errors():
        for line in sys.stdin.buffer:
            tell(asyncio.run(run(msgspec.json.decode(line, type=Job))))
