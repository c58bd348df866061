"""One generation on the device: drafts go up, verified tokens come down, and both may be under way at once.

The rules of the list are in `frontier.py`; here is what moves: a link that is listened to, a drafter in its thread, and
the question whether to draft now. With `max_ahead` the drafter never waits for the verifier: it runs ahead by up to so
many tokens, in small messages. Without it they take turns: draft, send, hear what became of it. When the link breaks or
the verifier goes away the list is opened again, there or at a replica, and goes on where it was. Knows token ids; no
text, no engine, no socket.
"""

import asyncio
import time
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edge_runtime.drafters.base import Drafter
from edge_runtime.evidence import Seal
from edge_runtime.frontier import Frontier, Outcome, Token
from edge_runtime.links.base import Link
from edge_runtime.pacing import Pace
from edge_runtime.report import Report
from edge_runtime.retry import Retry, Retrying
from outrider.choice import SamplingParams
from outrider.errors import (
    LinkError,
    LinkLost,
    ModelMismatch,
    OutriderError,
    ProtocolError,
    VocabularyMismatch,
)
from outrider.wire import Cancel, Draft, Fault, Load, Open, Opened, Params, Verified, pack_ids

__all__ = ["Finished", "GenerationRequest", "Session"]

R = TypeVar("R")
WAIT_FOR_DRAFTS = -1
NEVER_WAIT = 0
MAX_SILENCE_S = 120.0  # a verifier that says nothing for so long is lost; long prompts on small machines take a while


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    prompt_ids: Sequence[int]
    max_tokens: int = 256
    params: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: Sequence[int] = ()
    vocabulary: str = ""  # fingerprint of the tokenizer that the ids are of; "" leaves the check to the caller
    target: str = ""  # fingerprint of the target's weights; "" takes whatever the verifier runs
    num_logprobs: int = -1  # likeliest ids told with each token; 0 the token's own log-probability alone, -1 none
    wants_signature: bool = False  # of the verifier, under what it chose


@dataclass(frozen=True, slots=True)
class Finished:
    reason: str  # "stop" or "length"
    report: Report
    seal: Seal | None = None  # where one was asked for, of a verifier that signs
    receipt: bytes | None = None  # where `Runtime` was asked for one


class Session:
    """`drafter=None` streams from the target alone. `executor` is the one thread that the drafter runs in."""

    def __init__(
        self,
        link: Link,
        drafter: Drafter | None,
        pace: Pace,
        executor: ThreadPoolExecutor,
        *,
        max_drafts: int = 15,
        max_ahead: int = 0,
        retry: Retry | None = None,
        max_silence_s: float = MAX_SILENCE_S,
    ) -> None:
        self._link = link
        self._drafter = drafter
        self._pace = pace
        self._executor = executor
        self._max_drafts = max_drafts
        self._max_ahead = max_ahead
        self._drafts_allowed = max_drafts  # by the verifier's load, too
        self._retry = retry or Retry()
        self._max_silence_s = max_silence_s
        self._frontier = Frontier(())
        self._may_draft = False
        self._turn_s = 0.0  # when the last turn ended; 0 before the first
        self._num_opened = 0  # tokens of the answer that the last Open brought along
        self.report = Report()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Finished, None]:
        """Verified tokens as they come, then Finished. Raises what the verifier refused, LinkLost, ProtocolError.

        What may pass is tried again, from the list as it is. Leaving the iteration early ends the verifier's session.
        """
        began_s = time.perf_counter()
        self._frontier = Frontier(request.prompt_ids)
        self.report.num_prompt = len(self._frontier.token_ids)
        retrying = Retrying(self._retry)
        while True:
            listening: asyncio.Task[Verified] | None = None
            drafting: asyncio.Task[None] | None = None
            try:
                await self._link.open()
                opened = await self._begin(request)
                while True:
                    if drafting is None and self._is_time_to_draft(opened.limit):
                        drafting = asyncio.create_task(self._draft(request.params, opened.limit))
                    listening = listening or asyncio.create_task(self._hear())
                    await asyncio.wait([task for task in (listening, drafting) if task], return_when=FIRST_COMPLETED)
                    if drafting is not None and drafting.done():
                        drafting = drafting.result()
                    if listening.done():
                        verified, listening = listening.result(), None
                        outcome = self._commit(
                            verified, opened, request.num_logprobs, (time.perf_counter() - began_s) * 1000
                        )
                        retrying.progress()
                        for token in outcome.tokens:
                            yield token
                        if verified.finish:
                            yield Finished(verified.finish, self.report, self._seal(verified, opened))
                            return
            except OutriderError as error:
                await retrying.pause(error)
                self.report.num_reopened += 1
            finally:
                await _cancelled(listening, drafting)
                await self._leave()

    async def _begin(self, request: GenerationRequest) -> Opened:
        self._drafts_allowed = self._max_drafts
        self._frontier.forget()
        self._turn_s = 0.0
        self._num_opened = len(self._frontier.token_ids) - len(request.prompt_ids)
        takes_turns = self._drafter is not None and not self._max_ahead
        self._may_draft = not takes_turns  # in turns the first one is the verifier's
        await self._link.send(
            Open(
                vocabulary=request.vocabulary,
                target=self.report.target or request.target,
                params=Params.of(request.params),
                limit=len(request.prompt_ids) + request.max_tokens,
                patience_ms=WAIT_FOR_DRAFTS if takes_turns else NEVER_WAIT,
                stop_ids=pack_ids(request.stop_ids),
                token_ids=pack_ids(self._frontier.token_ids),
                num_logprobs=request.num_logprobs,
                is_padded=self._link.is_padded,
                wants_signature=request.wants_signature,
            )
        )
        opened = await self._receive()
        limit = len(request.prompt_ids) + request.max_tokens
        if not isinstance(opened, Opened) or not len(self._frontier.token_ids) < opened.limit <= limit:
            raise ProtocolError("the verifier did not open the session; check both sides' versions")
        self._check_models(opened, request)
        self.report.target = opened.target
        if self._drafter is not None:
            await self._in_thread(self._drafter.prefill, list(self._frontier.token_ids))
        return opened

    def _seal(self, verified: Verified, opened: Opened) -> Seal | None:
        return Seal(verified.signature, opened.public_key, self._num_opened) if verified.signature else None

    def _check_models(self, opened: Opened, request: GenerationRequest) -> None:
        """A verifier checks what Open names; what it opened must be that."""
        target = self.report.target or request.target
        if target not in ("", opened.target):
            raise ModelMismatch(f"the verifier runs target {opened.target[:12]}, not {target[:12]}; begin anew with it")
        if request.vocabulary not in ("", opened.vocabulary):
            raise VocabularyMismatch(
                f"the verifier's vocabulary is {opened.vocabulary[:12]}, not {request.vocabulary[:12]}; choose another"
            )

    def _is_time_to_draft(self, limit: int) -> bool:
        if self._drafter is None or not self._may_draft:
            return False
        if not self._max_ahead:  # a turn: once for each answer, unless the verifier goes on with what is left
            return self._frontier.num_ahead == 0
        return self._room(limit) > 0

    def _room(self, limit: int) -> int:
        """How many more guesses may be made now."""
        most = self._max_ahead - self._frontier.num_ahead if self._max_ahead else self._drafts_allowed
        return max(0, min(most if self._drafts_allowed else 0, limit - self._frontier.end - 1))

    async def _draft(self, params: SamplingParams, limit: int) -> None:
        """Guess, and send the guesses. In turns, without any, the verifier is asked for one step alone."""
        frontier = self._frontier
        epoch, start = frontier.epoch, frontier.end
        self._pace.begin(frontier.confidences)
        assert self._drafter is not None
        token_ids, room = frontier.everything(), self._room(limit)
        proposal = await self._in_thread(self._drafter.propose, token_ids, params, self._pace, room)
        draft = frontier.guess(epoch, start, proposal)
        if draft is not None:
            await self._link.send(draft)
        elif not self._max_ahead:
            await self._link.send(Draft(frontier.epoch, frontier.end, b""))
        # Nothing to say, or said in turn: the next word is the verifier's.
        self._may_draft = bool(self._max_ahead) and bool(proposal.token_ids)

    async def _hear(self) -> Verified:
        message = await self._receive()
        if not isinstance(message, Verified):
            raise ProtocolError("the verifier spoke out of turn; check both sides' versions")
        return message

    def _commit(self, verified: Verified, opened: Opened, num_logprobs: int, elapsed_ms: float) -> Outcome:
        """Move the frontier, tell the pace, keep the books."""
        outcome = self._frontier.commit(verified, limit=opened.limit, n_vocab=opened.n_vocab, num_logprobs=num_logprobs)
        now_s = time.perf_counter()
        turn_ms = (now_s - self._turn_s) * 1000 if self._turn_s else None  # the first turn is mostly the prompt
        self._pace.observe(outcome.checked, outcome.num_accepted, len(outcome.tokens), turn_ms)
        self._turn_s = now_s
        self._may_draft = True
        if outcome.missed:
            self._pace.interrupt()
        report = self.report
        report.num_passes += 1
        report.num_tokens += len(outcome.tokens)
        report.num_drafted += verified.num_drafted
        report.num_accepted += outcome.num_accepted
        for source, _ in outcome.checked[: outcome.num_accepted]:
            report.accepted_by[source] = report.accepted_by.get(source, 0) + 1
        report.bytes_up, report.bytes_down = self._link.bytes_up, self._link.bytes_down
        report.first_token_ms = report.first_token_ms or elapsed_ms
        report.total_ms = elapsed_ms
        return outcome

    async def _receive(self) -> Opened | Verified:
        """What was verified, or opened; what the verifier says of its load is heeded on the way."""
        try:
            async with asyncio.timeout(self._max_silence_s):  # news of the load alone is silence
                while isinstance(message := await self._link.receive(), Load):
                    self._drafts_allowed = min(self._max_drafts, message.max_drafts)
        except TimeoutError:
            raise LinkLost("the verifier says nothing any more; check it and try again") from None
        if isinstance(message, Fault):
            raise message.error()
        return message

    async def _in_thread(self, function: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def _leave(self) -> None:
        with suppress(LinkError):
            await self._link.send(Cancel())
        await self._link.close()


async def _cancelled(*tasks: "asyncio.Task[Any] | None") -> None:
    """End what is under way; a drafter's thread finishes its pass by itself."""
    for task in tasks:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError, OutriderError):
                await task
