"""The messages: what a device says, and what a verifier answers."""

from typing import Annotated

import msgspec

from outrider.errors import OutriderError, from_code
from outrider.rejection import Distribution
from outrider.wire.fields import MAX_DRAFTS, MAX_LOGPROBS, MAX_SENTENCE, Epoch, FewIds, Message, Name, Position
from outrider.wire.params import Params, Search

__all__ = [
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
    "Up",
    "Verified",
]


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

    distributions: list[Distribution | None] = msgspec.field(default_factory=list)


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
    logprobs: Annotated[list[float], msgspec.Meta(max_length=MAX_LOGPROBS)] = msgspec.field(default_factory=list)


class Verified(Message, tag=12, frozen=True):
    """The target's own tokens for the positions from `start` on; the first `num_accepted` were the device's drafts."""

    epoch: Epoch  # the latest epoch whose drafts this pass took into account
    start: Position
    token_ids: FewIds
    num_accepted: Position
    num_drafted: Position  # drafts this pass looked at
    finish: Annotated[str, msgspec.Meta(max_length=16)] | None = None  # "stop", "length"
    logprobs: Annotated[list[Logprobs], msgspec.Meta(max_length=MAX_DRAFTS)] = msgspec.field(
        default_factory=list
    )  # one a token, where asked for
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
