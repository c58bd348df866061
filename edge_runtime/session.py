"""One generation on the device: drafts go up, verified tokens come down, and both may be under way at once.

The rules of the list are in `frontier.py`; here is what moves: a link that is opened and listened to, a drafter in its
thread, and the question whether to draft now. With `max_ahead` the drafter never waits for the verifier: it runs ahead
by up to so many tokens, in small messages. Without it they take turns: draft, send, hear what became of it. When the
link breaks or the verifier goes away the list is opened again, there or at a replica, and goes on where it was; where
the request allows it the drafter answers alone until then. Knows token ids; no text, no engine, no socket.
"""

import asyncio
import math
import time
from asyncio import FIRST_COMPLETED, Task, create_task
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edge_runtime.alone import AlonePace
from edge_runtime.breaker import Breaker
from edge_runtime.drafters.base import Drafter, Proposal
from edge_runtime.events import Alone, Event, Finished, Retracted, Standing
from edge_runtime.evidence import Seal
from edge_runtime.frontier import Frontier
from edge_runtime.links.base import Link
from edge_runtime.pacing import Pace
from edge_runtime.report import Report
from edge_runtime.request import GenerationRequest
from edge_runtime.retry import Retry, Retrying
from edge_runtime.stream import WAIT_FOR_DRAFTS, VerifierStream
from edge_runtime.tasks import cancelled
from outrider.errors import LinkLost, OutriderError
from outrider.wire import Draft, Opened, Verified

__all__ = ["Session"]

R = TypeVar("R")
Keep = Callable[[Sequence[Event], str], Awaitable[None]]
MAX_SILENCE_S = 120.0  # a verifier that says nothing for so long is lost; long prompts on small machines take a while
ALONE_AFTER_S = 10.0


async def _forget(events: Sequence[Event], target: str) -> None:
    """For those who keep nothing."""


class Session:
    """`drafter=None` streams from the target alone. `executor` is the one thread that the drafter runs in.

    Who takes turns is waited for; else the verifier waits `patience_ms` for drafts, if there is a drafter, before it
    steps alone. `breaker` outlives the session: what it learned of the link holds for the next. After `alone_after_s`
    without a word the drafter answers alone, if it may.
    """

    def __init__(
        self,
        link: Link,
        drafter: Drafter | None,
        pace: Pace,
        executor: ThreadPoolExecutor,
        *,
        max_drafts: int = 19,
        max_ahead: int = 0,
        patience_ms: int = 0,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        max_silence_s: float = MAX_SILENCE_S,
        alone_after_s: float = ALONE_AFTER_S,
    ) -> None:
        self._drafter = drafter
        self._pace = pace.anew()
        self._alone_pace = AlonePace()
        self._executor = executor
        self._max_ahead = max_ahead
        self._takes_turns = drafter is not None and not max_ahead
        self._stream = VerifierStream(
            link,
            max_drafts=max_drafts,
            max_silence_s=max_silence_s,
            patience_ms=WAIT_FOR_DRAFTS if self._takes_turns else patience_ms if drafter is not None else 0,
        )
        self._retry = retry or Retry()
        self._breaker = breaker or Breaker()
        self._alone_after_s = alone_after_s
        self._frontier = Frontier(())
        self._may_draft = False
        self._is_alone = False
        self._is_mute = False  # the drafter has no answer of its own
        self._began_s = self._heard_s = 0.0
        self._turn_s = 0.0  # when the last turn ended; 0 before the first
        self._num_opened = 0  # tokens of the answer that the last opening brought along
        self.report = Report()

    async def generate(self, request: GenerationRequest, keep: Keep = _forget) -> AsyncGenerator[Event, None]:
        """Verified tokens as they come, then Finished. Raises what the verifier refused, LinkLost, ProtocolError.

        What may pass is tried again, from the list as it is. Where the drafter answers alone there are provisional
        tokens too, and the end may be. `keep` is awaited with the events of each step, and the target's fingerprint,
        before the first of them is told. Leaving the iteration early ends the verifier's session.
        """
        self._frontier = Frontier([*request.prompt_ids, *request.verified_ids], request.provisional_ids)
        self.report.num_prompt = len(request.prompt_ids)
        self._began_s = self._heard_s = time.perf_counter()
        is_patient = request.answers_alone and self._drafter is not None and self._drafter.can_answer
        retrying = Retrying(self._retry, self._breaker, is_patient=is_patient)
        hearing: Task[Opened | Verified] | None = None
        drafting: Task[None] | None = create_task(self._prefill())
        try:
            while True:
                hearing = hearing or create_task(self._hear(request, retrying))
                if drafting is None and self._is_time_to_draft(request):
                    drafting = create_task(self._draft(request))
                timeout_s = self._patience_s() if retrying.is_patient and not self._is_alone else None
                tasks = [hearing, drafting] if drafting else [hearing]
                done, _ = await asyncio.wait(tasks, timeout=timeout_s, return_when=FIRST_COMPLETED)
                events: list[Event] = []
                try:
                    if drafting in done:
                        drafting = drafting.result() if drafting else None
                    if hearing in done:
                        message, hearing = hearing.result(), None
                        if isinstance(message, Verified):
                            retrying.heard()
                        events += self._take(message, request)
                    await self._send_drafts()
                    if not done:
                        events += self._go_alone(LinkLost("the verifier says nothing; check it and the network"))
                except OutriderError as error:
                    retrying.failed(error)
                    await cancelled(hearing, drafting)
                    hearing = drafting = None
                    events += self._lose(error, goes_alone=retrying.is_patient)
                if self._is_alone:
                    events += self._frontier.show()
                    events += self._end_alone(request)
                    retrying.is_patient = not self._is_mute
                if events:
                    await keep(events, self.report.target)
                for event in events:
                    yield event
                    if isinstance(event, Finished):
                        return
                if request.is_watched:
                    yield Standing(len(self._frontier.token_ids), self._frontier.num_ahead, self.report)
        finally:
            await cancelled(hearing, drafting)
            await self._stream.leave()

    async def _hear(self, request: GenerationRequest, retrying: Retrying) -> Opened | Verified:
        """What was verified; where no list is open, what was opened."""
        if self._stream.opened is not None:
            return await self._stream.verified()
        await self._stream.leave()  # what is left of the one that broke
        await retrying.turn()
        return await self._stream.open(request, self._frontier.token_ids, self.report.target or request.target)

    def _take(self, message: Opened | Verified, request: GenerationRequest) -> list[Event]:
        if isinstance(message, Verified):
            return self._commit(message, request)
        self.report.target, self.report.num_reused = message.target, message.num_reused
        self._stream.opened = message
        self._turn_s = 0.0
        self._num_opened = len(self._frontier.token_ids) - len(request.prompt_ids)
        self._may_draft = not self._takes_turns  # in turns the first one is the verifier's
        return []

    def _lose(self, error: OutriderError, *, goes_alone: bool) -> list[Event]:
        """The link broke, or could not be had again: only that is reason enough to go alone."""
        self._frontier.restart()
        self.report.num_reopened += 1
        if self._stream.opened is None and goes_alone:
            return self._go_alone(error)
        self._stream.opened = None
        return []

    def _go_alone(self, reason: OutriderError) -> list[Event]:
        if self._is_alone:
            return []
        self._is_alone = self._may_draft = True
        self._frontier.restart()
        return [Alone(reason)]

    def _end_alone(self, request: GenerationRequest) -> list[Event]:
        """The provisional end, when the drafter has said all it can and no verifier may still be heard."""
        frontier = self._frontier
        is_stopped = bool(frontier.num_shown) and frontier.last in request.stop_ids
        if self._stream.opened is not None or (self._may_draft and not is_stopped and frontier.end < request.limit):
            return []
        if not frontier.num_shown:
            self._is_alone, self._is_mute = False, True
            return []
        self.report.num_provisional = frontier.num_shown
        return [Finished("stop" if is_stopped else "length", self.report)]

    def _patience_s(self) -> float:
        return max(0.0, self._heard_s + self._alone_after_s - time.perf_counter())

    def _is_time_to_draft(self, request: GenerationRequest) -> bool:
        frontier = self._frontier
        if self._drafter is None or not self._may_draft or (frontier.num_ahead and frontier.last in request.stop_ids):
            return False
        if self._takes_turns and not self._is_alone:  # once for each answer, unless the verifier goes on with the rest
            return self._stream.opened is not None and frontier.num_ahead == 0
        return self._room(request) > 0

    def _room(self, request: GenerationRequest) -> int:
        """How many more guesses may be made now."""
        end = self._frontier.end
        if self._is_alone:
            return request.limit - end
        if self._stream.opened is None:
            return 0
        most = self._max_ahead - self._frontier.num_ahead if self._max_ahead else self._stream.drafts_allowed
        return max(0, min(most if self._stream.drafts_allowed else 0, self._stream.opened.limit - end - 1))

    async def _prefill(self) -> None:
        if self._drafter is not None:
            await self._in_thread(self._drafter.prefill, list(self._frontier.token_ids))

    async def _draft(self, request: GenerationRequest) -> None:
        """Guess, and send the guesses. In turns, without any, the verifier is asked for one step alone."""
        frontier = self._frontier
        epoch, start, room = frontier.epoch, frontier.end, self._room(request)
        pace = self._alone_pace if self._is_alone else self._pace
        pace.begin(frontier.confidences)
        assert self._drafter is not None
        proposal = await self._in_thread(self._drafter.propose, frontier.everything(), request.params, pace, room)
        n_vocab = self._stream.opened.n_vocab if self._stream.opened is not None else math.inf
        frontier.guess(epoch, start, _sound(proposal, request.stop_ids, n_vocab))
        asks_alone = self._takes_turns and not self._is_alone and not frontier.num_ahead
        if asks_alone:
            await self._stream.say(Draft(frontier.epoch, frontier.end, b""))
        # Nothing to say, or said in turn: the next word is the verifier's.
        self._may_draft = bool(proposal.token_ids) and (self._is_alone or not self._takes_turns)

    async def _send_drafts(self) -> None:
        while self._stream.opened is not None and (draft := self._frontier.next_draft()) is not None:
            await self._stream.say(draft)

    def _commit(self, verified: Verified, request: GenerationRequest) -> list[Event]:
        """Move the frontier; tell the pace and the report."""
        opened, report, now_s = self._stream.opened, self.report, time.perf_counter()
        assert opened is not None
        outcome = self._frontier.commit(
            verified, limit=opened.limit, n_vocab=opened.n_vocab, num_logprobs=request.num_logprobs
        )
        turn_ms = (now_s - self._turn_s) * 1000 if self._turn_s else None  # the first turn is mostly the prompt
        self._pace.observe(outcome.checked, outcome.num_accepted, len(outcome.tokens), turn_ms)
        self._turn_s = self._heard_s = now_s
        self._may_draft, self._is_alone = True, False
        if outcome.missed:
            self._pace.interrupt()
        accepted_by = [source for source, _ in outcome.checked[: outcome.num_accepted]]
        report.add_pass(len(outcome.tokens), len(outcome.checked), accepted_by, (now_s - self._began_s) * 1000)
        link = self._stream.link
        report.bytes_up, report.bytes_down, report.rtt_ms = link.bytes_up, link.bytes_down, link.rtt_ms
        events: list[Event] = list(outcome.tokens)
        if outcome.retracted is not None:
            report.num_retracted += outcome.num_retracted
            events.insert(outcome.num_agreed, Retracted(outcome.retracted))
        if verified.finish:
            seal = Seal(verified.signature, opened.public_key, self._num_opened) if verified.signature else None
            events.append(Finished(verified.finish, report, seal))
        return events

    async def _in_thread(self, function: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def _sound(proposal: Proposal, stop_ids: Sequence[int], n_vocab: float) -> Proposal:
    """The guesses up to the first that ends the answer, and before any that the target has no row for: models of one
    tokenizer differ in how many rows they add to it."""
    count = 0
    for token_id in proposal.token_ids:
        if token_id >= n_vocab:
            break
        count += 1
        if token_id in stop_ids:
            break
    ids, confidences = proposal.token_ids[:count], proposal.confidences[:count]
    return Proposal(proposal.source, ids, confidences, proposal.distributions[:count])
