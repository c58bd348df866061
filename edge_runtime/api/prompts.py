"""Conversations and texts as OpenAI's clients send them, as ids of the model's. Raises InvalidParameter and its kin."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from edge_runtime.api.schemas import ChatMessage, Tool
from edge_runtime.options import MAX_ANSWERS, TokenIds
from outrider.errors import InvalidParameter
from outrider.tokens import TextCodec

__all__ = ["chat_prompt", "text_prompts"]


def chat_prompt(codec: TextCodec, messages: Sequence[ChatMessage], tools: Sequence[Tool] | None) -> TokenIds:
    """As the model's own chat template writes it."""
    found = [_message(number, message) for number, message in enumerate(messages)]
    return TokenIds(codec.encode_chat(found, None if tools is None else [_tool(tool) for tool in tools]))


def _message(number: int, message: ChatMessage) -> dict[str, Any]:
    """As chat templates want them: content a text, the arguments of calls objects."""
    content = message.content
    text = "".join(part.text for part in content) if isinstance(content, list) else content
    if text is None and not message.tool_calls:
        raise InvalidParameter(f"messages[{number}].content is null; give a text")
    found: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": text or "",
    }
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    return found


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _tool(tool: Tool) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(tool)
    found["function"].pop("strict", None)
    return found


def text_prompts(codec: TextCodec, prompt: str | list[str | int | list[int]]) -> list[TokenIds]:
    """One for a text or a list of ids, several for a list of either."""
    if isinstance(prompt, str):
        return [TokenIds(codec.encode(prompt))]
    found: list[TokenIds] = []
    ids = [each for each in prompt if isinstance(each, int)]
    if ids and len(ids) == len(prompt):
        return [TokenIds(ids)]
    for each in prompt:
        if isinstance(each, int):
            raise InvalidParameter(
                "prompt has ids beside texts; give a text, ids, or a list of the one or of the other"
            )
        found.append(TokenIds(codec.encode(each) if isinstance(each, str) else each))
    if len(found) > MAX_ANSWERS:
        raise InvalidParameter(f"prompt has {len(found)} entries; give at most {MAX_ANSWERS}")
    return found
