"""The endpoint described as OpenAPI, from the very types that read and write it."""

from cloud_verifier.openapi import Description
from cloud_verifier.schemas import JSON
from edge_runtime.api.errors import ErrorReply
from edge_runtime.api.replies import ChatCompletion, Completion, InfillReply, Model, Models
from edge_runtime.api.schemas import ChatRequest, CompletionRequest, EmbeddingRequest, InfillRequest

__all__ = ["DESCRIPTION"]

REFUSALS = {
    400: "Not a request that can be answered.",
    401: "No key, or not the right one.",
    403: "This may not be asked from here.",
    404: "No such model.",
    408: "The body did not come in time.",
    413: "Too large.",
    415: "Not JSON.",
    429: "Too many requests at once.",
    500: "The engine's answer was not usable.",
    502: "The verifier will not have this device, or runs another model.",
    503: "The verifier cannot be heard, or an engine failed; x-should-retry says whether to come again.",
}
DATA = "A chunk as OpenAI has it, with x_outrider, in JSON; {error} where it broke; at last [DONE]."
EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string", "description": DATA}}}
KINDS = (
    *(ChatRequest, ChatCompletion, CompletionRequest, Completion, InfillRequest, InfillReply),
    *(EmbeddingRequest, Model, Models, ErrorReply),
)
DESCRIPTION = Description(KINDS, REFUSALS, ErrorReply, (JSON,), EVENT)
