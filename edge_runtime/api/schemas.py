"""What the endpoint takes: OpenAI's fields, bounded; some are taken and have no effect, unknown ones are refused."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from cloud_verifier.schemas import JSON, MAX_SAID
from edge_runtime.options import LIMIT, MAX_ANSWERS
from outrider.choice import MAX_BIASES
from outrider.errors import InvalidParameter, ProtocolError, WrongContentType
from outrider.stops import MAX_STOPS
from outrider.wire import MAX_LOGPROBS, MAX_POSITION

__all__ = [
    "ChatMessage",
    "ChatRequest",
    "CompletionRequest",
    "EmbeddingRequest",
    "InfillRequest",
    "LinkWish",
    "NamedTool",
    "Request",
    "ResponseFormat",
    "Tool",
    "ToolCall",
    "ToolCallFunction",
    "read",
]

T = TypeVar("T")
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
NumTokens = Annotated[int, Meta(ge=1, le=LIMIT)]
NumLogprobs = Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)]
Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
Words = Annotated[list[str], Meta(max_length=MAX_STOPS)]
Ignored = Annotated[Any, Meta(description="Taken, and without effect.")]


class Wishes(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Outrider's own: what to do about text that no target has verified."""

    strict: Annotated[bool, Meta(description="Verified text only; without a verifier an error.")] = False
    watch: Annotated[
        bool, Meta(description="In streams, say of each token who guessed it, and of each step where it led.")
    ] = False
    provisional: Annotated[bool, Meta(description="Show provisional text at once; it may be taken back.")] = False


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class Request(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What both kinds of completion have in common. null is as if the field were not there."""

    model: Annotated[str, Meta(max_length=256, description="auto, hybrid, local or cloud.")]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_ANSWERS)] | None = None
    max_tokens: NumTokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    logit_bias: (
        Annotated[
            dict[Annotated[str, Meta(pattern="^[0-9]{1,10}$")], Annotated[float, Meta(ge=-100, le=100)]],
            Meta(max_length=MAX_BIASES),
        ]
        | None
    ) = None
    stop: str | Words | None = None
    x_outrider: Wishes | None = None
    user: Ignored = None


class LinkWish(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    is_cut: bool


class TextPart(msgspec.Struct, frozen=True):
    type: Literal["text"]
    text: str


class ToolCallFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    id: str
    function: ToolCallFunction
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, frozen=True):
    """Other fields, which answers carry and clients send back, are passed over."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class JsonSchema(msgspec.Struct, frozen=True):
    name: Name
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: Ignored = None


class ResponseFormat(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Function(msgspec.Struct, frozen=True, omit_defaults=True):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Ignored = None


class Tool(msgspec.Struct, frozen=True):
    type: Literal["function"]
    function: Function


class ToolName(msgspec.Struct, frozen=True):
    name: Name


class NamedTool(msgspec.Struct, frozen=True):
    function: ToolName
    type: Literal["function"]


class ChatRequest(Request, frozen=True, kw_only=True):
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: NumTokens | None = None
    logprobs: bool | None = None
    top_logprobs: NumLogprobs | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    metadata: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    reasoning_effort: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None
    verbosity: Ignored = None


class CompletionRequest(Request, frozen=True, kw_only=True):
    prompt: (
        str
        | Annotated[
            list[str | TokenId | Annotated[list[TokenId], Meta(max_length=MAX_POSITION)]],
            Meta(min_length=1, max_length=MAX_POSITION, description="Texts, ids, or lists of ids."),
        ]
    )
    suffix: str | None = None
    logprobs: NumLogprobs | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=MAX_ANSWERS)] | None = None


class OtherFile(msgspec.Struct, frozen=True):
    """Other fields, such as when it was opened, are passed over."""

    text: str
    filename: Annotated[str, Meta(max_length=4096)] = "file"


class InfillRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """As llama.cpp has it. The text before the cursor is `input_prefix` and `prompt` together."""

    input_prefix: str | None = None
    input_suffix: str | None = None
    input_extra: Annotated[list[OtherFile], Meta(max_length=256, description="Other files, the best last.")] | None = (
        None
    )
    prompt: str | None = None
    n_predict: Annotated[int, Meta(ge=-1, le=LIMIT, description="Tokens; 0: read the prompt, say nothing.")] | None = (
        None
    )
    n_indent: Annotated[int, Meta(ge=0, le=1024, description="End before a line that is indented less.")] | None = None
    t_max_predict_ms: (
        Annotated[int, Meta(ge=0, le=2**31 - 1, description="End after so long, once a line is whole; 0: never.")]
        | None
    ) = None
    stop: str | Words | None = None
    stream: bool | None = None
    response_fields: Annotated[list[str], Meta(max_length=64, description="Give these alone, by path.")] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2, description="0 where it is not said.")] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1, description="-1, or none: drawn.")] | None = None
    model: Annotated[str, Meta(max_length=256, description="auto where it is not said.")] | None = None
    x_outrider: Wishes | None = None
    cache_prompt: Ignored = None
    id_slot: Ignored = None
    lora: Ignored = None
    samplers: Ignored = None
    t_max_prompt_ms: Ignored = None


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """Whatever is asked; there are none here."""


def read(body: bytes, media_type: str, kind: type[T]) -> T:
    """Raises WrongContentType, ProtocolError, InvalidParameter."""
    if media_type.split(";")[0].strip().lower() != JSON:
        raise WrongContentType(f"a body has to be {JSON}; set Content-Type")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as broken:
        raise InvalidParameter(_said(str(broken))) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ProtocolError(f"the body is not valid {JSON}; check how it was made") from None


def _said(broken: str) -> str:
    """The decoder's complaint, beginning with the field: "temperature: Expected `float`, got `str`"."""
    complaint, _, path = broken[:MAX_SAID].partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    place = f"{field}: " if field else ""
    return f"{place}{complaint[:1].lower()}{complaint[1:]}; see docs/api.md"
