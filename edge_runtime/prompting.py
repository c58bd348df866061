"""What an app asks for, in tokens: a prompt and options to what the journal keeps, and that to what a session runs.

Knows the target's tokenizer and its folder's manifest; no link, no drafter, nothing of how an answer comes about.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from cloud_verifier.admission import check_ids
from edge_runtime.journal import Asked
from edge_runtime.options import MAX_TOKENS, Message, Options, TokenIds, check_request
from edge_runtime.request import GenerationRequest
from outrider.choice import SamplingParams
from outrider.manifest import Manifest
from outrider.search import SearchParams
from outrider.tokens import TextCodec

__all__ = ["ask", "request_for"]


def ask(
    prompt: str | TokenIds | Sequence[Message],
    params: SamplingParams,
    codec: TextCodec,
    manifest: Manifest,
    target: str,
    **options: Unpack[Options],
) -> Asked:
    """`target` is a fingerprint, or "" for whatever answers. Raises EmptyPrompt, InvalidParameter, InvalidToken."""
    check_request(prompt, params, **options)
    messages: list[Message] = []
    if isinstance(prompt, TokenIds):
        prompt_ids = list(prompt)
        check_ids(prompt_ids, manifest.n_vocab)
    elif isinstance(prompt, str) and not options.get("is_chat", True):
        prompt_ids = codec.encode(prompt)
    else:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        prompt_ids = codec.encode_chat(messages)
    return Asked(
        prompt_ids,
        options.get("max_tokens", MAX_TOKENS),
        replace(params, num_prompt=len(prompt_ids)),
        [*manifest.stop_ids, *options.get("stop_ids", ())],
        target,
        manifest.tokenizer_fingerprint,
        messages,
        list(options.get("stop", ())),
        options.get("search", SearchParams()),
    )


def request_for(asked: Asked, target: str) -> GenerationRequest:
    """As `target` is to answer it, a fingerprint, or "" for whatever answers."""
    return GenerationRequest(
        asked.prompt_ids,
        asked.max_tokens,
        asked.params,
        asked.stop_ids,
        asked.vocabulary,
        target,
        self_drafts=True,
        search=asked.search,
    )
