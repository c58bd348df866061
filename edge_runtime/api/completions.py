"""/v1/completions: what is told of answers, as OpenAI's chunks or as one object."""

from collections.abc import Sequence
from typing import Any

from edge_runtime.api.logprobs import completion_logprobs
from edge_runtime.api.replies import Completion, CompletionChoice, FinishReason, Note
from edge_runtime.api.telling import Confirmed, Ended, Part, Telling
from edge_runtime.api.writer import Header, note_of, note_of_part, note_of_step, state_of, usage_of
from edge_runtime.events import Retracted, Standing, Token
from outrider.tokens import TextCodec

__all__ = ["CompletionWriter"]


class CompletionWriter:
    """Of one request."""

    chunk_kind = "text_completion"

    def __init__(self, codec: TextCodec, *, has_logprobs: bool) -> None:
        self._codec = codec
        self._has_logprobs = has_logprobs
        self._lengths: dict[int, int] = {}  # characters told so far

    def opening(self, index: int) -> None:
        """There is nothing to say before the first text."""

    def choices(self, index: int, told: Telling) -> list[tuple[dict[str, Any], Note]]:
        """The chunks' choices and notes that something told becomes."""
        if isinstance(told, Retracted):
            self._lengths[index] = told.num_chars
            return [(self._choice(index, ""), Note(state="provisional", retracted_from=told.num_chars))]
        if isinstance(told, Confirmed):
            return [(self._choice(index, ""), Note(state="verified", confirmed_to=told.num_chars))]
        if isinstance(told, Standing):
            return [(self._choice(index, ""), note_of_step(told))]
        if isinstance(told, Ended):
            return [(self._choice(index, "", _reason(told)), note_of(told))]
        choice = self._choice(index, told.text, tokens=told.tokens)
        self._lengths[index] = self._lengths.get(index, 0) + len(told.text)
        return [(choice, note_of_part(told))]

    def whole(self, header: Header, answers: Sequence[Sequence[Telling]], seed: int) -> Completion:
        choices, ends = [], []
        for index, telling in enumerate(answers):
            text, tokens = "", list[Token]()
            for told in telling:
                if isinstance(told, Part):
                    text, tokens = text + told.text, [*tokens, *told.tokens]
                elif isinstance(told, Retracted):
                    text = text[: told.num_chars]
                elif isinstance(told, Ended):
                    logprobs = completion_logprobs(self._codec, tokens, 0) if self._has_logprobs else None
                    note = Note(state=state_of(told.is_verified))
                    choices.append(CompletionChoice(index, text, _reason(told), logprobs, note))
                    ends.append(told)
        return Completion(
            **header.of_whole(ends),
            choices=choices,
            usage=usage_of(ends, header.n),
            x_outrider=note_of(*ends, seed=seed),
        )

    def _choice(self, index: int, text: str, reason: str | None = None, tokens: Sequence[Token] = ()) -> dict[str, Any]:
        offset = self._lengths.get(index, 0)
        logprobs = completion_logprobs(self._codec, tokens, offset) if self._has_logprobs and tokens else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _reason(ended: Ended) -> FinishReason:
    return "stop" if ended.reason == "stop" else "length"
