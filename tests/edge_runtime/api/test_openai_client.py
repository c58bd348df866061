"""OpenAI's own client against the endpoint: every call gives what the target gives, in the client's own types."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from edge_runtime.answer import Piece
from edge_runtime.options import TokenIds
from edge_runtime.runtime import Runtime
from outrider.choice import SamplingParams
from tests.edge_runtime.api.tiny import HELLO
from tests.lazy import openai

SEED = 11
NUM_TOKENS = 16
GO_ON = {"0": -100, "2": -100}  # the model's stop tokens
SAMPLED: Any = {"model": "auto", "temperature": 1.2, "seed": SEED, "max_tokens": NUM_TOKENS, "logit_bias": GO_ON}
SCHEMA = {
    "type": "object",
    "properties": {"size": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["size"],
    "additionalProperties": False,
}

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Say the weather.",
            "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]},
            "strict": True,
        },
    },
    {
        "type": "function",
        "function": {
            "name": "clock",
            "parameters": {
                "type": "object",
                "properties": {"zone": {"enum": ["CET", "UTC"]}},
                "required": ["zone"],
                "additionalProperties": False,
            },
        },
    },
]


def said(runtime: Runtime, prompt: Any = HELLO, *, num_tokens: int = NUM_TOKENS, **over: Any) -> str:
    """What the runtime itself says."""

    async def main() -> str:
        params = SamplingParams(**{"temperature": 1.2, "seed": SEED, "logit_bias": ((0, -100.0), (2, -100.0)), **over})
        events = runtime.generate(prompt, params, max_tokens=num_tokens)
        return "".join([event.text async for event in events if isinstance(event, Piece)])

    return asyncio.run(main())


def joined(chunks: Sequence[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_chat_is_the_target_s_answer(ai: openai.OpenAI, pair: Runtime) -> None:
    answer = ai.chat.completions.create(messages=HELLO, **SAMPLED)
    [choice] = answer.choices
    assert choice.message.content == said(pair)
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == NUM_TOKENS
    assert answer.usage.prompt_tokens == len(pair.codec.encode_chat(HELLO))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + NUM_TOKENS
    assert answer.system_fingerprint == f"fp_{pair.manifest.fingerprint[:12]}"
    assert answer.x_outrider["state"] == "verified"  # type: ignore[attr-defined]
    assert answer.x_outrider["seed"] == SEED  # type: ignore[attr-defined]


def test_a_stream_is_the_same_answer_and_ends_with_its_usage(ai: openai.OpenAI) -> None:
    whole = ai.chat.completions.create(messages=HELLO, **SAMPLED)
    chunks = list(
        ai.chat.completions.create(messages=HELLO, stream=True, stream_options={"include_usage": True}, **SAMPLED)
    )
    *parts, end, usage = chunks
    assert joined(chunks) == whole.choices[0].message.content
    assert parts[0].choices[0].delta.role == "assistant"
    assert {part.x_outrider["state"] for part in parts[1:]} == {"verified"}
    assert len(parts) > 10
    assert end.choices[0].finish_reason == "length"
    assert end.x_outrider["seed"] == SEED
    assert usage.choices == []
    assert usage.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_has_no_usage_unless_it_is_asked_for(ai: openai.OpenAI) -> None:
    chunks = list(ai.chat.completions.create(messages=HELLO, stream=True, **SAMPLED))
    assert all(chunk.choices for chunk in chunks)


def test_the_async_client_hears_the_same(url: str, pair: Runtime) -> None:
    async def main() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as ai:
            whole = await ai.chat.completions.create(messages=HELLO, **SAMPLED)
            stream = await ai.chat.completions.create(messages=HELLO, stream=True, **SAMPLED)
            return whole.choices[0].message.content or "", joined([chunk async for chunk in stream])

    want = said(pair)
    assert asyncio.run(main()) == (want, want)


def test_answers_asked_for_at_once_do_not_mix(url: str, pair: Runtime) -> None:
    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as ai:
            answers = [ai.chat.completions.create(messages=HELLO, **{**SAMPLED, "seed": seed}) for seed in range(4)]
            return [answer.choices[0].message.content or "" for answer in await asyncio.gather(*answers)]

    assert asyncio.run(main()) == [said(pair, seed=seed) for seed in range(4)]


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_have_seeds_that_follow(ai: openai.OpenAI, pair: Runtime, stream: bool) -> None:
    want = [said(pair, seed=SEED + number) for number in range(3)]
    assert len(set(want)) == 3
    answer: Any = ai.chat.completions.create(messages=HELLO, n=3, stream=stream, **SAMPLED)
    found = ["", "", ""]
    if stream:
        for chunk in answer:
            for choice in chunk.choices:
                found[choice.index] += choice.delta.content or ""
    else:
        found = [choice.message.content for choice in answer.choices]
        assert answer.usage.completion_tokens == 3 * NUM_TOKENS
        assert answer.usage.prompt_tokens == len(pair.codec.encode_chat(HELLO))
    assert found == want


def test_without_a_seed_one_is_drawn_and_told(ai: openai.OpenAI) -> None:
    first, second = (ai.chat.completions.create(model="auto", messages=HELLO, max_tokens=12) for _ in range(2))
    assert first.choices[0].message.content != second.choices[0].message.content
    again = ai.chat.completions.create(model="auto", messages=HELLO, max_tokens=12, seed=first.x_outrider["seed"])  # type: ignore[attr-defined]
    assert again.choices[0].message.content == first.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_before_it(ai: openai.OpenAI, pair: Runtime, stream: bool) -> None:
    want = said(pair)
    stop = want[9:12]
    before = want[: want.index(stop)]
    answer: Any = ai.chat.completions.create(messages=HELLO, stop=["never said", stop], stream=stream, **SAMPLED)
    if stream:
        chunks = list(answer)
        assert (joined(chunks), chunks[-1].choices[0].finish_reason) == (before, "stop")
    else:
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (before, "stop")


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_those_of_the_tokens_told(ai: openai.OpenAI, stream: bool) -> None:
    answer: Any = ai.chat.completions.create(
        model="auto", messages=HELLO, temperature=0, max_tokens=24, logprobs=True, top_logprobs=3, stream=stream
    )
    if stream:
        chunks = list(answer)
        text = joined(chunks)
        told = [each for c in chunks for x in c.choices if x.logprobs for each in x.logprobs.content or []]
    else:
        text, told = answer.choices[0].message.content, answer.choices[0].logprobs.content
    assert b"".join(bytes(each.bytes) for each in told).decode("utf-8", "replace") == text
    assert len(told) > 10
    for each in told:
        assert len(each.top_logprobs) == 3
        assert each.top_logprobs[0].logprob == each.logprob < 0  # greedy: the likeliest


def test_json_by_a_schema_and_without_one(ai: openai.OpenAI) -> None:
    wish: Any = {"model": "auto", "messages": HELLO, "seed": 3, "max_tokens": 40}
    schema: Any = {"type": "json_schema", "json_schema": {"name": "size", "schema": SCHEMA, "strict": True}}
    answer = ai.chat.completions.create(response_format=schema, **wish)
    found = json.loads(answer.choices[0].message.content or "")
    assert found.keys() == {"size"}
    assert found["size"] in range(10)
    assert answer.choices[0].finish_reason == "stop"
    bare = ai.chat.completions.create(response_format={"type": "json_object"}, **wish)
    assert (bare.choices[0].message.content or "").lstrip().startswith("{")
    plain = ai.chat.completions.create(response_format={"type": "text"}, **wish)
    assert plain.choices[0].message.content != bare.choices[0].message.content


def test_penalties_biases_and_filters_reach_the_sampler(ai: openai.OpenAI, pair: Runtime) -> None:
    options = {"frequency_penalty": 1.0, "presence_penalty": -0.5, "top_p": 0.9}
    more = {"top_k": 40, "min_p": 0.01, "repetition_penalty": 1.3}
    bias = {"65": -100, "66": 5}
    answer = ai.chat.completions.create(messages=HELLO, extra_body=more, **{**SAMPLED, "logit_bias": bias}, **options)
    want = said(pair, **options, **more, logit_bias=((65, -100.0), (66, 5.0)))
    assert answer.choices[0].message.content == want != said(pair)


def test_what_openai_has_besides_is_taken_and_has_no_effect(ai: openai.OpenAI, pair: Runtime) -> None:
    answer = ai.chat.completions.create(
        messages=[{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}],
        user="me",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        parallel_tool_calls=True,
        **SAMPLED,
    )
    assert answer.choices[0].message.content == said(pair)


def test_an_answer_may_be_sent_back(ai: openai.OpenAI, pair: Runtime) -> None:
    first = ai.chat.completions.create(messages=HELLO, **SAMPLED).choices[0].message
    messages = [{"role": "developer", "content": "he"}, *HELLO, first.model_dump(), {"role": "user", "content": "he"}]
    answer = ai.chat.completions.create(messages=messages, **SAMPLED)  # type: ignore[arg-type]
    plain = [{"role": m["role"].replace("developer", "system"), "content": m["content"]} for m in messages]
    assert answer.choices[0].message.content == said(pair, plain)


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_limit(ai: openai.OpenAI, limit: str) -> None:
    answer = ai.chat.completions.create(model="auto", messages=HELLO, extra_body={limit: 5})
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 5


def test_without_a_limit_the_context_is_one(ai: openai.OpenAI, pair: Runtime) -> None:
    long: Any = [{"role": "user", "content": "hello " * 150}]
    answer = ai.chat.completions.create(model="auto", messages=long, temperature=0, logit_bias=GO_ON)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 50
    assert answer.usage.total_tokens > 900


def test_a_text_is_continued(ai: openai.OpenAI, pair: Runtime) -> None:
    ids = pair.codec.encode("hello")
    want = said(pair, TokenIds(ids))
    for prompt in ("hello", ids):
        answer = ai.completions.create(prompt=prompt, **SAMPLED)
        assert answer.choices[0].text == want
        stream = ai.completions.create(prompt=prompt, stream=True, **SAMPLED)
        assert "".join(chunk.choices[0].text for chunk in stream) == want
    assert ai.completions.create(model="auto", prompt="hello").usage.completion_tokens <= 16  # type: ignore[union-attr]


def test_several_texts_and_answers_are_numbered_by_text(ai: openai.OpenAI, pair: Runtime) -> None:
    prompts = ["hello", "he"]
    want = [said(pair, TokenIds(pair.codec.encode(text)), seed=SEED + more) for text in prompts for more in range(2)]
    for prompt in (prompts, [pair.codec.encode(text) for text in prompts]):
        answer = ai.completions.create(prompt=prompt, n=2, **SAMPLED)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert [choice.text for choice in answer.choices] == want


def test_the_best_of_several_texts_is_the_one_with_the_highest_mean(ai: openai.OpenAI) -> None:
    wish: Any = {**SAMPLED, "prompt": "hello", "max_tokens": 8}
    several = [ai.completions.create(**{**wish, "seed": SEED + more}, logprobs=0).choices[0] for more in range(3)]
    means = [sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs) for c in several]  # type: ignore[union-attr,arg-type]
    best = ai.completions.create(**wish, best_of=3).choices[0]
    assert best.text == several[means.index(max(means))].text
    assert len({choice.text for choice in several}) == 3


def test_log_probabilities_of_a_continued_text(ai: openai.OpenAI) -> None:
    answer = ai.completions.create(model="auto", prompt="hello", temperature=0, max_tokens=24, logprobs=2)
    told = answer.choices[0].logprobs
    assert told is not None
    assert len(told.tokens or []) == len(told.token_logprobs or []) == len(told.text_offset or []) > 10
    assert all(len(each) == 2 for each in told.top_logprobs or [])
    assert told.text_offset == sorted(told.text_offset or [])
    assert (told.text_offset or [])[-1] <= len(answer.choices[0].text)


def test_a_gap_is_filled_with_the_model_s_own_marks(ai: openai.OpenAI, pair: Runtime) -> None:
    ids = pair.codec.control_ids
    before, behind = pair.codec.encode("hello", is_start=False), pair.codec.encode(" he", is_start=False)
    prompt = [ids["<|fim_prefix|>"], *before, ids["<|fim_suffix|>"], *behind, ids["<|fim_middle|>"]]
    answer = ai.completions.create(prompt="hello", suffix=" he", **SAMPLED)
    assert answer.choices[0].text == said(pair, TokenIds(prompt))
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(prompt)
    ended = ai.completions.create(
        model="auto", prompt="hello", suffix=" he", max_tokens=9, logit_bias={str(ids["<|file_sep|>"]): 100}
    )
    assert ended.choices[0].finish_reason == "stop"


def test_the_models_are_ways_of_answering(ai: openai.OpenAI) -> None:
    assert [model.id for model in ai.models.list()] == ["auto", "local", "tiny"]
    assert ai.models.retrieve("local").id == "local"
    answers = {
        ai.chat.completions.create(messages=HELLO, **{**SAMPLED, "model": name}).choices[0].message.content
        for name in ("auto", "local", "tiny")
    }
    assert len(answers) == 1
