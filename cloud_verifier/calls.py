"""A REST call as a conversation with the verifier: it opens a session, hears what it needs, and is over.

Knows no HTTP.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from msgspec import UNSET

from cloud_verifier.conversation import Conversation
from cloud_verifier.schemas import GenerateRequest, VerifyAnswer, VerifyRequest, logprobs_of
from outrider.acceptance import accept
from outrider.errors import ContextExceeded, InvalidParameter
from outrider.wire import (
    MAX_POSITION,
    Down,
    Draft,
    Fault,
    Logprobs,
    Open,
    Opened,
    Params,
    Verified,
    pack_ids,
    pack_parents,
    unpack_ids,
)

__all__ = ["ClientLeft", "begin_generation", "generated", "verify"]

ALWAYS, NEVER = -1, 0  # how long the verifier waits for drafts
M = TypeVar("M", bound=Down)


class ClientLeft(Exception):
    """The client closed its side; nobody hears an answer."""


async def verify(conversation: Conversation, wish: VerifyRequest, max_context: int) -> VerifyAnswer:
    """As many passes as it takes to the first miss, or to the choice after the last draft. Raises OutriderError."""
    parents = _parents(wish)
    limit = len(wish.tokens) + _depth(parents) + 1
    if limit > max_context:
        raise ContextExceeded(f"tokens and drafts come to {limit} and the context holds {max_context}; send fewer")
    tree = b"" if wish.parents is None else pack_parents(parents)
    draft = Draft(0, len(wish.tokens), pack_ids(wish.drafts), parents=tree)
    conversation.send(_open(wish, limit, ALWAYS), *([draft] if wish.drafts else []))
    opened = await _hear(conversation, Opened)
    tokens: list[int] = []
    logprobs: list[Logprobs] = []
    while True:
        verified = await _hear(conversation, Verified)
        tokens += unpack_ids(verified.token_ids)
        logprobs += verified.logprobs
        if (path := _path(wish.drafts, parents, tokens)) is not None:
            break
        conversation.send(Draft(0, len(wish.tokens) + len(tokens), b""))  # the drafts may be used up: a step is due
    return VerifyAnswer(
        accepted=len(path),
        next=tokens[-1],
        tokens=tokens,
        target=opened.target,
        path=UNSET if wish.parents is None else path,
        logprobs=logprobs_of(logprobs, wish.logprobs),
    )


async def begin_generation(conversation: Conversation, wish: GenerateRequest) -> Opened:
    """Raises what the verifier refuses, before a word of an answer was said."""
    limit = min(len(wish.tokens) + wish.max_tokens, MAX_POSITION)
    conversation.send(_open(wish, limit, NEVER, wish.stop_ids))
    return await _hear(conversation, Opened)


async def generated(conversation: Conversation) -> AsyncIterator[Verified]:
    """Verified tokens as they come; the last has `finish`. Raises OutriderError, ClientLeft."""
    while True:
        verified = await _hear(conversation, Verified)
        yield verified
        if verified.finish:
            return


async def _hear(conversation: Conversation, kind: type[M]) -> M:
    """The next message of a kind; news of the load are for those who draft."""
    while True:
        message = await conversation.hear()
        if message is None:
            raise ClientLeft
        if isinstance(message, Fault):
            raise message.error()
        if isinstance(message, kind):
            return message


def _open(wish: VerifyRequest | GenerateRequest, limit: int, patience_ms: int, stop_ids: Sequence[int] = ()) -> Open:
    return Open(
        vocabulary=wish.vocabulary,
        target=wish.target,
        params=Params.of(wish.params.params()),
        limit=limit,
        patience_ms=patience_ms,
        stop_ids=pack_ids(stop_ids),
        token_ids=pack_ids(wish.tokens),
        num_logprobs=-1 if wish.logprobs is None else wish.logprobs,
    )


def _parents(wish: VerifyRequest) -> list[int]:
    """Those of a chain where none are given."""
    if wish.parents is None:
        return list(range(-1, len(wish.drafts) - 1))
    if len(wish.parents) != len(wish.drafts) or any(not parent < row for row, parent in enumerate(wish.parents)):
        raise InvalidParameter("the parents are no tree; name each draft's parent, earlier than itself")
    return wish.parents


def _depth(parents: Sequence[int]) -> int:
    depths = {-1: 0}
    for row, parent in enumerate(parents):
        depths[row] = depths[parent] + 1
    return max(depths.values())


def _path(drafts: Sequence[int], parents: Sequence[int], tokens: Sequence[int]) -> list[int] | None:
    """The rows of the drafts that are the target's own tokens; None while that takes more tokens to tell."""
    choices = iter(tokens)
    try:
        return accept(drafts, parents, lambda row: next(choices))[1]
    except StopIteration:
        return None
