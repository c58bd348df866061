"""What a request's `model` chooses: not a model but a way of answering, each with the runtime that answers so.

The ways share one target and one drafter. A drafter that goes to and fro between answers reads them again each time,
so one answer at a time is drafted for; the others come from the target alone, which says the same. Knows no HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Unpack

from edge_runtime.answer import Answering
from edge_runtime.options import Options, TokenIds
from edge_runtime.runtime import Runtime
from outrider.choice import SamplingParams
from outrider.errors import LinkLost, UnknownModel

__all__ = ["Mode", "Modes"]

WHY_NOT = {
    "hybrid": "hybrid needs a verifier, and this server has none; start it with --verifier, or ask for auto",
    "cloud": "cloud needs a verifier, and this server has none; start it with --verifier, or ask for auto",
    "local": "local needs a model that drafts, and this server has none; start it with --drafter, or ask for auto",
}


@dataclass(frozen=True, slots=True)
class Mode:
    """`plain` is the same target without drafts; None: no target has a say, and all that is answered is provisional.

    Whoever has `turn` is drafted for.
    """

    name: str
    runtime: Runtime
    plain: Runtime | None
    turn: asyncio.Lock

    @property
    def has_target(self) -> bool:
        return self.plain is not None

    async def answer(
        self, prompt: TokenIds, params: SamplingParams, **options: Unpack[Options]
    ) -> AsyncGenerator[Answering, None]:
        """As Runtime.generate. Who may be answered without the target waits for the drafter where that is all there
        is."""
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

    The runtime stays the caller's to close.
    """

    def __init__(self, runtime: Runtime, *, is_remote: bool, model: str = "") -> None:
        plain, turn = runtime.without_drafts(), asyncio.Lock()
        found = [Mode("auto", runtime, plain, turn)]
        if is_remote:
            found += [Mode("hybrid", runtime, plain, turn), Mode("cloud", plain, plain, asyncio.Lock())]
            if runtime.drafter is not None and runtime.drafter.can_answer:
                found.append(Mode("local", runtime.alone(), None, turn))
        else:
            found.append(Mode("local", runtime, plain, turn))
        if model and model not in (*WHY_NOT, "auto"):
            found.append(Mode(model, runtime, plain, turn))
        self._modes = {mode.name: mode for mode in found}

    @property
    def names(self) -> list[str]:
        return list(self._modes)

    def find(self, name: str) -> Mode:
        """Raises UnknownModel."""
        mode = self._modes.get(name)
        if mode is None:
            sentence = WHY_NOT.get(name) or f"there is no model of that name; ask for one of {', '.join(self._modes)}"
            error = UnknownModel(sentence)
            error.http_status = 404
            raise error
        return mode
