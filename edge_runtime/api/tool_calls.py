"""Functions that the model may call: whether its template knows them, and the calls in what it says.

One form is known, that of Qwen and Hermes: {"name": ..., "arguments": {...}} between <tool_call> and </tool_call>. What
looks like a call and is none stays text. Knows no HTTP.
"""

import json
import secrets
from collections.abc import Sequence

from edge_runtime.api.schemas import NamedTool, Tool, ToolCall, ToolCallFunction
from outrider.constraint import Grammar
from outrider.errors import InvalidParameter
from outrider.stops import StopStrings
from outrider.tokens import TextCodec

__all__ = ["CallSplitter", "check_tools", "must_call"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def check_tools(codec: TextCodec) -> None:
    """Raises InvalidParameter where the model cannot be told of tools, or answers with calls of an unknown form."""
    if "tools" not in codec.template or OPEN not in codec.template or OPEN in codec.control_ids:
        raise InvalidParameter(
            "tools are not for this model: its chat template has none of a form known here; leave them out"
        )


def must_call(codec: TextCodec, tools: Sequence[Tool], choice: str | NamedTool | None) -> Grammar | None:
    """What the answer has to follow: a call, where one is required. Raises InvalidParameter for an unknown name."""
    names = [tool.function.name for tool in tools]
    if isinstance(choice, NamedTool):
        names = [choice.function.name]
    elif choice != "required":
        return None
    chosen = [tool.function for tool in tools if tool.function.name in names]
    if not chosen:
        raise InvalidParameter("tool_choice names a function that is not among the tools; name one of them")
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": function.name}, "arguments": function.parameters or {"type": "object"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for function in chosen
    ]
    schema = json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls})
    # To a grammar a mark that is one token is that token and no text.
    first, last = (mark if codec.tokenizer.token_to_id(mark) is not None else f'"{mark}"' for mark in (OPEN, CLOSE))
    return Grammar("lark", f'start: {first} "\\n" call "\\n" {last}\ncall: %json {schema}\n')


class CallSplitter:
    """Tells text and calls apart in a stream of text. With `takes_one` what follows the first call is passed over."""

    def __init__(self, *, takes_one: bool = False) -> None:
        self._takes_one = takes_one
        self._mark = StopStrings([OPEN])
        self._call: str | None = None  # what was said since the mark
        self.num_calls = 0

    def feed(self, text: str) -> tuple[str, list[ToolCall]]:
        """The text that may be told, and the calls that are complete."""
        told, calls = "", []
        while text or self._call is not None:
            if self._call is None:
                before = self._mark.feed(text)
                told += before
                if not self._mark.is_hit:
                    break
                text = self._mark.rest
                self._call = ""
            self._call += text
            body, mark, text = self._call.partition(CLOSE)
            if not mark:
                break
            self._call, self._mark = None, StopStrings([OPEN])
            call = self._read(body)
            if call is None:
                told += OPEN + body + CLOSE
            elif not (self._takes_one and self.num_calls):
                self.num_calls += 1
                calls.append(call)
        is_between = self.num_calls > 0 and not told.strip()
        return ("" if is_between else told), calls

    def flush(self) -> str:
        """What was held back, at the answer's end: a call that was not finished is text."""
        return self._mark.flush() + ("" if self._call is None else OPEN + self._call)

    def _read(self, body: str) -> ToolCall | None:
        try:
            said = json.loads(body, parse_constant=_refuse)
            name, arguments = said["name"], said.get("arguments", {})
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            f"{name}{text}".encode()  # half a character cannot be told
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        if not isinstance(name, str):
            return None
        return ToolCall(f"call_{secrets.token_hex(12)}", ToolCallFunction(name, text))


def _refuse(constant: str) -> None:
    """NaN and the infinities are no JSON, and their reader may not take them."""
    raise ValueError(constant)
