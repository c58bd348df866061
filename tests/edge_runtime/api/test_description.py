"""The endpoint keeps to the description that it gives of itself."""

import json
from typing import Any

import httpx
import pytest

from tests.described import MODES, statuses_of


def described(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(url.replace("/v1", "/openapi.json")).json()
    return found


def test_every_address_is_described(url: str) -> None:
    schema = described(url)
    assert set(schema["paths"]) == {
        "/infill",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/{name}",
    }
    page = httpx.get(url.replace("/v1", "/docs")).text
    assert "Outrider on this device" in page
    assert "<script" not in page
    assert json.dumps(schema).count("$ref") > 10


def narrowed(schema: dict[str, Any]) -> dict[str, Any]:
    """What this model can be asked quickly: something said, ids that there are, short answers, in a mode that there is,
    and no grammars of chance."""
    parts = schema["components"]["schemas"]
    for name in ("ChatRequest", "CompletionRequest"):
        fields = parts[name]["properties"]
        fields["model"] = {"enum": ["auto", "local"]}
        fields["n"] = {"type": "integer", "minimum": 1, "maximum": 2}
        for field in ("max_tokens", "max_completion_tokens"):
            if field in fields:
                fields[field] = {"type": "integer", "minimum": 1, "maximum": 3}
        parts[name]["required"] = [*parts[name]["required"], "max_tokens"]
    fields = parts["InfillRequest"]["properties"]
    fields["model"] = {"enum": ["auto", "local"]}
    fields["n_predict"] = {"type": "integer", "minimum": 0, "maximum": 3}
    parts["InfillRequest"]["required"] = ["n_predict"]
    for field in ("response_format", "tools"):
        del parts["ChatRequest"]["properties"][field]
    said = {"type": "string", "minLength": 1}
    parts["ChatMessage"]["properties"]["content"] = said
    parts["ChatMessage"]["required"] = [*parts["ChatMessage"]["required"], "content"]
    ids = {"type": "array", "items": {"type": "integer", "minimum": 3, "maximum": 200}, "minItems": 1, "maxItems": 50}
    parts["CompletionRequest"]["properties"]["prompt"] = {"anyOf": [said, {"type": "array", "items": said}, ids]}
    return schema


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_asked", [30, pytest.param(400, marks=pytest.mark.slow)])
def test_schemathesis_finds_no_failure(url: str, num_asked: int, mode: str) -> None:
    schema, base_url = narrowed(described(url)), url.removesuffix("/v1")
    statuses = statuses_of(schema, base_url, mode, num_asked, refuses_wrong=False, not_built="/v1/embeddings")
    assert statuses[200 if mode == "positive" else 400] > num_asked // 10, statuses
