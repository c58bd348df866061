"""Functions that the model may call: told to it by its own template, and its calls told as calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_runtime.api.tool_calls import CallSplitter
from edge_runtime.options import TokenIds
from edge_runtime.runtime import Runtime
from tests.edge_runtime.api.test_openai_client import SAMPLED, TOOLS, said
from tests.edge_runtime.api.tiny import HELLO
from tests.lazy import openai

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": [1, 2]}}\n</tool_call>'
LONG = {**SAMPLED, "seed": 17, "max_tokens": 400, "logit_bias": None}  # left to itself it would call for the weather


def test_the_model_is_told_of_its_tools_by_its_own_template(ai: openai.OpenAI, pair: Runtime) -> None:
    answer = ai.chat.completions.create(messages=HELLO, tools=TOOLS, **SAMPLED)
    plain = [{"type": "function", "function": {k: v for k, v in TOOLS[0]["function"].items() if k != "strict"}}]
    prompt = pair.codec.encode_chat(HELLO, [*plain, TOOLS[1]])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(prompt) > len(pair.codec.encode_chat(HELLO))
    assert answer.choices[0].message.content == said(pair, TokenIds(prompt))
    none = ai.chat.completions.create(messages=HELLO, tools=TOOLS, tool_choice="none", **SAMPLED)
    assert none.choices[0].message.content == said(pair)


@pytest.mark.parametrize(
    ("choice", "stream"), [("required", True), ({"type": "function", "function": {"name": "clock"}}, False)]
)
def test_a_call_that_is_asked_for_comes_as_one(ai: openai.OpenAI, choice: Any, stream: bool) -> None:
    answer: Any = ai.chat.completions.create(messages=HELLO, tools=TOOLS, tool_choice=choice, stream=stream, **LONG)
    if stream:
        chunks = list(answer)
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        assert [call.index for call in calls] == [0]
        reason, content = chunks[-1].choices[0].finish_reason, [c.choices[0].delta.content for c in chunks[1:]]
        assert not any(content)
    else:
        calls, reason = answer.choices[0].message.tool_calls, answer.choices[0].finish_reason
        assert answer.choices[0].message.content is None
    [call] = calls
    assert reason == "tool_calls"
    assert call.id.startswith("call_")
    arguments = json.loads(call.function.arguments)
    if choice == "required":
        assert call.function.name in ("weather", "clock")
    else:
        assert call.function.name == "clock"
        assert arguments["zone"] in ("CET", "UTC")


def test_calls_and_what_they_gave_are_told_to_the_model(ai: openai.OpenAI, pair: Runtime) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    messages: Any = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    answer = ai.chat.completions.create(messages=messages, **SAMPLED)
    prompt = (
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n<tool_call>Oslo</tool_call><|im_end|>\n"
        "<|im_start|>tool\nrain<|im_end|>\n<|im_start|>assistant\n"
    )
    assert answer.choices[0].message.content == said(pair, TokenIds(pair.codec.encode(prompt, is_start=False)))


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_calls_are_found_however_the_text_is_cut(size: int) -> None:
    text = f"Let me see. {CALL}\n{CALL} Done. <tool_call>not json</tool_call> <tool_call>unfinished"
    splitter = CallSplitter()
    told, calls = "", []
    for start in range(0, len(text), size):
        content, more = splitter.feed(text[start : start + size])
        told += content
        calls += more
    told += splitter.flush()
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("weather", {"city": "Oslo", "days": [1, 2]})
    ] * 2
    assert len({call.id for call in calls}) == 2
    assert told.replace(" ", "").replace("\n", "") == (
        "Letmesee.Done.<tool_call>notjson</tool_call><tool_call>unfinished"
    )


def test_of_several_calls_only_the_first_is_told_where_one_is_wanted() -> None:
    splitter = CallSplitter(takes_one=True)
    _, calls = splitter.feed(CALL + CALL)
    assert len(calls) == splitter.num_calls == 1


HALF, NO_NUMBER = '{"name": "n", "arguments": {"a": "\\ud83d!"}}', '{"name": "n", "arguments": {"a": NaN}}'


@pytest.mark.parametrize("body", ["[]", "3", HALF, NO_NUMBER, '{"name": 3}', '{"arguments": {}}', "[" * 5000, ""])
def test_what_is_no_call_stays_text(body: str) -> None:
    text = f"<tool_call>{body}</tool_call>"
    assert CallSplitter().feed(text) == (text, [])
