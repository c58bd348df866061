"""What may be asked of an answer, in words of apps, and whether it can be. Knows no model and no link."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict, Unpack

from outrider.choice import SamplingParams
from outrider.constraint import check_grammar
from outrider.errors import EmptyPrompt, InvalidParameter
from outrider.search import SearchParams
from outrider.stops import StopStrings
from outrider.wire import MAX_LOGPROBS

__all__ = ["LIMIT", "MAX_ANSWERS", "MAX_TOKENS", "Message", "Options", "TokenIds", "check_request"]

Message = dict[str, str]  # role and content

MAX_TOKENS = 256  # of an answer, where nobody says otherwise
LIMIT = 2**20  # tokens that may be asked for
MAX_ANSWERS = 128


class TokenIds(tuple[int, ...]):
    """A prompt that is ids of the model's already."""

    __slots__ = ()


class Options(TypedDict, total=False):
    """What may be said about an answer, besides how it is sampled."""

    max_tokens: int  # at most; 256
    is_chat: bool  # False continues the prompt as it is
    stop: Sequence[str]
    stop_ids: Sequence[int]  # besides the model's own
    num_logprobs: int
    wants_receipt: bool
    is_strict: bool  # never provisional: without a verifier there is an error
    is_watched: bool  # Standing comes after each step
    is_kept: bool  # False: not in the journal, where there is one
    search: SearchParams  # beams, or the best of several samples
    conversation: str  # of the journal; a new one where none is named


def check_request(
    prompt: str | TokenIds | Sequence[Message],
    params: SamplingParams | None = None,
    *,
    n: int = 1,
    **options: Unpack[Options],
) -> None:
    """Raises EmptyPrompt or InvalidParameter, before anything is loaded for a request that cannot be. MissingExtra
    for a grammar, where the library for them is not installed."""
    max_tokens, num_logprobs = options.get("max_tokens", MAX_TOKENS), options.get("num_logprobs", -1)
    if not 1 <= max_tokens <= LIMIT:
        raise InvalidParameter(f"max_tokens is {max_tokens}; give a number from 1 to {LIMIT}")
    if isinstance(prompt, TokenIds):
        is_empty = not prompt
    else:
        text = prompt if isinstance(prompt, str) else "".join(message["content"] for message in prompt)
        is_empty = not text.strip()
    if is_empty:
        raise EmptyPrompt("the prompt is empty; say something")
    StopStrings(options.get("stop", ()))
    if not -1 <= num_logprobs <= MAX_LOGPROBS:
        raise InvalidParameter(f"num_logprobs is {num_logprobs}; give -1 for none, or 0 to {MAX_LOGPROBS}")
    search = options.get("search", SearchParams())
    search.check(params or SamplingParams())
    if n > 1 and search.num_lanes > 1:
        raise InvalidParameter(f"n is {n}, but a search has one answer; ask for one of them")
    if not 1 <= n <= MAX_ANSWERS:
        raise InvalidParameter(f"n is {n}; give a number from 1 to {MAX_ANSWERS}")
    if params is not None:
        replace(params, seed=params.seed + n - 1)
        if params.grammar is not None:
            check_grammar(params.grammar)
