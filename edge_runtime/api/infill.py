"""/infill: the call of llama.cpp's editor plugins, in their fields, over a gap that is filled."""

import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from edge_runtime.api.asking import wishes_of
from edge_runtime.api.errors import error_reply
from edge_runtime.api.filling import AskedGap, Filling
from edge_runtime.api.indentation import Indentation
from edge_runtime.api.modes import Mode
from edge_runtime.api.replies import InfillReply, Note, Timings, event
from edge_runtime.api.schemas import InfillRequest, Wishes
from edge_runtime.api.suggestions import Suggestions
from edge_runtime.api.writer import fingerprint_of, state_of
from edge_runtime.report import Report
from outrider.choice import MAX_SEED, SamplingParams
from outrider.errors import InvalidParameter, OutriderError
from outrider.infill import Gap
from outrider.stops import StopStrings

__all__ = ["InfillWriter"]

MAX_TOKENS = 128  # where nobody says
SPARE = 64  # positions that a target keeps to itself, to pad its passes with, and some
StopType = Literal["eos", "word", "limit"]


class InfillWriter:
    """Of one request. Raises InvalidParameter and its kin for one that cannot be."""

    def __init__(self, wish: InfillRequest, mode: Mode, headers: Mapping[str, str], suggestions: Suggestions) -> None:
        self._wish = wish
        self._mode = mode
        stops = [wish.stop] if isinstance(wish.stop, str) else wish.stop or []
        self._stops = StopStrings([each for each in stops if each])
        self._indentation = Indentation(wish.n_indent or 0)
        self._text = ""  # told so far
        self._num_recalled = 0
        self._began_s = 0.0  # when the first token came that was not known; 0 before
        self._is_late = False
        wishes = wishes_of(wish.x_outrider or Wishes(), headers)
        if wishes.strict and not mode.has_target:
            raise InvalidParameter(
                f"model is {mode.name}, which verifies nothing here; ask for auto, or be less strict"
            )
        self._filling = Filling(_asked(wish, mode, is_strict=wishes.strict), suggestions)

    async def whole(self) -> InfillReply | dict[str, Any]:
        if self._wish.n_predict == 0:
            await self._filling.warm()
        else:
            async with aclosing(self._pieces()) as pieces:
                async for _ in pieces:
                    """They are in `_text`."""
        return self._last(self._text)

    @property
    def state(self) -> str:
        return state_of(self._filling.is_verified)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events, none before something is told. An error before that is raised; later it is the last."""
        has_begun = False
        try:
            if self._wish.n_predict == 0:
                await self._filling.warm()
            else:
                async with aclosing(self._pieces()) as pieces:
                    async for piece in pieces:
                        has_begun = True
                        yield event(InfillReply(content=piece, stop=False, index=0))
            yield event(self._last(""))
        except OutriderError as error:
            if not has_begun:
                raise
            yield event(error_reply(error))

    async def _pieces(self) -> AsyncGenerator[str, None]:
        """Text up to the answer's end, or to where the request has it end; then nothing more is asked for."""
        async with aclosing(self._filling.texts()) as texts:
            async for text, is_recalled in texts:
                if piece := self._told(self._indentation.feed(self._stops.feed(text))):
                    yield piece
                if self._is_over(is_recalled=is_recalled):
                    return
        if piece := self._told(self._indentation.feed(self._stops.flush()) + self._indentation.flush()):
            yield piece

    def _told(self, text: str) -> str:
        self._text += text
        return text

    def _is_over(self, *, is_recalled: bool) -> bool:
        """Where time is limited, a line that is known from before is told without waiting for more."""
        if is_recalled:
            self._num_recalled += 1
        limit_ms = self._wish.t_max_predict_ms or 0
        if limit_ms and "\n" in self._text.lstrip():
            self._is_late = (
                self._num_recalled == self._filling.num_recalled and not self._filling.is_whole
                if is_recalled
                else 1000 * (time.monotonic() - self._began_s) >= limit_ms
            )
        if not is_recalled:
            self._began_s = self._began_s or time.monotonic()
        return self._is_late or self._stops.is_hit or self._indentation.is_hit

    def _last(self, content: str) -> InfillReply | dict[str, Any]:
        filling = self._filling
        reports = filling.reports
        num_prompt, num_predicted = len(filling.prompt.ids), filling.num_tokens if self._wish.n_predict != 0 else 0
        reply = InfillReply(
            content=content,
            stop=True,
            stop_type=self._stop_type,
            index=0,
            model=self._mode.name,
            has_new_line="\n" in self._text,
            truncated=filling.prompt.is_cut,
            tokens_evaluated=num_prompt,
            tokens_predicted=num_predicted,
            tokens_cached=num_prompt + num_predicted,
            tokens_recalled=filling.num_recalled,
            timings=_timings(reports, num_predicted - filling.num_recalled),
            system_fingerprint=fingerprint_of([filling.target]),
            x_outrider=Note(
                state=state_of(filling.is_verified),
                provisional=filling.num_provisional,
                drafted=sum(report.num_drafted for report in reports),
                accepted=sum(report.num_accepted for report in reports),
                passes=sum(report.num_passes for report in reports),
            ),
        )
        wanted = self._wish.response_fields
        return reply if wanted is None else _picked(reply, wanted)

    @property
    def _stop_type(self) -> StopType:
        if self._stops.is_hit:
            return "word"
        return "eos" if self._filling.is_whole and not (self._is_late or self._indentation.is_hit) else "limit"


def _asked(wish: InfillRequest, mode: Mode, *, is_strict: bool) -> AskedGap:
    max_tokens = MAX_TOKENS if wish.n_predict is None else wish.n_predict
    if max_tokens < 0:
        max_tokens = mode.max_context
    given = {name: value for name in ("top_k", "top_p", "min_p") if (value := getattr(wish, name)) is not None}
    temperature = wish.temperature or 0.0
    is_drawn = wish.seed in (None, -1)  # -1 is llama.cpp's word for it
    seed = 0 if not temperature else secrets.randbits(53) if is_drawn else (wish.seed or 0) % MAX_SEED
    gap = Gap(
        (wish.input_prefix or "") + (wish.prompt or ""),
        wish.input_suffix or "",
        [(file.filename, file.text) for file in wish.input_extra or []],
    )
    room = mode.max_context - min(max_tokens + SPARE, mode.max_context // 4) - 1
    # Without chance filters change nothing; leaving them out makes answers that are equal known as such.
    params = SamplingParams(temperature, seed=seed, **given) if temperature else SamplingParams()
    return AskedGap(mode, gap, params, max(1, max_tokens), room, is_strict)


def _timings(reports: Sequence[Report], num_predicted: int) -> Timings:
    """What came first is the prompt's: the rest of the time is the answer's."""
    num_cached = sum(report.num_reused for report in reports[:1])
    num_read = sum(report.num_prompt for report in reports[:1]) - num_cached
    prompt_ms = sum(report.first_token_ms for report in reports[:1])
    predicted_ms = sum(report.total_ms for report in reports) - prompt_ms
    return Timings(
        num_cached,
        num_read,
        prompt_ms,
        prompt_ms / num_read if num_read else 0.0,
        1000 * num_read / prompt_ms if prompt_ms else 0.0,
        num_predicted,
        predicted_ms,
        predicted_ms / num_predicted if num_predicted else 0.0,
        1000 * num_predicted / predicted_ms if predicted_ms else 0.0,
    )


def _picked(reply: InfillReply, paths: Sequence[str]) -> dict[str, Any]:
    """The fields that are asked for, each under its path: {"timings/prompt_n": 12}. Those there are none of are not."""
    found: dict[str, Any] = {}
    whole = msgspec.to_builtins(reply)
    for path in paths:
        value = whole
        for name in path.split("/"):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            found[path] = value
    return found
