"""Every error a person can meet, in one tree.

    OutriderError
    ├── UsageError            what was asked for cannot be done; nothing was started
    │   ├── UnknownModel          no card, recipe, hub id or path of that name
    │   ├── NotHere               known, but not on this machine yet
    │   ├── InvalidModel          a file or folder that is not a usable model
    │   ├── VocabularyMismatch    drafter and target do not share token ids
    │   ├── ModelMismatch         the verifier runs another target than was asked for
    │   ├── EmptyPrompt
    │   ├── ContextExceeded       prompt and answer do not fit the model's context
    │   ├── InvalidParameter      a number out of its range, a NaN, an unknown word
    │   ├── InvalidToken          a token id outside the model's vocabulary
    │   └── MissingExtra          a library that an extra would install
    ├── FetchError            files could not be had
    │   ├── NoNetwork
    │   ├── WrongHash
    │   └── DiskFull
    ├── EngineError           a model backend failed; the session is lost, the process lives
    │   ├── BadLogits             NaN or infinite logits
    │   └── EngineFull            no sequence free
    ├── LinkError             the way to the verifier
    │   ├── LinkLost              no connection, or it broke
    │   │   └── NotAVerifier          something else answers there: a login page, another service
    │   └── ProtocolError         the other side said something it may not say
    └── Refused               the verifier will not, by its rules; nothing was lost
        ├── Unauthorized          no token, or one that is not valid (any more)
        ├── Forbidden             this request may not be made here
        ├── TooLarge              a body or message over the limit
        ├── TooSlow               a body or first message that did not come in time
        ├── WrongContentType      a body of a type that is not served
        ├── TooMany               this credential's rate or number of sessions is used up for now
        ├── Overloaded            the verifier's own capacity is used up for now
        └── Moved                 the verifier is shutting down; go on at another, or here later

Each class has a stable `code`; each message is one sentence that says what happened and one that says what to do.
Messages hold no prompts. Knows nothing about how an error is shown.
"""

__all__ = [
    "BadLogits",
    "ContextExceeded",
    "DiskFull",
    "EmptyPrompt",
    "EngineError",
    "EngineFull",
    "FetchError",
    "Forbidden",
    "InvalidModel",
    "InvalidParameter",
    "InvalidToken",
    "LinkError",
    "LinkLost",
    "MissingExtra",
    "ModelMismatch",
    "Moved",
    "NoNetwork",
    "NotAVerifier",
    "NotHere",
    "OutriderError",
    "Overloaded",
    "ProtocolError",
    "Refused",
    "TooLarge",
    "TooMany",
    "TooSlow",
    "Unauthorized",
    "UnknownModel",
    "UsageError",
    "VocabularyMismatch",
    "WrongContentType",
    "WrongHash",
    "from_code",
]


class OutriderError(Exception):
    """Root of the tree. `code` is stable and meant for programs, the message for people.

    `may_retry`: the same may succeed later, `retry_after_ms` at the earliest. `http_status` is what REST doors answer.
    """

    code = "error"
    exit_status = 1
    may_retry = False
    retry_after_ms = 0
    http_status = 500


class UsageError(OutriderError):
    code = "usage"
    exit_status = 2
    http_status = 400


class UnknownModel(UsageError):
    code = "unknown_model"


class NotHere(UsageError):
    code = "not_here"


class InvalidModel(UsageError):
    code = "invalid_model"


class VocabularyMismatch(UsageError):
    code = "vocabulary_mismatch"
    http_status = 409


class ModelMismatch(UsageError):
    code = "model_mismatch"
    http_status = 409


class EmptyPrompt(UsageError):
    code = "empty_prompt"


class ContextExceeded(UsageError):
    code = "context_exceeded"


class InvalidParameter(UsageError):
    code = "invalid_parameter"


class InvalidToken(UsageError):
    code = "invalid_token"


class MissingExtra(UsageError):
    code = "missing_extra"


class FetchError(OutriderError):
    code = "fetch_failed"


class NoNetwork(FetchError):
    code = "no_network"


class WrongHash(FetchError):
    code = "wrong_hash"


class DiskFull(FetchError):
    code = "disk_full"


class EngineError(OutriderError):
    code = "engine_failed"
    may_retry = True
    http_status = 503


class BadLogits(EngineError):
    code = "bad_logits"
    may_retry = False
    http_status = 500


class EngineFull(EngineError):
    code = "engine_full"


class LinkError(OutriderError):
    code = "link"


class LinkLost(LinkError):
    code = "link_lost"
    may_retry = True
    http_status = 503


class NotAVerifier(LinkLost):
    code = "not_a_verifier"
    may_retry = False


class ProtocolError(LinkError):
    code = "protocol"
    http_status = 400


class Refused(OutriderError):
    code = "refused"
    http_status = 403


class Unauthorized(Refused):
    code = "unauthorized"
    http_status = 401


class Forbidden(Refused):
    code = "forbidden"


class TooLarge(Refused):
    code = "too_large"
    http_status = 413


class TooSlow(Refused):
    code = "too_slow"
    http_status = 408


class WrongContentType(Refused):
    code = "wrong_content_type"
    http_status = 415


class TooMany(Refused):
    code = "too_many"
    may_retry = True
    retry_after_ms = 1000
    http_status = 429


class Overloaded(Refused):
    code = "overloaded"
    may_retry = True
    retry_after_ms = 1000
    http_status = 503


class Moved(Refused):
    code = "moved"
    may_retry = True
    http_status = 503


def _leaves(root: type[OutriderError]) -> dict[str, type[OutriderError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _leaves(child)
    return found


def from_code(code: str, message: str) -> OutriderError:
    """The error a code names, for a fault that came over a link; an unknown code gives the root."""
    return _leaves(OutriderError).get(code, OutriderError)(message)
