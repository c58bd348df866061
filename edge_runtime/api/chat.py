"""/v1/chat/completions: what is told of answers, as OpenAI's chunks or as one object."""

from collections.abc import Sequence
from typing import Any

import msgspec

from edge_runtime.api.logprobs import chat_logprobs
from edge_runtime.api.replies import ChatChoice, ChatCompletion, ChatMessageReply, FinishReason, Note
from edge_runtime.api.schemas import ToolCall
from edge_runtime.api.telling import Confirmed, Ended, Part, Telling
from edge_runtime.api.tool_calls import CallSplitter
from edge_runtime.api.writer import Header, note_of, note_of_part, note_of_step, state_of, usage_of
from edge_runtime.events import Retracted, Standing, Token
from outrider.tokens import TextCodec

__all__ = ["ChatWriter"]


class ChatWriter:
    """Of one request. With `splits_calls` calls are told as calls."""

    chunk_kind = "chat.completion.chunk"

    def __init__(
        self, codec: TextCodec, *, has_logprobs: bool, splits_calls: bool = False, takes_one_call: bool = False
    ) -> None:
        self._codec = codec
        self._has_logprobs = has_logprobs
        self._splits_calls = splits_calls
        self._takes_one_call = takes_one_call
        self._splitters: dict[int, CallSplitter] = {}

    def opening(self, index: int) -> dict[str, Any]:
        return self._choice(index, {"role": "assistant", "content": ""})

    def choices(self, index: int, told: Telling) -> list[tuple[dict[str, Any], Note]]:
        """The chunks' choices and notes that something told becomes."""
        if isinstance(told, Retracted):
            return [(self._choice(index, {}), Note(state="provisional", retracted_from=told.num_chars))]
        if isinstance(told, Confirmed):
            return [(self._choice(index, {}), Note(state="verified", confirmed_to=told.num_chars))]
        if isinstance(told, Standing):
            return [(self._choice(index, {}), note_of_step(told))]
        if isinstance(told, Ended):
            rest = self._splitter(index).flush() if self._splits_calls else ""
            note = Note(state=state_of(told.is_verified))
            before = [(self._choice(index, {"content": rest}), note)] if rest else []
            return [*before, (self._choice(index, {}, self._reason(index, told)), note_of(told))]
        note = note_of_part(told)
        content, calls = self._split(index, told.text)
        found = []
        if content or told.tokens:
            found.append((self._choice(index, {"content": content}, tokens=told.tokens), note))
        for number, call in enumerate(calls, self._splitter(index).num_calls - len(calls)):
            delta = {"tool_calls": [{"index": number, **msgspec.to_builtins(call)}]}
            found.append((self._choice(index, delta), note))
        return found

    def whole(self, header: Header, answers: Sequence[Sequence[Telling]], seed: int) -> ChatCompletion:
        choices, ends = [], []
        for index, telling in enumerate(answers):
            text, calls, tokens = "", list[ToolCall](), list[Token]()
            for told in telling:
                if isinstance(told, Part):
                    content, more = self._split(index, told.text)
                    text, calls, tokens = text + content, calls + more, [*tokens, *told.tokens]
                elif isinstance(told, Retracted):
                    text = text[: told.num_chars]
                elif isinstance(told, Ended):
                    text += self._splitter(index).flush() if self._splits_calls else ""
                    message = ChatMessageReply(text or (None if calls else ""), tool_calls=calls or msgspec.UNSET)
                    logprobs = chat_logprobs(self._codec, tokens) if self._has_logprobs else None
                    note = Note(state=state_of(told.is_verified))
                    choices.append(ChatChoice(index, message, self._reason(index, told), logprobs, note))
                    ends.append(told)
        return ChatCompletion(
            **header.of_whole(ends),
            choices=choices,
            usage=usage_of(ends, header.n),
            x_outrider=note_of(*ends, seed=seed),
        )

    def _choice(
        self, index: int, delta: dict[str, Any], reason: str | None = None, tokens: Sequence[Token] = ()
    ) -> dict[str, Any]:
        logprobs = chat_logprobs(self._codec, tokens) if self._has_logprobs and tokens else None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _split(self, index: int, text: str) -> tuple[str, list[ToolCall]]:
        return self._splitter(index).feed(text) if self._splits_calls else (text, [])

    def _splitter(self, index: int) -> CallSplitter:
        if index not in self._splitters:
            self._splitters[index] = CallSplitter(takes_one=self._takes_one_call)
        return self._splitters[index]

    def _reason(self, index: int, ended: Ended) -> FinishReason:
        if ended.reason == "stop":
            return "tool_calls" if self._splits_calls and self._splitter(index).num_calls else "stop"
        return "length"
