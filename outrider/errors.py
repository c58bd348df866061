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
    └── LinkError             the way to the verifier
        ├── LinkLost              no connection, or it broke
        └── ProtocolError         the other side said something it may not say

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
    "InvalidModel",
    "InvalidParameter",
    "InvalidToken",
    "LinkError",
    "LinkLost",
    "MissingExtra",
    "ModelMismatch",
    "NoNetwork",
    "NotHere",
    "OutriderError",
    "ProtocolError",
    "UnknownModel",
    "UsageError",
    "VocabularyMismatch",
    "WrongHash",
    "from_code",
]


class OutriderError(Exception):
    """Root of the tree. `code` is stable and meant for programs, the message for people."""

    code = "error"
    exit_status = 1


class UsageError(OutriderError):
    code = "usage"
    exit_status = 2


class UnknownModel(UsageError):
    code = "unknown_model"


class NotHere(UsageError):
    code = "not_here"


class InvalidModel(UsageError):
    code = "invalid_model"


class VocabularyMismatch(UsageError):
    code = "vocabulary_mismatch"


class ModelMismatch(UsageError):
    code = "model_mismatch"


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


class BadLogits(EngineError):
    code = "bad_logits"


class EngineFull(EngineError):
    code = "engine_full"


class LinkError(OutriderError):
    code = "link"


class LinkLost(LinkError):
    code = "link_lost"


class ProtocolError(LinkError):
    code = "protocol"


def _leaves(root: type[OutriderError]) -> dict[str, type[OutriderError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _leaves(child)
    return found


def from_code(code: str, message: str) -> OutriderError:
    """The error a code names, for a fault that came over a link; an unknown code gives the root."""
    return _leaves(OutriderError).get(code, OutriderError)(message)
