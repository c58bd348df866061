"""One generation on the device: a list of tokens, a frontier, and guesses that run ahead of it.

The device's list is the truth. Drafts are appended on the right and sent; what comes back moves the frontier; at the
first difference the list is cut there, the epoch rises, and drafting goes on from the target's token. Every position
is committed once. When the link breaks or the verifier goes away the list is opened again, there or at a replica, and
goes on where it was. Knows token ids; no text, no engine, no socket.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from edge_runtime.drafters.base import Drafter, Proposal
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
    from_code,
)
from outrider.wire import Cancel, Draft, Fault, Load, Open, Opened, Params, Verified, pack_ids, unpack_ids

__all__ = ["Finished", "GenerationRequest", "Session", "Token"]

R = TypeVar("R")
WAIT_FOR_DRAFTS = -1
NEVER_WAIT = 0
FINISHES = (None, "stop", "length")
MAX_SILENCE_S = 120.0  # a verifier that says nothing for so long is lost; long prompts on small machines take a while


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    prompt_ids: Sequence[int]
    max_tokens: int = 256
    params: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: Sequence[int] = ()
    vocabulary: str = ""  # fingerprint of the tokenizer that the ids are of; "" leaves the check to the caller
    target: str = ""  # fingerprint of the target's weights; "" takes whatever the verifier runs


@dataclass(frozen=True, slots=True)
class Token:
    """A verified token. `drafted_by` names the drafter that guessed it; None: the target's own correction or step."""

    position: int
    token_id: int
    drafted_by: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    reason: str  # "stop" or "length"
    report: Report


class Session:
    """Takes turns with the verifier: draft, send, hear what became of it.

    `drafter=None` streams from the target alone. `executor` is the one thread that the drafter runs in.
    """

    def __init__(
        self,
        link: Link,
        drafter: Drafter | None,
        pace: Pace,
        executor: ThreadPoolExecutor,
        *,
        max_drafts: int = 15,
        retry: Retry | None = None,
        max_silence_s: float = MAX_SILENCE_S,
    ) -> None:
        self._link = link
        self._drafter = drafter
        self._pace = pace
        self._executor = executor
        self._max_drafts = max_drafts
        self._drafts_allowed = max_drafts  # by the verifier's load, too
        self._retry = retry or Retry()
        self._max_silence_s = max_silence_s
        self._token_ids: list[int] = []
        self._waiting = Proposal("")  # drafts that were sent, from the frontier on
        self._turn_s = 0.0  # when the last turn ended; 0 before the first
        self._epoch = 0
        self.report = Report()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Finished, None]:
        """Verified tokens as they come, then Finished. Raises what the verifier refused, LinkLost, ProtocolError.

        What may pass is tried again, from the list as it is. Leaving the iteration early ends the verifier's session.
        """
        began_s = time.perf_counter()
        self._token_ids = list(request.prompt_ids)
        self.report.num_prompt = len(self._token_ids)
        retrying = Retrying(self._retry)
        while True:
            try:
                await self._link.open()
                opened = await self._begin(request)
                while True:
                    verified, tokens = await self._turn(opened, began_s)
                    retrying.progress()
                    for token in tokens:
                        yield token
                    if verified.finish:
                        yield Finished(verified.finish, self.report)
                        return
                    if not self._waiting.token_ids:  # otherwise the verifier goes on with the rest by itself
                        self._waiting = await self._draft(request.params, opened.limit)
            except OutriderError as error:
                await retrying.pause(error)
                self.report.num_reopened += 1
            finally:
                await self._leave()

    async def _turn(self, opened: Opened, began_s: float) -> tuple[Verified, list[Token]]:
        """Hear what became of the waiting drafts, and commit it."""
        verified, token_ids = await self._hear(opened)
        now_s = time.perf_counter()
        sent = self._waiting
        num_accepted = self._count(verified, token_ids, sent, (now_s - began_s) * 1000)
        if self._turn_s:  # the first turn is mostly the prompt
            elapsed_ms = (now_s - self._turn_s) * 1000
            confidences = sent.confidences[: verified.num_drafted]
            self._pace.observe_turn(sent.source, confidences, num_accepted, len(token_ids), elapsed_ms)
        self._turn_s = now_s
        self._waiting = sent.after(token_ids)
        tokens = [
            Token(verified.start + offset, token_id, sent.source if offset < num_accepted else None)
            for offset, token_id in enumerate(token_ids)
        ]
        return verified, tokens

    async def _begin(self, request: GenerationRequest) -> Opened:
        self._drafts_allowed = self._max_drafts
        self._waiting, self._turn_s = Proposal(""), 0.0
        await self._link.send(
            Open(
                vocabulary=request.vocabulary,
                target=self.report.target or request.target,
                params=Params.of(request.params),
                limit=len(request.prompt_ids) + request.max_tokens,
                patience_ms=WAIT_FOR_DRAFTS if self._drafter else NEVER_WAIT,
                stop_ids=pack_ids(request.stop_ids),
                token_ids=pack_ids(self._token_ids),
                is_padded=self._link.is_padded,
            )
        )
        opened = await self._receive()
        limit = len(request.prompt_ids) + request.max_tokens
        if not isinstance(opened, Opened) or not len(self._token_ids) < opened.limit <= limit:
            raise ProtocolError("the verifier did not open the session; check both sides' versions")
        self._check_models(opened, request)
        self.report.target = opened.target
        if self._drafter is not None:
            await self._in_thread(self._drafter.prefill, list(self._token_ids))
        return opened

    def _check_models(self, opened: Opened, request: GenerationRequest) -> None:
        """A verifier checks what Open names; what it opened must be that."""
        target = self.report.target or request.target
        if target not in ("", opened.target):
            raise ModelMismatch(f"the verifier runs target {opened.target[:12]}, not {target[:12]}; begin anew with it")
        if request.vocabulary not in ("", opened.vocabulary):
            raise VocabularyMismatch(
                f"the verifier's vocabulary is {opened.vocabulary[:12]}, not {request.vocabulary[:12]}; choose another"
            )

    async def _draft(self, params: SamplingParams, limit: int) -> Proposal:
        """Guess, and send the guesses; without guesses the verifier is asked for one step alone."""
        if self._drafter is None:
            return Proposal("")
        frontier = len(self._token_ids)
        max_drafts = max(0, min(self._drafts_allowed, limit - frontier - 1))
        proposal = await self._in_thread(self._drafter.propose, list(self._token_ids), params, self._pace, max_drafts)
        confidences = bytes(round(255 * value) for value in proposal.confidences)
        await self._link.send(Draft(self._epoch, frontier, pack_ids(proposal.token_ids), confidences))
        return proposal

    async def _hear(self, opened: Opened) -> tuple[Verified, list[int]]:
        """The next Verified, checked: it may say anything about tokens, but not break the rules of the list."""
        message = await self._receive()
        if not isinstance(message, Verified):
            raise ProtocolError("the verifier spoke out of turn; check both sides' versions")
        token_ids = unpack_ids(message.token_ids)
        in_order = message.start == len(self._token_ids) and message.start + len(token_ids) <= opened.limit
        drafts = self._waiting.token_ids
        is_sound = (
            message.num_drafted <= len(drafts)
            and message.num_accepted <= min(message.num_drafted, len(token_ids))
            and drafts[: message.num_accepted] == token_ids[: message.num_accepted]
            and message.finish in FINISHES
        )
        if not token_ids or not in_order or not is_sound or max(token_ids) >= opened.n_vocab:
            raise ProtocolError("the verifier's tokens do not continue the list; its answer was refused")
        return message, token_ids

    def _count(self, verified: Verified, token_ids: list[int], waiting: Proposal, elapsed_ms: float) -> int:
        """Commit the tokens, raise the epoch at a miss, keep the books; how many of the drafts were accepted."""
        num_accepted = 0
        for draft, token_id in zip(waiting.token_ids, token_ids, strict=False):
            if draft != token_id:
                self._epoch += 1
                break
            num_accepted += 1
        num_accepted = min(num_accepted, verified.num_drafted)  # beyond what the pass took it was the target's own step
        self._token_ids += token_ids
        report = self.report
        report.num_passes += 1
        report.num_tokens += len(token_ids)
        report.num_drafted += verified.num_drafted
        report.num_accepted += num_accepted
        if num_accepted:
            report.accepted_by[waiting.source] = report.accepted_by.get(waiting.source, 0) + num_accepted
        report.bytes_up, report.bytes_down = self._link.bytes_up, self._link.bytes_down
        report.first_token_ms = report.first_token_ms or elapsed_ms
        report.total_ms = elapsed_ms
        return num_accepted

    async def _receive(self) -> Opened | Verified:
        """What was verified, or opened; what the verifier says of its load is heeded on the way."""
        try:
            async with asyncio.timeout(self._max_silence_s):  # news of the load alone is silence
                while isinstance(message := await self._link.receive(), Load):
                    self._drafts_allowed = min(self._max_drafts, message.max_drafts)
        except TimeoutError:
            raise LinkLost("the verifier says nothing any more; check it and try again") from None
        if isinstance(message, Fault):
            error = from_code(message.code, message.message)
            error.may_retry, error.retry_after_ms = message.may_retry, message.retry_after_ms
            raise error
        return message

    async def _in_thread(self, function: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def _leave(self) -> None:
        with suppress(LinkError):
            await self._link.send(Cancel())
        await self._link.close()
