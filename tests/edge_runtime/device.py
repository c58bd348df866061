"""A device for tests: a drafter over the toy, a journal, and an app that checks what it hears.

What it does is what `Runtime` does, with short waits. It can be killed between any two moments, and resumed.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_runtime.ahead import MAX_AHEAD, AheadPace
from edge_runtime.answer import Answering, Piece, tell
from edge_runtime.breaker import Breaker, BreakerPolicy
from edge_runtime.drafters import Drafter, ModelDrafter, Proposal
from edge_runtime.events import Alone, Event, Finished, Retracted
from edge_runtime.journal import Asked, Journal, Scribe
from edge_runtime.links import WebSocketLink
from edge_runtime.pacing import Pace
from edge_runtime.prompting import request_for
from edge_runtime.request import GenerationRequest
from edge_runtime.retry import Retry
from edge_runtime.session import Session
from edge_runtime.text import AnswerText
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.errors import OutriderError
from outrider.manifest import Source, file_sha256
from outrider.tokens import BYTE_OF, TextCodec
from tests.cloud_verifier.test_verifier import PROMPT
from tests.toy import ToyEngine
from tests.toy_gguf import SPECIALS, WORDS, toy_metadata, write_model

QUICK = Retry(first_attempts=20, attempts=40, base_s=0.001, cap_s=0.01)
QUICK_BREAKER = BreakerPolicy(first_s=0.005, longest_s=0.02)
FIRST_CHARS = "abc .é"  # of the toy's sixteen ids: é is two of them, so that tokens end inside a character

TARGET, OTHER = 0, 1  # seeds of the toy: the target's own weights, and others


def toy_codec(folder: Path) -> TextCodec:
    """Text for the toy's ids."""
    byte_chars = sorted(BYTE_OF, key=lambda char: (BYTE_OF[char] not in FIRST_CHARS.encode(), char))
    tokens = SPECIALS + byte_chars + [left + right for left, right in WORDS] + ["[PAD0]"]
    file = write_model(folder / "m.gguf", toy_metadata(tokenizer__ggml__tokens=tokens))
    source = Source("m", file_sha256(file))
    return TextCodec(catalog.install_gguf(file, folder, name="m", licence="none", source=source))


def text_of(codec: TextCodec, token_ids: Sequence[int], stop: Sequence[str] = ()) -> tuple[list[int], str]:
    """What of these tokens is the answer, and its text."""
    text = AnswerText(codec, stop)
    said = ""
    for token_id in token_ids:
        said += text.append(token_id)
        if text.is_hit:
            break
    return text.token_ids, said + text.flush()


class SlowDrafter(ModelDrafter):
    """As slow as real ones: a link can come back before an answer is over."""

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        time.sleep(0.002)
        return super().propose(token_ids, params, pace, max_drafts)


def drafter_of(seed: int) -> Drafter:
    return SlowDrafter(ToyEngine(seed=seed, max_sequences=1), name="model")


@dataclass
class App:
    """What an app does with the events, and what it then has on its screen."""

    verified: list[int] = field(default_factory=list)
    provisional: list[int] = field(default_factory=list)
    retractions: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    num_shown: int = 0  # provisional tokens, in all
    finished: Finished | None = None

    def hear(self, event: Event) -> None:
        start = len(PROMPT)
        if isinstance(event, Finished):
            self.finished = event
        elif isinstance(event, Alone):
            self.reasons.append(event.reason.code)
        elif isinstance(event, Retracted):
            kept = event.position - start - len(self.verified)
            assert 0 <= kept < len(self.provisional)
            self.retractions.append(event.position)
            del self.provisional[kept:]
        elif event.is_verified:
            assert event.position == start + len(self.verified)  # every position once, in order
            if self.provisional:
                assert event.token_id == self.provisional.pop(0)  # a confirmation; a difference is retracted before
            self.verified.append(event.token_id)
        else:
            assert event.position == start + len(self.verified) + len(self.provisional)
            self.provisional.append(event.token_id)
            self.num_shown += 1


@dataclass
class Screen(App):
    """An app that shows text."""

    text: str = ""
    told: list[Event] = field(default_factory=list)

    def show(self, event: Answering) -> None:
        if isinstance(event, Piece):
            self.text += event.text
            if event.token is None:
                return
            self.hear(event.token)
            self.told.append(event.token)
            return
        if isinstance(event, Retracted):
            self.text = self.text[: event.num_chars]
        self.hear(event)
        self.told.append(event)

    @property
    def token_ids(self) -> list[int]:
        return [*self.verified, *self.provisional]


class WatchedScribe(Scribe):
    """After each write the journal holds what the events written so far make of its list."""

    def watch(self, journal: Journal, number: int) -> None:
        self._journal, self.number = journal, number
        found = journal.generation(number)
        self.app = App(found.verified_ids, found.provisional_ids)
        self.written: list[Event] = []

    async def write(self, events: Sequence[Event], target: str = "") -> None:
        await super().write(events, target)
        assert self.not_kept is None, self.not_kept
        for event in events:
            self.app.hear(event)
            self.written.append(event)
        found = self._journal.generation(self.number)
        assert found.verified_ids == self.app.verified
        assert found.provisional_ids == self.app.provisional


class Device:
    """One generation at a time, through `tell`, with what the user sees of it."""

    def __init__(self, url: str, codec: TextCodec, drafter: Drafter | None, journal: Journal) -> None:
        self.breaker = Breaker(QUICK_BREAKER)
        self.screen = Screen()
        self.error: OutriderError | None = None  # what ended it, if it was not its own end
        self.number = 0
        self._url, self._codec, self._drafter, self.journal = url, codec, drafter, journal
        self._executor = ThreadPoolExecutor(1)
        self._events: AsyncGenerator[Answering, None] | None = None
        self._next: asyncio.Task[Any] | None = None

    @property
    def is_running(self) -> bool:
        return self._events is not None

    async def begin(self, asked: Asked, *, answers_alone: bool) -> None:
        scribe = await WatchedScribe.begin(self.journal, asked, None)
        assert scribe._record
        self.number = scribe._record.id
        self._run(scribe, replace(request_for(asked, asked.target), answers_alone=answers_alone), asked.stop)

    async def resume(self) -> None:
        scribe, generation = await WatchedScribe.resume(self.journal, self.number)
        request = replace(request_for(generation.asked, generation.target), answers_alone=False)
        request = replace(request, verified_ids=generation.verified_ids, provisional_ids=generation.provisional_ids)
        self._run(scribe, request, generation.asked.stop)

    def _run(self, scribe: WatchedScribe, request: GenerationRequest, stop: Sequence[str]) -> None:
        scribe.watch(self.journal, self.number)
        self.screen, self.scribe, self.error = Screen(), scribe, None
        self.num_remembered = len(request.verified_ids) + len(request.provisional_ids)
        self.session = Session(
            WebSocketLink(self._url),
            self._drafter,
            AheadPace(),
            self._executor,
            max_ahead=MAX_AHEAD,
            retry=QUICK,
            breaker=self.breaker,
            max_silence_s=0.2,
            alone_after_s=0.02,
        )
        self._events = tell(self.session, request, self._codec, stop, scribe)

    async def take(self, count: int, within_s: float) -> None:
        """The next events, so many or as many as come in time. At the end, or after an error, it runs no more."""
        deadline_s = asyncio.get_running_loop().time() + within_s
        while count and self._events is not None:
            self._next = self._next or asyncio.ensure_future(anext(self._events))
            left_s = deadline_s - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait([self._next], timeout=max(0.0, left_s))
            if not done:
                return
            count -= 1
            task, self._next = self._next, None
            try:
                event = task.result()
            except OutriderError as error:
                self.error = error
                await self.kill()
                return
            self.screen.show(event)
            if isinstance(event, Finished):
                await self.kill()

    async def kill(self) -> None:
        """Nothing is told, sent or written from here on."""
        if self._next is not None:
            self._next.cancel()
            with suppress(asyncio.CancelledError, OutriderError, StopAsyncIteration):
                await self._next
        if self._events is not None:
            await self._events.aclose()
            self.scribe._is_blank = False  # a process that is killed tidies nothing up
            self.scribe.close()
        self._next = self._events = None

    async def aclose(self) -> None:
        await self.kill()
        self._executor.shutdown()
        if self._drafter is not None:
            self._drafter.close()
