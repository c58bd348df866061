"""REST doors described as OpenAPI, from the very types that read and write them; and a page that shows it.

The page has no script and asks nobody else for anything.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import FastAPI, Response

from cloud_verifier.schemas import (
    JSON,
    MSGPACK,
    ErrorAnswer,
    GenerateAnswer,
    GenerateRequest,
    Models,
    State,
    VerifyAnswer,
    VerifyRequest,
)

__all__ = ["Description", "add_pages", "describe"]

KINDS = (VerifyRequest, VerifyAnswer, GenerateRequest, GenerateAnswer, Models, State, ErrorAnswer)
REFUSALS = {
    400: "Not a request that can be answered.",
    401: "No token, or not a valid one.",
    403: "This may not be asked from here.",
    409: "Another target or vocabulary.",
    413: "Too large.",
    415: "Neither JSON nor msgpack.",
    429: "This credential's share is used up for now.",
    500: "The engine's answer was not usable.",
    503: "Full, failing or shutting down; Retry-After says when to come again.",
}
EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["tokens", "finished", "error"]},
        "data": {"type": "string", "description": "JSON: {tokens, logprobs}, {finish, num_tokens}, or {error}."},
    },
}


@dataclass(frozen=True)
class Description:
    """`kinds` are the types that the routes take and give, `refusals` a sentence for each status but 200, `error` what
    they answer then, `event` the schema of a server-sent event."""

    kinds: Sequence[type]
    refusals: Mapping[int, str]
    error: type
    media_types: Sequence[str]
    event: Mapping[str, Any]

    def route(
        self, summary: str, asked: type | None, answered: type, *, status: int = 200, streams: bool = False
    ) -> dict[str, Any]:
        """Arguments of a route: what it takes, gives and refuses with."""
        content = self._content(answered)
        if streams:
            content["text/event-stream"] = {"schema": self.event}
        responses: dict[int, dict[str, Any]] = {status: {"description": "Done.", "content": content}}
        for number, sentence in self.refusals.items():
            responses.setdefault(number, {"description": sentence, "content": self._content(self.error)})
        described: dict[str, Any] = {"summary": summary, "status_code": status, "responses": responses}
        if asked is not None:
            described["openapi_extra"] = {"requestBody": {"required": True, "content": self._content(asked)}}
        return described

    def add_pages(self, app: FastAPI) -> None:
        """/openapi.json, and /docs for people."""

        def described() -> dict[str, Any]:
            schema = FastAPI.openapi(app)
            _, components = msgspec.json.schema_components(self.kinds, ref_template="#/components/schemas/{name}")
            schema.setdefault("components", {}).setdefault("schemas", {}).update(components)
            return schema

        async def openapi() -> Response:
            return Response(json.dumps(described()), media_type=JSON)

        async def page() -> Response:
            return Response(_page(described()), media_type="text/html; charset=utf-8")

        app.add_api_route("/openapi.json", openapi, include_in_schema=False)
        app.add_api_route("/docs", page, include_in_schema=False)

    def _content(self, kind: type) -> dict[str, Any]:
        schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
        return {media_type: {"schema": schema} for media_type in self.media_types}


VERIFIER = Description(KINDS, REFUSALS, ErrorAnswer, (JSON, MSGPACK), EVENT)
describe = VERIFIER.route
add_pages = VERIFIER.add_pages


def _page(schema: dict[str, Any]) -> str:
    parts = [f"<h1>{html.escape(schema['info']['title'])}</h1><p>As <a href='openapi.json'>OpenAPI</a>.</p>"]
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2><p>{html.escape(route['summary'])}</p>")
            parts.append(f"<pre>{html.escape(json.dumps(route, indent=1))}</pre>")
    for name, component in schema["components"]["schemas"].items():
        parts.append(f"<h2>{html.escape(name)}</h2><pre>{html.escape(json.dumps(component, indent=1))}</pre>")
    return f"<!doctype html><meta charset=utf-8><title>{html.escape(schema['info']['title'])}</title>{''.join(parts)}"
