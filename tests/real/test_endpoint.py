"""The endpoint over the default pair, by OpenAI's own client: chat, a call, a gap in code."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from edge_runtime.answer import Piece
from edge_runtime.parts import DEFAULT_TARGET
from edge_runtime.runtime import Runtime
from tests.edge_runtime.api.test_openai_client import TOOLS
from tests.edge_runtime.api.tiny import client, endpoint

pytestmark = pytest.mark.weights
GREEDY: Any = {"model": "auto", "temperature": 0, "max_tokens": 40}


@pytest.fixture(scope="module")
def runtime(real_store: None) -> Iterator[Runtime]:
    with Runtime.local() as runtime:
        yield runtime


@pytest.fixture(scope="module")
def ai(runtime: Runtime) -> Iterator[openai.OpenAI]:
    with endpoint(runtime, model=DEFAULT_TARGET) as url, client(url) as ai:
        yield ai


def test_chat_is_what_the_runtime_says(ai: openai.OpenAI, runtime: Runtime) -> None:
    question = "Name three colours, separated by commas. Nothing else."

    async def main() -> str:
        events = runtime.generate(question, max_tokens=40)
        return "".join([event.text async for event in events if isinstance(event, Piece)])

    want = asyncio.run(main())
    messages: Any = [{"role": "user", "content": question}]
    chunks = list(ai.chat.completions.create(messages=messages, stream=True, **{**GREEDY, "model": DEFAULT_TARGET}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == want
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert want.count(",") == 2


def test_a_call_and_a_gap(ai: openai.OpenAI) -> None:
    asks: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
    called = ai.chat.completions.create(messages=asks, tools=TOOLS[:1], tool_choice="required", **GREEDY).choices[0]
    assert called.finish_reason == "tool_calls"
    [call] = called.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})

    gap = ai.completions.create(
        prompt="def add(a, b):\n    return ", suffix="\n\nprint(add(1, 2))\n", **GREEDY
    ).choices[0]
    assert gap.text.strip().startswith("a + b")
    assert gap.finish_reason == "stop"
