"""One gap filled: what is known of the answer from before, then what the target adds to it. Knows no HTTP.

A word that is half typed is not in the prompt: the answer has to begin with it. Only tokens that fit are allowed until
it is written, one at a time; then the target goes on as it likes. So each key of a word has the same prompt, which is
cached, and the word is cut into tokens as the model knows it.
"""

import functools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from edge_runtime.api.asking import Asked
from edge_runtime.api.modes import Mode
from edge_runtime.api.suggestions import Known, Suggestions
from edge_runtime.api.telling import Ended, Part
from edge_runtime.events import Standing
from edge_runtime.options import Options, TokenIds
from edge_runtime.report import Report
from outrider.choice import SamplingParams
from outrider.constraint import Grammar, check_grammar
from outrider.errors import InvalidParameter, MissingExtra
from outrider.infill import Gap, GapPrompt, gap_prompt, infill_stop_ids
from outrider.tokens import StreamDecoder, TextCodec

__all__ = ["AskedGap", "Filling"]


@dataclass(frozen=True, slots=True)
class AskedGap:
    """`room`: tokens that the prompt may have; `is_strict`: verified text or an error."""

    mode: Mode
    gap: Gap
    params: SamplingParams
    max_tokens: int
    room: int
    is_strict: bool = False


@dataclass(slots=True)
class Filling:
    """Of one request; its figures are complete when `texts` is over, or was left."""

    asked: AskedGap
    suggestions: Suggestions
    prompt: GapPrompt = field(init=False)
    num_recalled: int = 0  # tokens that were known
    is_whole: bool = False  # the model ended it
    is_verified: bool = True
    reports: list[Report] = field(default_factory=list)  # of what was asked for it, one after the other
    target: str = ""  # fingerprint of the weights that answered
    _token_ids: list[int] = field(default_factory=list)  # the answer's

    def __post_init__(self) -> None:
        self.prompt = self._prompt(has_stub=self.asked.mode.has_target and _can_constrain())

    @property
    def num_provisional(self) -> int:
        """Tokens that nobody verified: of what was asked last, as one that began the answer so was given up."""
        return self.reports[-1].num_provisional if self.reports else 0

    @property
    def num_tokens(self) -> int:
        return len(self._token_ids) + self.num_provisional

    async def texts(self) -> AsyncGenerator[tuple[str, bool], None]:
        """What comes behind the cursor, piece by piece; with each, whether it was known from before.

        Raises what `Asked.answers` does.
        """
        text = _AfterStub(self.asked.mode.runtime.codec, self.prompt.stub)
        try:
            for token_id in self._recall():
                yield text.feed(token_id), True
            while text.missing and self._num_left:
                chosen = await self._next_of(text.missing)
                if chosen is not None:
                    yield self._add(chosen, text), False
                    continue
                # Nobody who verifies is heard, or can be told what to begin with.
                self.prompt = self._prompt(has_stub=False)
                self._token_ids, self.num_recalled, self.is_verified = [], 0, True
                text = _AfterStub(self.asked.mode.runtime.codec, "")
            async with aclosing(self._ask(self.asked.params, self._num_left)) as parts:
                async for part in parts:
                    self.is_verified = self.is_verified and part.is_verified
                    if part.is_verified:
                        for token in part.tokens:
                            yield self._add(token.token_id, text), False
                    else:
                        yield part.text, False
            yield text.flush(), False
        finally:
            self._keep()

    async def warm(self) -> None:
        """Have the prompt read, and nothing answered."""
        async with aclosing(self._ask(self.asked.params, 1)) as parts:
            async for _ in parts:
                """It is read when this comes."""

    @property
    def _num_left(self) -> int:
        return 0 if self.is_whole else self.asked.max_tokens - len(self._token_ids)

    @property
    def _is_kept(self) -> bool:
        return self.asked.params.temperature == 0 and self.asked.mode.has_target

    def _prompt(self, *, has_stub: bool) -> GapPrompt:
        return gap_prompt(self.asked.mode.runtime.codec, self.asked.gap, self.asked.room, has_stub=has_stub)

    def _recall(self) -> list[int]:
        known = self.suggestions.find(self.prompt.ids, self.prompt.stub.encode()) if self._is_kept else Known()
        recalled = list(known.token_ids[: self.asked.max_tokens])
        self._token_ids = [*recalled]
        self.num_recalled = len(recalled)
        self.is_whole = known.is_whole and len(recalled) == len(known.token_ids)
        self.target = self.suggestions.target
        return recalled

    def _keep(self) -> None:
        if self._is_kept and self.is_verified and len(self._token_ids) > self.num_recalled:
            stub = self.prompt.stub.encode()
            self.suggestions.keep(self.target, self.prompt.ids, stub, self._token_ids, is_whole=self.is_whole)

    def _add(self, token_id: int, text: "_AfterStub") -> str:
        self._token_ids.append(token_id)
        return text.feed(token_id)

    async def _next_of(self, missing: str) -> int | None:
        """The target's choice among the tokens that the answer may go on with, where it has to say what is missing."""
        written = "".join(f"\\x{{{ord(character):X}}}" for character in missing)
        params = replace(self.asked.params, grammar=Grammar("regex", written + "(?s:.*)"))
        try:
            async with aclosing(self._ask(params, 1)) as parts:
                found = [token.token_id async for part in parts for token in part.tokens]
        except (MissingExtra, InvalidParameter):  # a verifier that keeps to no grammars
            return None
        return found[0] if found else None

    async def _ask(self, params: SamplingParams, max_tokens: int) -> AsyncGenerator[Part, None]:
        if max_tokens < 1:
            return
        mode = self.asked.mode
        options: Options = {
            "max_tokens": max_tokens,
            "stop_ids": infill_stop_ids(mode.runtime.codec),
            "is_strict": self.asked.is_strict,
            "is_kept": False,  # a suggestion is no answer
            "is_watched": True,  # so that its report is at hand when the answer is left early
        }
        ids = TokenIds([*self.prompt.ids, *self._token_ids])
        asked = Asked(mode, [ids], 1, params, options, shows_provisional=False)
        async with aclosing(asked.answers()) as telling:
            async for _, told in telling:
                if isinstance(told, Part):
                    yield told
                elif isinstance(told, Standing | Ended):
                    if not any(report is told.report for report in self.reports):
                        self.reports.append(told.report)
                    self.target = told.report.target
                    self.is_whole = isinstance(told, Ended) and told.reason == "stop"
                    # The end may be the drafter's where nothing was said after what is verified.
                    self.is_verified = self.is_verified and (isinstance(told, Standing) or told.is_verified)


class _AfterStub:
    """Text of tokens, less the stub it begins with."""

    def __init__(self, codec: TextCodec, stub: str) -> None:
        self._decoder = StreamDecoder(codec)
        self.missing = stub

    def feed(self, token_id: int) -> str:
        return self._after(self._decoder.feed(token_id))

    def flush(self) -> str:
        return self._after(self._decoder.flush())

    def _after(self, text: str) -> str:
        told, self.missing = text[len(self.missing) :], self.missing[len(text) :]
        return told


@functools.cache
def _can_constrain() -> bool:
    """Whether the library for grammars is installed."""
    try:
        check_grammar(Grammar("regex", "x"))
    except MissingExtra:
        return False
    return True
