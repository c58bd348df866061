"""What a verifier asks of a request before anything is kept: the right model, ids it knows, a list that fits. Pure."""

from collections.abc import Sequence

from outrider.engines.base import Engine
from outrider.errors import (
    ContextExceeded,
    EmptyPrompt,
    InvalidParameter,
    InvalidToken,
    ModelMismatch,
    VocabularyMismatch,
)
from outrider.wire import Open, unpack_ids

__all__ = ["check_ids", "check_open"]


def check_open(message: Open, target: str, vocabulary: str, engine: Engine) -> list[int]:
    """The list to go on from. Raises a UsageError that names both sides of what does not agree."""
    if message.vocabulary not in ("", vocabulary):
        raise VocabularyMismatch(
            f"the target's vocabulary is {vocabulary[:12]}, the drafter's {message.vocabulary[:12]}; "
            "name the target with --target, or choose a drafter of its family"
        )
    if message.target not in ("", target):
        raise ModelMismatch(
            f"the verifier runs target {target[:12]}, not {message.target[:12]}; name one of the two anew"
        )
    token_ids = unpack_ids(message.token_ids)
    if not token_ids:
        raise EmptyPrompt("the prompt is empty; give at least one token")
    check_ids(token_ids, engine.n_vocab)
    check_ids(unpack_ids(message.stop_ids), engine.n_vocab)
    check_ids(unpack_ids(message.params.bias_ids), engine.n_vocab)
    if message.params.num_prompt > len(token_ids):
        raise InvalidParameter(
            f"num_prompt is {message.params.num_prompt}, but the list has {len(token_ids)} tokens; give no more"
        )
    if len(token_ids) >= engine.max_context:
        raise ContextExceeded(
            f"the prompt has {len(token_ids)} tokens and the context holds {engine.max_context}; shorten it"
        )
    if message.limit <= len(token_ids):
        raise ContextExceeded(f"the list would end at {message.limit}, before its first new token; raise the limit")
    return token_ids


def check_ids(token_ids: Sequence[int], n_vocab: int) -> None:
    """Raises InvalidToken. The bound is the width of the logits, not the size of a tokenizer."""
    if token_ids and max(token_ids) >= n_vocab:
        raise InvalidToken(f"token id {max(token_ids)} is outside the model's vocabulary of {n_vocab}; check the ids")
