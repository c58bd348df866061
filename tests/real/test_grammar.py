"""An answer under a JSON schema, by a real model with its real tokenizer: valid, and the same with drafts."""

import asyncio
import json

import pytest

from edge_runtime.events import Finished
from edge_runtime.runtime import Runtime
from outrider.choice import SamplingParams
from outrider.constraint import Grammar
from tests.drafting import EagerPace

pytestmark = pytest.mark.weights

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "inhabitants": {"type": "integer", "minimum": 1000, "maximum": 99999999},
        "is_capital": {"type": "boolean"},
    },
    "required": ["city", "inhabitants", "is_capital"],
    "additionalProperties": False,
}
PARAMS = SamplingParams(
    temperature=0.7, seed=1, repetition_penalty=1.1, grammar=Grammar("json_schema", json.dumps(SCHEMA))
)


async def ask(runtime: Runtime) -> tuple[list[int], str, Finished]:
    ids: list[int] = []
    text = ""
    async for event in runtime.generate("Describe Paris.", PARAMS, max_tokens=80):
        if isinstance(event, Finished):
            return ids, text, event
        ids += [event.token.token_id] if event.token else []
        text += event.text
    raise AssertionError("the answer ended without a word")


def test_an_answer_under_a_schema_is_valid_json_and_the_same_with_drafts() -> None:
    with Runtime.local("smollm2-135m-instruct", "smollm2-135m-onnx-general") as runtime:
        runtime._pace = EagerPace()
        ids, text, finished = asyncio.run(ask(runtime))
        assert finished.report.num_accepted > 5
        runtime.drafter.close()
        runtime.drafter = None
        assert asyncio.run(ask(runtime))[:2] == (ids, text)
    assert finished.reason == "stop"
    said = json.loads(text)
    assert set(said) == {"city", "inhabitants", "is_capital"}
    assert 1000 <= said["inhabitants"] <= 99999999
