"""The messages between a device and a verifier, and nothing about how they travel.

msgpack arrays with an integer tag, decoded strictly: unknown fields, wrong types and values out of bounds are refused
before anything acts on them. Positions are absolute. Token ids travel as 4 little-endian bytes each, so that the length
of a message tells how many tokens it holds and nothing of which; padding hides that, too (`framing.py`).

    up      Open, Draft, Limit, Cancel
    down    Opened, Verified, Load, Fault
"""

from collections.abc import Iterable
from typing import Annotated, TypeVar

import msgspec
import numpy as np

from outrider.choice import (
    MAX_BIAS,
    MAX_BIASES,
    MAX_PENALTY,
    MAX_REPETITION,
    MAX_SEED,
    MIN_REPETITION,
    SamplingParams,
)
from outrider.constraint import MAX_GRAMMAR, Grammar
from outrider.errors import InvalidParameter, OutriderError, ProtocolError, from_code
from outrider.rejection import REJECTION, Distribution
from outrider.search import MAX_LANES, MAX_LENGTH_PENALTY, SearchParams

__all__ = [
    "MAX_DRAFTS",
    "MAX_LOGPROBS",
    "MAX_MESSAGE_BYTES",
    "STREAM_PATH",
    "SUBPROTOCOL",
    "Cancel",
    "Down",
    "Draft",
    "Fault",
    "Limit",
    "Load",
    "LocalDraft",
    "Logprobs",
    "Open",
    "Opened",
    "Params",
    "Search",
    "Up",
    "Verified",
    "decode_down",
    "decode_up",
    "encode",
    "pack_ids",
    "pack_parents",
    "unpack_ids",
    "unpack_parents",
]

SUBPROTOCOL = "outrider.v1"
STREAM_PATH = "/v1/stream"
MAX_POSITION = 2**24
MAX_SENTENCE = 512
MAX_DRAFTS = 256  # tokens in one Draft
MAX_LOGPROBS = 20  # alternatives told for a position
MAX_MESSAGE_BYTES = 8 * 2**20  # an Open with two million tokens; every other message is far smaller

Position = Annotated[int, msgspec.Meta(ge=0, le=MAX_POSITION)]
Epoch = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=128)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-MAX_PENALTY, le=MAX_PENALTY)]
Bias = Annotated[float, msgspec.Meta(ge=-MAX_BIAS, le=MAX_BIAS)]
FewIds = Annotated[bytes, msgspec.Meta(max_length=4 * MAX_DRAFTS)]


class Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Base of all messages; the subclasses' tags are part of the protocol."""

    def __repr__(self) -> str:
        """Of lists the sizes and not the contents: what a log or a traceback shows tells no token."""
        shown = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            shown.append(f"{name}=<{len(value)}>" if isinstance(value, bytes | list) else f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


class Params(Message, frozen=True):
    """SamplingParams as they travel."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)]
    top_k: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)]
    min_p: Probability
    seed: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEED)]
    repetition_penalty: Annotated[float, msgspec.Meta(ge=MIN_REPETITION, le=MAX_REPETITION)] = 1.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    bias_ids: Annotated[bytes, msgspec.Meta(max_length=4 * MAX_BIASES)] = b""
    biases: Annotated[list[Bias], msgspec.Meta(max_length=MAX_BIASES)] = []  # one an id
    min_tokens: Position = 0
    grammar_kind: Annotated[str, msgspec.Meta(max_length=16)] = ""  # "json_schema", "lark", "regex"; "" for none
    grammar: Annotated[str, msgspec.Meta(max_length=MAX_GRAMMAR)] = ""
    num_prompt: Position = 0  # tokens of the list that are the prompt; the rest is the answer
    acceptance: Annotated[str, msgspec.Meta(max_length=16)] = "coupled"  # or "rejection", refused by a service

    @classmethod
    def of(cls, params: SamplingParams) -> "Params":
        grammar = params.grammar
        return cls(
            params.temperature,
            params.top_k,
            params.top_p,
            params.min_p,
            params.seed,
            params.repetition_penalty,
            params.frequency_penalty,
            params.presence_penalty,
            pack_ids(token_id for token_id, _ in params.logit_bias),
            [bias for _, bias in params.logit_bias],
            params.min_tokens,
            grammar.kind if grammar else "",
            grammar.text if grammar else "",
            params.num_prompt,
            params.acceptance,
        )

    def sampling(self) -> SamplingParams:
        """Raises InvalidParameter for what bounds do not tell, ProtocolError for ids and biases that do not pair up."""
        ids = unpack_ids(self.bias_ids)
        if len(ids) != len(self.biases):
            raise ProtocolError(f"{len(ids)} ids came with {len(self.biases)} biases; check both sides' versions")
        return SamplingParams(
            self.temperature,
            self.top_k,
            self.top_p,
            self.min_p,
            self.seed,
            self.repetition_penalty,
            self.frequency_penalty,
            self.presence_penalty,
            tuple(zip(ids, self.biases, strict=True)),
            self.min_tokens,
            Grammar(self.grammar_kind, self.grammar) if self.grammar_kind or self.grammar else None,
            self.num_prompt,
            self.acceptance,
        )


class Search(Message, frozen=True):
    """SearchParams as they travel."""

    num_beams: Annotated[int, msgspec.Meta(ge=1, le=MAX_LANES)] = 1
    length_penalty: Annotated[float, msgspec.Meta(ge=-MAX_LENGTH_PENALTY, le=MAX_LENGTH_PENALTY)] = 1.0
    best_of: Annotated[int, msgspec.Meta(ge=1, le=MAX_LANES)] = 1

    @classmethod
    def of(cls, params: SearchParams) -> "Search | None":
        return None if params.num_lanes == 1 else cls(params.num_beams, params.length_penalty, params.best_of)

    def params(self) -> SearchParams:
        """Raises InvalidParameter for what bounds do not tell."""
        return SearchParams(self.num_beams, self.length_penalty, self.best_of)


class Open(Message, tag=1, frozen=True):
    """Begin, or go on after anything was lost: the device's whole token list, verified tokens included."""

    vocabulary: Name  # tokenizer fingerprint the device drafts in; "" from a device that never drafts
    target: Name  # the target's fingerprint, once known from an earlier Opened; "" before
    params: Params
    limit: Position  # the list ends at this length
    patience_ms: Annotated[int, msgspec.Meta(ge=-1, le=60_000)]  # wait so long for drafts; 0 never, -1 always
    stop_ids: FewIds
    token_ids: bytes
    num_logprobs: Annotated[int, msgspec.Meta(ge=-1, le=MAX_LOGPROBS)] = -1  # per token; 0 its own alone, -1 none
    is_padded: bool = True  # whether the verifier's frames are to be of one size
    wants_signature: bool = False  # of what was chosen, at the end
    self_drafts: bool = False  # where no drafts of the device wait, the verifier may make its own
    search: Search | None = None  # for more than one list; it takes no drafts and is not signed


class Draft(Message, tag=2, frozen=True):
    """Guesses for the positions from `start` on. No ids at all: nothing to guess, take one step alone."""

    epoch: Epoch
    start: Position
    token_ids: FewIds
    confidences: Annotated[bytes, msgspec.Meta(max_length=MAX_DRAFTS)] = b""  # per token, probability * 255
    # A tree: for each token the index here of the one it follows, 0xFFFF at `start`; 2 bytes each. Empty: a chain.
    parents: Annotated[bytes, msgspec.Meta(max_length=2 * MAX_DRAFTS)] = b""


class LocalDraft(Draft, frozen=True):
    """A Draft with the distributions that its tokens were drawn from, None for a certain one. It does not travel: only
    a link within the process carries it."""

    distributions: list[Distribution | None] = []


class Limit(Message, tag=3, frozen=True):
    """End the list at another length than Open said."""

    limit: Position


class Cancel(Message, tag=4, frozen=True):
    """Stop; nothing more will be read."""


class Opened(Message, tag=11, frozen=True):
    session: Name
    target: Name  # fingerprint of the target's weights
    vocabulary: Name  # fingerprint of its tokenizer
    n_vocab: Position
    max_context: Position
    limit: Position  # the limit in force: the context may be shorter than was asked
    num_reused: Position  # tokens of the list that were in the verifier's cache
    public_key: Annotated[bytes, msgspec.Meta(max_length=32)] = b""  # Ed25519; empty: no signature will come


class Logprobs(Message, frozen=True):
    """The target's own log-probabilities at one position, before temperature and filters."""

    chosen: float
    token_ids: Annotated[bytes, msgspec.Meta(max_length=4 * MAX_LOGPROBS)] = b""  # the likeliest, best first
    logprobs: Annotated[list[float], msgspec.Meta(max_length=MAX_LOGPROBS)] = []


class Verified(Message, tag=12, frozen=True):
    """The target's own tokens for the positions from `start` on; the first `num_accepted` were the device's drafts."""

    epoch: Epoch  # the latest epoch whose drafts this pass took into account
    start: Position
    token_ids: FewIds
    num_accepted: Position
    num_drafted: Position  # drafts this pass looked at
    finish: Annotated[str, msgspec.Meta(max_length=16)] | None = None  # "stop", "length"
    logprobs: Annotated[list[Logprobs], msgspec.Meta(max_length=MAX_DRAFTS)] = []  # one a token, where asked for
    signature: Annotated[bytes, msgspec.Meta(max_length=64)] = b""  # with `finish`, of `outrider.receipt`'s statement


class Load(Message, tag=14, frozen=True):
    """What is in force from now on, because the verifier is busy or the drafts keep missing."""

    patience_ms: Annotated[int, msgspec.Meta(ge=-1, le=60_000)]
    max_drafts: Position  # more a pass would wait in vain


class Fault(Message, tag=13, frozen=True):
    """The session is over. `code` as in `outrider.errors`; with `may_retry` an Open of the list goes on elsewhere."""

    code: Name
    message: Annotated[str, msgspec.Meta(max_length=MAX_SENTENCE)]
    may_retry: bool = False
    retry_after_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 0

    @classmethod
    def of(cls, error: OutriderError) -> "Fault":
        return cls(error.code, str(error)[:MAX_SENTENCE], error.may_retry, error.retry_after_ms)

    def error(self) -> OutriderError:
        """The inverse of `of`."""
        error = from_code(self.code, self.message)
        error.may_retry, error.retry_after_ms = self.may_retry, self.retry_after_ms
        return error


Up = Open | Draft | Limit | Cancel
Down = Opened | Verified | Load | Fault

T = TypeVar("T")


def _stays_here(thing: object) -> object:
    """What an encoder and a decoder make of what only a link within the process carries."""
    raise InvalidParameter("acceptance by rejection needs target and drafter in one process; leave it out here")


_encoder = msgspec.msgpack.Encoder(enc_hook=_stays_here)
_up_decoder: msgspec.msgpack.Decoder[Up] = msgspec.msgpack.Decoder(Up)
_down_decoder: msgspec.msgpack.Decoder[Down] = msgspec.msgpack.Decoder(Down)


def encode(message: Up | Down) -> bytes:
    return _encoder.encode(message)


def decode_up(data: bytes) -> Up:
    """What a device said. Raises ProtocolError for anything that is not exactly one valid message, InvalidParameter
    for an acceptance that needs what does not travel."""
    message = _decode(_up_decoder, data)
    if isinstance(message, Open) and message.params.acceptance == REJECTION:
        _stays_here(message)
    return message


def decode_down(data: bytes) -> Down:
    """What a verifier said. Raises ProtocolError for anything that is not exactly one valid message."""
    return _decode(_down_decoder, data)


def _decode(decoder: "msgspec.msgpack.Decoder[T]", data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"a message does not follow {SUBPROTOCOL} ({error}); check both sides' versions") from None


def pack_ids(token_ids: Iterable[int]) -> bytes:
    """Token ids as they travel: 4 little-endian bytes each."""
    return np.fromiter(token_ids, dtype="<u4").tobytes()


def unpack_ids(data: bytes) -> list[int]:
    """The inverse of `pack_ids`. Raises ProtocolError when bytes are left over."""
    if len(data) % 4:
        raise ProtocolError(f"token ids take 4 bytes each, but {len(data)} bytes came; check both sides' versions")
    return np.frombuffer(data, dtype="<u4").tolist()  # type: ignore[no-any-return]


def pack_parents(parents: Iterable[int]) -> bytes:
    """A tree's parents as they travel: 2 little-endian bytes each, -1 as 0xFFFF."""
    return np.fromiter(parents, dtype="<i2").tobytes()


def unpack_parents(data: bytes, num_drafts: int) -> list[int] | None:
    """The inverse of `pack_parents`; None for a chain. Raises ProtocolError when they are no tree of `num_drafts`."""
    if not data:
        return None
    parents: list[int] = np.frombuffer(data[: len(data) // 2 * 2], dtype="<i2").tolist()
    if 2 * num_drafts != len(data) or any(not -1 <= parent < row for row, parent in enumerate(parents)):
        raise ProtocolError("the parents of a draft are no tree; name each token's parent, earlier than itself")
    return parents
