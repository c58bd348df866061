"""What the REST doors take and give, and how it is read and written: JSON or msgpack, strictly, every field bounded.

Unknown fields, wrong types (a bool is no number) and values out of bounds are refused before anything acts on them.
"""

from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from outrider.choice import MAX_SEED, SamplingParams
from outrider.errors import InvalidParameter, InvalidToken, OutriderError, ProtocolError, WrongContentType
from outrider.wire import MAX_DRAFTS, MAX_LOGPROBS, MAX_POSITION, Logprobs, unpack_ids

__all__ = [
    "JSON",
    "MSGPACK",
    "Alternative",
    "ErrorAnswer",
    "ErrorBody",
    "GenerateAnswer",
    "GenerateRequest",
    "Model",
    "Models",
    "Sampling",
    "State",
    "TokenLogprobs",
    "VerifyAnswer",
    "VerifyRequest",
    "logprobs_of",
    "read",
    "write",
]

JSON = "application/json"
MSGPACK = "application/msgpack"
ID_FIELDS = ("$.tokens[", "$.drafts[", "$.stop_ids[")
MAX_SAID = 200  # characters of a decoder's complaint: it may quote a field's name

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1, description="A token id, below the model's n_vocab.")]
Fingerprint = Annotated[str, Meta(max_length=128, description="Refuse if the verifier's is another; empty: any.")]
NumLogprobs = Annotated[int, Meta(ge=0, le=MAX_LOGPROBS, description="Likeliest alternatives told for each token.")]
T = TypeVar("T")


class Sampling(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How to choose; the default is greedy. The same seed gives the same tokens."""

    temperature: Annotated[float, Meta(ge=0, le=100)] = 0.0
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)] = 0

    def params(self) -> SamplingParams:
        return SamplingParams(self.temperature, self.top_k, self.top_p, self.min_p, self.seed)


class VerifyRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Drafts to check after `tokens`."""

    tokens: Annotated[list[TokenId], Meta(max_length=MAX_POSITION)]
    drafts: Annotated[list[TokenId], Meta(max_length=MAX_DRAFTS)]
    parents: (
        Annotated[
            list[Annotated[int, Meta(ge=-1, lt=MAX_DRAFTS)]],
            Meta(max_length=MAX_DRAFTS, description="A tree: for each draft the index of the one it follows, or -1."),
        ]
        | None
    ) = None
    params: Sampling = Sampling()
    logprobs: NumLogprobs | None = None
    target: Fingerprint = ""
    vocabulary: Fingerprint = ""


class GenerateRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Go on after `tokens`, by the target alone."""

    tokens: Annotated[list[TokenId], Meta(max_length=MAX_POSITION)]
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_POSITION)] = 256
    stop_ids: Annotated[list[TokenId], Meta(max_length=MAX_DRAFTS)] = []
    params: Sampling = Sampling()
    logprobs: NumLogprobs | None = None
    target: Fingerprint = ""
    vocabulary: Fingerprint = ""
    stream: Annotated[bool, Meta(description="Server-sent events as tokens come; false: one object at the end.")] = True


class Alternative(msgspec.Struct, frozen=True):
    id: TokenId
    logprob: float | None  # None: no chance at all


class TokenLogprobs(msgspec.Struct, frozen=True):
    """The target's own natural log-probabilities at one position, before temperature and filters."""

    logprob: float
    top: list[Alternative]


class VerifyAnswer(msgspec.Struct, frozen=True):
    accepted: Annotated[int, Meta(ge=0, description="How many drafts, from the first on, are the target's own choice.")]
    next: Annotated[TokenId, Meta(description="The target's choice after them.")]
    tokens: Annotated[list[TokenId], Meta(description="Both together: what is verified.")]
    target: Annotated[str, Meta(description="Fingerprint of the target's weights.")]
    path: Annotated[list[int], Meta(description="Of a tree: the indices of the accepted drafts.")] | UnsetType = UNSET
    logprobs: list[TokenLogprobs] | UnsetType = UNSET


class GenerateAnswer(msgspec.Struct, frozen=True):
    tokens: list[TokenId]
    finish: Annotated[str, Meta(pattern="^(stop|length)$")]
    target: str
    logprobs: list[TokenLogprobs] | UnsetType = UNSET


class Model(msgspec.Struct, frozen=True):
    name: str
    engine: str
    target: str
    vocabulary: str
    n_vocab: int
    max_context: int


class Models(msgspec.Struct, frozen=True):
    models: list[Model]


class State(msgspec.Struct, frozen=True):
    status: str


class ErrorBody(msgspec.Struct, frozen=True):
    code: str
    message: str
    request_id: str


class ErrorAnswer(msgspec.Struct, frozen=True):
    error: ErrorBody


def read(body: bytes, media_type: str, kind: type[T]) -> T:
    """Raises WrongContentType, ProtocolError, InvalidToken, InvalidParameter; the message quotes no value."""
    media_type = media_type.split(";")[0].strip().lower()
    if media_type not in (JSON, MSGPACK):
        raise WrongContentType(f"a body has to be {JSON} or {MSGPACK}; set Content-Type")
    try:
        return msgspec.json.decode(body, type=kind) if media_type == JSON else msgspec.msgpack.decode(body, type=kind)
    except msgspec.ValidationError as broken:
        raise _invalid(str(broken)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ProtocolError(f"the body is not valid {media_type}; check how it was made") from None


def _invalid(said: str) -> OutriderError:
    kind = InvalidToken if any(field in said for field in ID_FIELDS) else InvalidParameter
    return kind(f"the request does not follow the schema ({said[:MAX_SAID]}); see docs/protocol.md")


def write(answer: msgspec.Struct, media_type: str) -> bytes:
    return msgspec.msgpack.encode(answer) if media_type == MSGPACK else msgspec.json.encode(answer)


def logprobs_of(found: list[Logprobs], count: int | None) -> list[TokenLogprobs] | UnsetType:
    """As the REST doors tell them; unset where none were asked for."""
    if count is None:
        return UNSET
    return [
        TokenLogprobs(
            each.chosen,
            [
                Alternative(token_id, logprob if logprob > float("-inf") else None)
                for token_id, logprob in zip(unpack_ids(each.token_ids), each.logprobs, strict=True)
            ],
        )
        for each in found
    ]
