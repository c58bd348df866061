"""What a request's `model` chooses: not a model but a way of answering, each with the runtime that answers so.

The ways share one target and one drafter. A drafter that goes to and fro between answers reads them again each time,
so one answer at a time is drafted for; the others come from the target alone, which says the same. Knows no HTTP.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Unpack

from edge_runtime.answer import Answering
from edge_runtime.events import Finished
from edge_runtime.journal import Journal
from edge_runtime.options import Options, TokenIds
from edge_runtime.runtime import Runtime
from edge_runtime.tasks import cancelled
from outrider.choice import SamplingParams
from outrider.engines import EngineSettings
from outrider.errors import LinkLost, Moved, OutriderError, UnknownModel

__all__ = ["Mode", "Modes"]

WHY_NOT = {
    "hybrid": "hybrid needs a verifier, and this server has none; start it with --verifier, or ask for auto",
    "cloud": "cloud needs a verifier, and this server has none; start it with --verifier, or ask for auto",
    "local": "local needs a model that drafts, and this server has none; start it with --drafter, or ask for auto",
}


@dataclass(frozen=True, slots=True)
class Mode:
    """`plain` is the same target without drafts; None: no target has a say, and all that is answered is provisional.

    Whoever has `turn` is drafted for. `journal`: where answers are kept, if any are. `max_context`: tokens of prompt
    and answer; a verifier may allow fewer.
    """

    name: str
    runtime: Runtime
    plain: Runtime | None
    turn: asyncio.Lock
    leaving: asyncio.Event
    max_context: int
    journal: Journal | None = None

    @property
    def has_target(self) -> bool:
        return self.plain is not None

    async def answer(
        self, prompt: TokenIds, params: SamplingParams, **options: Unpack[Options]
    ) -> AsyncGenerator[Answering, None]:
        """As Runtime.generate, and Moved from when the server is `leaving`."""
        async with aclosing(self._answer(prompt, params, **options)) as events:
            coming: asyncio.Task[Answering | None] | None = None
            leaving = asyncio.create_task(self.leaving.wait())
            try:
                while True:
                    coming = asyncio.create_task(_next(events))
                    await asyncio.wait((coming, leaving), return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done():
                        raise Moved("this server is stopping; ask again when it is back")
                    if (event := coming.result()) is None:
                        return
                    yield event
            finally:
                await cancelled(coming, leaving)

    async def _answer(
        self, prompt: TokenIds, params: SamplingParams, **options: Unpack[Options]
    ) -> AsyncGenerator[Answering, None]:
        """An answer that is left has ended: nobody hears the rest, so sync is not to ask for it."""
        name, has_ended = secrets.token_hex(8), False
        options["conversation"] = name
        try:
            async with aclosing(self._by_either(prompt, params, **options)) as events:
                async for event in events:
                    has_ended = isinstance(event, Finished)
                    yield event
        finally:
            if self.journal is not None and not has_ended:
                with suppress(OutriderError):
                    await asyncio.to_thread(self.journal.stop, name)

    async def _by_either(
        self, prompt: TokenIds, params: SamplingParams, **options: Unpack[Options]
    ) -> AsyncGenerator[Answering, None]:
        """Who may be answered without the target waits for the drafter where that is all there is."""
        if self.plain is not None and self.turn.locked():
            has_begun = False
            try:
                async with aclosing(self.plain.generate(prompt, params, **options)) as events:
                    async for event in events:
                        has_begun = True
                        yield event
                return
            except LinkLost:
                if has_begun or options.get("is_strict", False):
                    raise
        async with self.turn, aclosing(self.runtime.generate(prompt, params, **options)) as events:
            async for event in events:
                yield event


class Modes:
    """`runtime` has a target here, or with `is_remote` behind a link. `model` is the target's name, where it has one.

    `journal` is the runtime's own, if it keeps one. Both stay the caller's to close.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        is_remote: bool,
        model: str = "",
        max_context: int = EngineSettings.max_context,
        journal: Journal | None = None,
    ) -> None:
        self._leaving = asyncio.Event()
        plain, turn = runtime.without_drafts(), asyncio.Lock()
        auto = Mode("auto", runtime, plain, turn, self._leaving, max_context, journal)
        found = [auto]
        if is_remote:
            found += [
                replace(auto, name="hybrid"),
                replace(auto, name="cloud", runtime=plain, turn=asyncio.Lock()),
            ]
            if runtime.drafter is not None and runtime.drafter.can_answer:
                found.append(replace(auto, name="local", runtime=runtime.alone(), plain=None, journal=None))
        else:
            found.append(replace(auto, name="local"))
        if model and model not in (*WHY_NOT, "auto"):
            found.append(replace(auto, name=model))
        self._modes = {mode.name: mode for mode in found}

    @property
    def names(self) -> list[str]:
        return list(self._modes)

    @property
    def has_link(self) -> bool:
        """Whether the target is behind a link."""
        return "hybrid" in self._modes

    @property
    def is_cut(self) -> bool:
        """Whether the link is cut on purpose."""
        return self.find("auto").runtime.link_switch.is_cut

    def cut(self, *, is_cut: bool) -> None:
        """Have the link fail as if the network were gone, or be there again."""
        self.find("auto").runtime.link_switch.is_cut = is_cut
        for mode in self._modes.values():
            mode.runtime.network_changed()

    def leave(self) -> None:
        """Answers under way end with Moved, and so do those to come."""
        self._leaving.set()

    def find(self, name: str) -> Mode:
        """Raises UnknownModel."""
        mode = self._modes.get(name)
        if mode is None:
            sentence = WHY_NOT.get(name) or f"there is no model of that name; ask for one of {', '.join(self._modes)}"
            error = UnknownModel(sentence)
            error.http_status = 404
            raise error
        return mode


async def _next(events: AsyncGenerator[Answering, None]) -> Answering | None:
    """None after the last."""
    try:
        return await anext(events)
    except StopAsyncIteration:
        return None
