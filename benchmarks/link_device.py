"""The device's core of `benchmarks.link`: real sessions over real sockets, in a process of its own.

Setup comes in, Ready goes out; from then on a Generation is answered with what was Heard, a Tracing with a Trace. The
drafter and the pace live on from one to the next, as in a running app; what the drafter cached of an answer does not.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
from websockets.frames import Frame, Opcode

from benchmarks.link_record import Wire
from benchmarks.options import COUNTING
from benchmarks.pinned import next_line, tell, telling_errors
from benchmarks.record import Answer
from benchmarks.traces import Trace
from edge_runtime.ahead import MAX_AHEAD, AheadPace
from edge_runtime.drafters import Drafter, LookupDrafter, Proposal
from edge_runtime.events import Token
from edge_runtime.links import WebSocketLink
from edge_runtime.pacing import Pace
from edge_runtime.parts import open_drafter
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.engines import EngineSettings
from outrider.framing import to_frame
from outrider.wire import Down, Draft, Up, Verified

__all__ = [
    "NUM_KEPT",
    "FixedPace",
    "Generation",
    "Heard",
    "MeteredLink",
    "Ready",
    "Setup",
    "Tracing",
    "engine_settings",
    "framed_bytes",
    "generate",
    "keep_prompt",
    "trace",
]

NUM_KEPT = 4  # a prompt stays, for each way


class Setup(msgspec.Struct, frozen=True):
    target: str
    drafter: str
    threads: int = 1


class Ready(msgspec.Struct, frozen=True):
    """The drafter is loaded."""

    name: str


class Generation(msgspec.Struct, frozen=True, tag=True):
    """`num_drafts` a turn; 0 drafts nothing, and -1 drafts ahead. `is_cold`: the drafter has the prompt to read yet."""

    url: str
    token: str
    prompt: list[int]
    max_tokens: int
    stop_ids: list[int]
    vocabulary: str
    num_drafts: int
    is_cold: bool


class Tracing(msgspec.Struct, frozen=True, tag=True):
    """What would have been guessed at each place of this answer?"""

    prompt: list[int]
    token_ids: list[int]


class Heard(msgspec.Struct, frozen=True):
    """The answer, and what it took the device."""

    answer: Answer
    wire: Wire
    num_guesses: int  # that the drafter made, sent or not,
    drafting_ms: float  # and how long it took over them
    busy_s: float  # processor time of this process


class MeteredLink(WebSocketLink):
    """Counts what passes, with its padding and without."""

    def __init__(self, url: str, *, token: str = "", is_padded: bool = True) -> None:
        super().__init__(url, token=token, is_padded=is_padded)
        self.wire = Wire()

    async def send(self, message: Up) -> None:
        await super().send(message)
        if isinstance(message, Draft):
            wire, bare = self.wire, framed_bytes(message, is_padded=False, is_masked=True)
            wire.num_up += 1
            wire.bare_up += bare
            wire.largest_up = max(wire.largest_up, bare)
            wire.padded_up += framed_bytes(message, is_padded=self.is_padded, is_masked=True)

    async def receive(self) -> Down:
        message = await super().receive()
        if isinstance(message, Verified):
            wire = self.wire
            wire.num_down += 1
            wire.bare_down += framed_bytes(message, is_padded=False, is_masked=False)
            wire.padded_down += framed_bytes(message, is_padded=self.is_padded, is_masked=False)
        return message


def framed_bytes(message: Up | Down, *, is_padded: bool, is_masked: bool) -> int:
    """A message's bytes on the wire, its WebSocket header included."""
    return len(Frame(Opcode.BINARY, to_frame(message, is_padded=is_padded)).serialize(mask=is_masked))


class TimedDrafter:
    """A drafter, and the time it took."""

    def __init__(self, drafter: Drafter) -> None:
        self.name = drafter.name
        self.can_answer = drafter.can_answer
        self._drafter = drafter
        self.prefill = drafter.prefill
        self.close = drafter.close
        self.num_guesses = 0
        self.elapsed_ms = 0.0

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        began_s = time.perf_counter()
        proposal = self._drafter.propose(token_ids, params, pace, max_drafts)
        self.elapsed_ms += (time.perf_counter() - began_s) * 1000
        self.num_guesses += len(proposal.token_ids)
        return proposal


class FixedPace(Pace):
    """So many drafts a turn, whatever they cost."""

    def __init__(self, num_drafts: int) -> None:
        super().__init__()
        self._num_drafts = num_drafts

    def wants_another(self, source: str, reach: float, num_drafts: int) -> bool:
        return num_drafts < self._num_drafts

    def num_worthwhile(self, source: str, confidences: Sequence[float]) -> int:
        return min(self._num_drafts, len(confidences))


class OneGuess(AheadPace):
    """One guess at every place; which drafter makes it is chosen as when drafting ahead."""

    def wants_another(self, source: str, reach: float, num_drafts: int) -> bool:
        return num_drafts < 1

    def num_worthwhile(self, source: str, confidences: Sequence[float]) -> int:
        return len(confidences)


def keep_prompt(drafter: Drafter, prompt: list[int]) -> None:
    """Leave the prompt in its cache and nothing of the answer that came last time: it would be guessed for free."""
    drafter.prefill([*prompt, 0, 0])


def engine_settings(num_threads: int) -> EngineSettings:
    """Of both processes."""
    return EngineSettings(num_threads=num_threads, max_context=2048, max_sequences=NUM_KEPT)


async def generate(job: Generation, drafter: Drafter | None, ahead: AheadPace) -> Heard:
    pace: Pace = Pace() if job.num_drafts == 0 else ahead if job.num_drafts < 0 else FixedPace(job.num_drafts)
    if drafter is not None:
        keep_prompt(drafter, [] if job.is_cold else job.prompt)
    timed = None if drafter is None or job.num_drafts == 0 else TimedDrafter(drafter)
    link = MeteredLink(job.url, token=job.token)
    request = GenerationRequest(
        job.prompt,
        job.max_tokens,
        stop_ids=job.stop_ids,
        vocabulary=job.vocabulary,
        self_drafts=job.num_drafts < 0,  # as apps ask
    )
    token_ids: list[int] = []
    began_s = time.process_time()
    with ThreadPoolExecutor(1) as executor:
        session = Session(
            link,
            timed,
            pace,
            executor,
            max_drafts=max(1, job.num_drafts),
            max_ahead=MAX_AHEAD if job.num_drafts < 0 else 0,
        )
        async for event in session.generate(request):
            if isinstance(event, Token):
                token_ids.append(event.token_id)
    return Heard(
        Answer.of(token_ids, session.report),
        link.wire,
        timed.num_guesses if timed else 0,
        timed.elapsed_ms if timed else 0.0,
        time.process_time() - began_s,
    )


def trace(job: Tracing, drafter: Drafter | None) -> Trace:
    drafter = drafter or LookupDrafter()  # without one nobody guesses; what the text itself would have said is told
    keep_prompt(drafter, job.prompt)
    pace, params = OneGuess(), SamplingParams()
    agrees: list[bool] = []
    confidences: list[float] = []
    sources: list[str] = []
    began_s = time.perf_counter()
    for place, token_id in enumerate(job.token_ids):
        pace.begin([])
        guess = drafter.propose([*job.prompt, *job.token_ids[:place]], params, pace, 1)
        is_right = guess.token_ids == [token_id]
        pace.observe([(guess.source, each) for each in guess.confidences], int(is_right), 1, 1.0)
        agrees.append(is_right)
        confidences.append(guess.confidences[0] if guess.confidences else 0.0)
        sources.append(guess.source if guess.token_ids else "")
    elapsed_ms = (time.perf_counter() - began_s) * 1000
    return Trace(job.token_ids, agrees, confidences, sources, elapsed_ms / max(1, len(agrees)))


def load(setup: Setup) -> Drafter | None:
    if setup.target == COUNTING:
        return LookupDrafter()
    return open_drafter(setup.drafter, catalog.find(setup.target), engine_settings(setup.threads))


async def run() -> None:
    drafter = load(msgspec.json.decode(await next_line(), type=Setup))
    ahead = AheadPace()
    tell(Ready(drafter.name if drafter else "none"))
    while line := await next_line():
        job = msgspec.json.decode(line, type=Generation | Tracing)
        tell(trace(job, drafter) if isinstance(job, Tracing) else await generate(job, drafter, ahead))
    if drafter is not None:
        drafter.close()


if __name__ == "__main__":
    with telling_errors():
        asyncio.run(run())
