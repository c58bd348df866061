"""What the endpoint gives: OpenAI's objects, and `x_outrider` beside them."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from edge_runtime.api.schemas import ToolCall

__all__ = [
    "ChatChoice",
    "ChatCompletion",
    "ChatLogprobs",
    "ChatMessageReply",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "Figures",
    "InfillReply",
    "Model",
    "Models",
    "Note",
    "Timings",
    "TokenLogprob",
    "TopLogprob",
    "Usage",
    "event",
]

FinishReason = Literal["stop", "length", "tool_calls"]


class Figures(msgspec.Struct, frozen=True):
    """One answer in numbers; null where nobody knows."""

    tokens: int  # verified
    passes: int  # of the target
    drafted: int
    accepted: int
    retracted: int
    bytes_up: int
    bytes_down: int
    rtt_ms: float | None
    total_ms: float
    energy_j: float | None  # of the whole device meanwhile; told at the end


class Note(msgspec.Struct, frozen=True):
    """What is to be known of a text, or of a whole answer, that OpenAI has no word for."""

    state: Literal["verified", "provisional"] | UnsetType = UNSET
    retracted_from: int | UnsetType = UNSET  # characters of the answer that stay; what came after them is void
    confirmed_to: int | UnsetType = UNSET  # characters of the answer that are verified by now
    seed: int | UnsetType = UNSET  # the answer's, or the first of several; asked with it, the same comes again
    provisional: int | UnsetType = UNSET  # tokens at the end that nobody verified
    drafted: int | UnsetType = UNSET
    accepted: int | UnsetType = UNSET
    passes: int | UnsetType = UNSET  # of the target
    # For who asked to watch:
    by: list[str | None] | UnsetType = UNSET  # of each token of the text: who guessed it; null: the target's own
    frontier: int | UnsetType = UNSET  # tokens of the answer that are verified by now
    ahead: int | UnsetType = UNSET  # guesses ahead of them
    figures: Figures | UnsetType = UNSET


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    content: list[TokenLogprob]
    refusal: None = None


class ChatMessageReply(msgspec.Struct, frozen=True):
    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True):
    index: int
    message: ChatMessageReply
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None
    x_outrider: Note


class ChatCompletion(msgspec.Struct, frozen=True):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None
    x_outrider: Note
    object: Literal["chat.completion"] = "chat.completion"


class CompletionLogprobs(msgspec.Struct, frozen=True):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct, frozen=True):
    index: int
    text: str
    finish_reason: FinishReason
    logprobs: CompletionLogprobs | None
    x_outrider: Note


class Completion(msgspec.Struct, frozen=True):
    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str | None
    x_outrider: Note
    object: Literal["text_completion"] = "text_completion"


class Timings(msgspec.Struct, frozen=True):
    """Of one gap, as llama.cpp names them; nothing is counted that was known from before."""

    cache_n: int  # tokens of the prompt that were in the target's cache
    prompt_n: int  # and those that were read
    prompt_ms: float  # to the first token
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float  # after it
    predicted_per_token_ms: float
    predicted_per_second: float


class InfillReply(msgspec.Struct, frozen=True):
    """What fills a gap, or in a stream a piece of it; with `response_fields`, no more than those."""

    content: str | UnsetType = UNSET
    stop: bool | UnsetType = UNSET  # nothing follows
    stop_type: Literal["eos", "word", "limit"] | UnsetType = UNSET
    index: int | UnsetType = UNSET
    model: str | UnsetType = UNSET
    has_new_line: bool | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET  # the prompt did not fit; some of it was left out
    tokens_evaluated: int | UnsetType = UNSET  # the prompt's
    tokens_predicted: int | UnsetType = UNSET
    tokens_cached: int | UnsetType = UNSET  # both
    tokens_recalled: int | UnsetType = UNSET  # of those predicted: known from an earlier suggestion
    timings: Timings | UnsetType = UNSET
    system_fingerprint: str | UnsetType | None = UNSET
    x_outrider: Note | UnsetType = UNSET


class Model(msgspec.Struct, frozen=True):
    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "outrider"


class Models(msgspec.Struct, frozen=True):
    data: list[Model]
    object: Literal["list"] = "list"


def event(data: Any) -> bytes:
    """A server-sent event."""
    return b"data: %s\n\n" % msgspec.json.encode(data)
