"""A request in OpenAI's words as one in ours: prompts of ids, sampling parameters, options, and who answers.

Raises errors of the tree for what cannot be; those of InvalidParameter begin with the field they are about.
"""

import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from edge_runtime.api.errors import of_the_verifier
from edge_runtime.api.modes import Mode
from edge_runtime.api.prompts import chat_prompt, text_prompts
from edge_runtime.api.schemas import ChatRequest, CompletionRequest, Request, ResponseFormat, Wishes
from edge_runtime.api.telling import Telling, telling
from edge_runtime.api.tool_calls import check_tools, must_call
from edge_runtime.options import LIMIT, MAX_ANSWERS, Options, TokenIds, check_request
from outrider.choice import MAX_SEED, SamplingParams
from outrider.constraint import Grammar
from outrider.errors import InvalidParameter, OutriderError
from outrider.infill import asks_for_middle, infill_ids, infill_stop_ids
from outrider.search import SearchParams

__all__ = ["Asked", "asked_of_chat", "asked_of_completion", "wishes_of"]

COMPLETION_TOKENS = 16  # where nobody says how many, as OpenAI has it


@dataclass(frozen=True, slots=True)
class Asked:
    """`prompts` times `n` answers. `params` has the seed of the first; each later one is one higher."""

    mode: Mode
    prompts: Sequence[TokenIds]
    n: int
    params: SamplingParams
    options: Options
    shows_provisional: bool

    def seed_of(self, number: int) -> int:
        return self.params.seed + number % self.n

    async def answers(self) -> AsyncGenerator[tuple[int, Telling], None]:
        """What is told of each answer, with its number, one after the other."""
        for number in range(len(self.prompts) * self.n):
            params = replace(self.params, seed=self.seed_of(number))
            events = self.mode.answer(self.prompts[number // self.n], params, **self.options)
            # Where nobody verifies nothing is ever taken back, so all of it may be told at once.
            shows = self.shows_provisional or not self.mode.has_target
            is_watched = self.options.get("is_watched", False)
            try:
                async with aclosing(telling(events, shows_provisional=shows, is_watched=is_watched)) as told:
                    async for each in told:
                        yield number, each
            except OutriderError as error:
                raise of_the_verifier(error) from None


def asked_of_chat(request: ChatRequest, mode: Mode, headers: Mapping[str, str]) -> Asked:
    codec = mode.runtime.codec
    tools = request.tools if request.tools and request.tool_choice != "none" else None
    grammar = _grammar(request.response_format)
    if tools:
        check_tools(codec)
        if grammar is not None:
            raise InvalidParameter("response_format is not for answers that may be calls; leave it or the tools out")
        grammar = must_call(codec, tools, request.tool_choice)
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidParameter("top_logprobs is given without logprobs; set logprobs to true")
    if None not in (request.max_tokens, request.max_completion_tokens):
        raise InvalidParameter("max_tokens is given beside max_completion_tokens; give the second alone")
    prompt = chat_prompt(codec, request.messages, tools)
    asked = _asked(
        request,
        mode,
        headers,
        [prompt],
        max_tokens=request.max_completion_tokens or request.max_tokens or LIMIT,
        num_logprobs=(request.top_logprobs or 0) if request.logprobs else -1,
        grammar=grammar,
    )
    return replace(asked, shows_provisional=asked.shows_provisional and not tools)  # an app acts on a call


def asked_of_completion(request: CompletionRequest, mode: Mode, headers: Mapping[str, str]) -> Asked:
    codec = mode.runtime.codec
    if request.echo:
        raise InvalidParameter("echo is true, and a prompt is not repeated here; leave it out")
    n, best_of = request.n or 1, request.best_of or request.n or 1
    if best_of != n and (n > 1 or request.stream):
        raise InvalidParameter("best_of is for one answer, not streamed; leave it, n or stream out")
    if request.suffix:
        if not isinstance(request.prompt, str):
            raise InvalidParameter("suffix is for a prompt that is one text; send it so")
        prompts = [TokenIds(infill_ids(codec, request.prompt, request.suffix))]
    else:
        prompts = text_prompts(codec, request.prompt)
    asked = _asked(
        request,
        mode,
        headers,
        prompts,
        max_tokens=request.max_tokens or COMPLETION_TOKENS,
        num_logprobs=-1 if request.logprobs is None else request.logprobs,
    )
    if any(asks_for_middle(codec, prompt) for prompt in prompts):
        asked.options["stop_ids"] = infill_stop_ids(codec)
    if best_of != n:
        asked.options["search"] = SearchParams(best_of=best_of)
        asked.options["is_strict"] = True
        asked.options["search"].check(asked.params)
    return asked


def _asked(
    request: Request,
    mode: Mode,
    headers: Mapping[str, str],
    prompts: list[TokenIds],
    *,
    max_tokens: int,
    num_logprobs: int,
    grammar: Grammar | None = None,
) -> Asked:
    if request.stream_options is not None and not request.stream:
        raise InvalidParameter("stream_options is for streams; set stream to true")
    n = request.n or 1
    if len(prompts) * n > MAX_ANSWERS:
        raise InvalidParameter(f"n is {n}, which makes {len(prompts) * n} answers; ask for at most {MAX_ANSWERS}")
    wishes = wishes_of(request.x_outrider or Wishes(), headers)
    is_strict = wishes.strict or num_logprobs >= 0  # those are the target's; a provisional token has none
    if is_strict and not mode.has_target:
        raise InvalidParameter(f"model is {mode.name}, which verifies nothing here; ask for auto, or be less strict")
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    params = _params(request, grammar)
    options: Options = {
        "max_tokens": max_tokens,
        "stop": [each for each in stop if each],
        "num_logprobs": num_logprobs,
        "is_strict": is_strict,
        "is_watched": wishes.watch and bool(request.stream),
    }
    for prompt in prompts:
        check_request(prompt, params, n=n, **options)
    return Asked(mode, prompts, n, params, options, wishes.provisional)


def _params(request: Request, grammar: Grammar | None) -> SamplingParams:
    seed = secrets.randbits(53) if request.seed is None else request.seed % (MAX_SEED - MAX_ANSWERS)
    given: dict[str, Any] = {
        name: value
        for name in ("top_k", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
        if (value := getattr(request, name)) is not None
    }
    return SamplingParams(
        temperature=1.0 if request.temperature is None else request.temperature,
        seed=seed,
        logit_bias=tuple((int(token_id), bias) for token_id, bias in (request.logit_bias or {}).items()),
        grammar=grammar,
        **given,
    )


def _grammar(wanted: ResponseFormat | None) -> Grammar | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return Grammar("json_schema", '{"type": "object"}')
    if wanted.json_schema is None or wanted.json_schema.schema is None:
        raise InvalidParameter("response_format.json_schema.schema is missing; give the schema that the answer follows")
    return Grammar("json_schema", json.dumps(wanted.json_schema.schema))


def wishes_of(wishes: Wishes, headers: Mapping[str, str]) -> Wishes:
    """Those of the body and of the headers together."""
    strict = wishes.strict or _is_set(headers, "x-outrider-strict")
    provisional = wishes.provisional or _is_set(headers, "x-outrider-provisional")
    if strict and provisional:
        raise InvalidParameter("x_outrider has strict and provisional, which exclude each other; choose one")
    return Wishes(strict=strict, provisional=provisional, watch=wishes.watch)


def _is_set(headers: Mapping[str, str], name: str) -> bool:
    value = headers.get(name, "").strip().lower()
    if value not in ("", "true", "false", "1", "0"):
        raise InvalidParameter(f"the header {name} is not true or false; send one of them")
    return value in ("true", "1")
