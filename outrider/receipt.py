"""Evidence of a generation: what the verifier signs, and the receipt that a device keeps of it.

The verifier signs a statement: after a context with this hash, this target with these parameters chose these tokens. It
is JSON, written the one way `to_sign` does, so that both sides write the same bytes; a receipt holds those very bytes,
and everything else in it is the device's own word. Knows no link and no key files.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from outrider.choice import SamplingParams
from outrider.errors import InvalidReceipt, MissingExtra
from outrider.wire import pack_ids

__all__ = [
    "DOMAIN",
    "Counts",
    "Energy",
    "Models",
    "Receipt",
    "Run",
    "Statement",
    "Times",
    "check",
    "key_name",
    "state",
    "to_sign",
]

DOMAIN = b"outrider.receipt.v1\n"  # before the statement, so that the signature means nothing elsewhere
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what a receipt is made of."""


class Statement(Part, frozen=True):
    target: str  # fingerprint of the weights
    vocabulary: str  # fingerprint of the tokenizer
    params: dict[str, Any]  # of the choice; those that are not named have their defaults
    start: Count  # position of the first token
    context_sha256: str  # of the tokens before it, 4 little-endian bytes each
    token_ids: list[TokenId]
    finish: str


class Models(Part, frozen=True):
    target: str  # fingerprint
    drafters: dict[str, str]  # name -> fingerprint of those that were used; "" for one without weights


class Counts(Part, frozen=True):
    prompt: Count
    tokens: Count
    drafted: Count  # drafts that the verifier looked at
    accepted: Count
    corrected: Count  # tokens that are the target's own: in place of a wrong draft, or where there was none
    provisional: Count  # tokens that the target has not seen
    retracted: Count  # tokens that were shown and taken back


class Run(Part, frozen=True):
    """Tokens in a row that came the same way."""

    by: str  # a drafter's name, or "target"
    count: Annotated[int, msgspec.Meta(ge=1)]
    is_verified: bool = True


class Times(Part, frozen=True):
    first_token_ms: float
    total_ms: float
    finished_s: float  # since 1970, by the device's clock


class Energy(Part, frozen=True):
    joules: float | None  # of the whole device meanwhile
    source: Literal["rapl", "battery", "unknown"]


class Receipt(Part, frozen=True):
    signed: msgspec.Raw  # a Statement, to the byte
    public_key: str | None  # Ed25519, hexadecimal; None: nobody signed
    signature: str | None
    models: Models
    counts: Counts
    provenance: list[Run]  # of the answer's tokens, from the left
    bytes_up: Count
    bytes_down: Count
    times: Times
    energy: Energy
    earlier_ids: list[TokenId] = []  # tokens before the statement's: verified in sessions that broke off
    format: Literal["outrider.receipt.v1"] = "outrider.receipt.v1"

    @property
    def statement(self) -> Statement:
        return msgspec.json.decode(self.signed, type=Statement)


def state(
    target: str,
    vocabulary: str,
    params: SamplingParams,
    context_ids: Sequence[int],
    token_ids: Sequence[int],
    finish: str,
) -> Statement:
    """The statement of one verifier session: it was opened with `context_ids` and went on with `token_ids`."""
    defaults = msgspec.to_builtins(SamplingParams(), str_keys=True)
    exact = msgspec.convert(msgspec.to_builtins(params), SamplingParams)  # 1 becomes 1.0
    named = {
        name: value for name, value in msgspec.to_builtins(exact, str_keys=True).items() if value != defaults[name]
    }
    digest = hashlib.sha256(pack_ids(context_ids)).hexdigest()
    return Statement(target, vocabulary, named, len(context_ids), digest, list(token_ids), finish)


def to_sign(statement: Statement) -> bytes:
    """A statement as its signer and its readers write it: JSON without spaces, names sorted."""
    return msgspec.json.encode(statement, order="sorted")


def check(data: bytes, key: str | None = None) -> Receipt:
    """The receipt in a file's bytes. Raises InvalidReceipt for one that is not what a verifier signed.

    `key`: the only public key to accept, as 64 hexadecimal digits; None accepts any, and proves only that whoever
    holds the receipt's key signed it. Raises MissingExtra without the library for signatures.
    """
    try:
        receipt = msgspec.json.decode(data, type=Receipt)
        statement = receipt.statement
        is_canonical = to_sign(statement) == bytes(receipt.signed)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidReceipt(f"this is no receipt ({error}); give the file as it was written") from None
    if receipt.public_key is None or receipt.signature is None:
        raise InvalidReceipt("nobody signed this receipt; ask a verifier that signs")
    if key is not None and receipt.public_key != key.lower():
        raise InvalidReceipt(
            f"another key signed this receipt, {receipt.public_key}; check the key, or do not trust the receipt"
        )
    if not is_canonical or not _is_signed(receipt):
        raise InvalidReceipt("the signature does not fit: the signed part was changed; do not trust this receipt")
    _check_rest(receipt, statement)
    return receipt


def key_name(public_key: str) -> str:
    """A short name for a key, for people to compare."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:16]


def _is_signed(receipt: Receipt) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise MissingExtra('signatures need cryptography; run: pip install "outrider[server]"') from None
    try:
        public_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(receipt.public_key or ""))
        public_key.verify(bytes.fromhex(receipt.signature or ""), DOMAIN + bytes(receipt.signed))
    except (InvalidSignature, ValueError):
        return False
    return True


def _check_rest(receipt: Receipt, statement: Statement) -> None:
    """Nobody signed these, but they must not contradict what was signed."""
    counts, runs = receipt.counts, receipt.provenance
    num_tokens = len(receipt.earlier_ids) + len(statement.token_ids)
    by_target = sum(run.count for run in runs if run.by == "target")
    by_drafters = sum(run.count for run in runs if run.by != "target" and run.is_verified)
    agrees = (
        receipt.models.target == statement.target
        and counts.prompt + len(receipt.earlier_ids) == statement.start
        and counts.tokens == num_tokens == sum(run.count for run in runs)
        and (counts.accepted, counts.corrected) == (by_drafters, by_target)
        and counts.provisional == num_tokens - by_target - by_drafters
    )
    if not agrees:
        raise InvalidReceipt("its figures contradict what was signed; do not trust this receipt")
