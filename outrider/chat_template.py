"""Renders a model's chat template: a Jinja program that came with the model, so it is run as a stranger's.

It runs in Jinja's immutable sandbox and within limits: a deadline that every loop step, call and operator looks at, and
a size that no text may pass on its way. The limits stop accidents and simple bombs; what makes a template trusted is
the hash its folder's manifest pins. Knows nothing about tokens or model folders.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import do_join
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_eval_context
from jinja2.visitor import NodeTransformer

from outrider.errors import ContextExceeded, InvalidModel

__all__ = ["render_chat"]

MAX_TEMPLATE = 256 << 10  # characters
MAX_TEXT = 4 << 20  # characters or items of anything a template makes
MAX_SECONDS = 1.0
# filters that make a long text from a short one and that chat templates do without
REFUSED_FILTERS = ("batch", "center", "format", "indent", "pprint", "slice", "urlize", "wordwrap", "xmlattr")


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    bos_token: str = "",
    eos_token: str = "",
) -> str:
    """The conversation as the model wants to read it, up to where it is to answer. `tools` are functions that it may
    call, each as {"type": "function", "function": {...}}; a template that does not know them leaves them out.

    Raises InvalidModel when the template fails, reaches for what the sandbox forbids, or asks for too much, and
    ContextExceeded for messages that are too long for any.
    """
    if len(template) > MAX_TEMPLATE:
        raise InvalidModel(
            f"its chat template has {len(template)} characters, more than {MAX_TEMPLATE}; use another model"
        )
    length = sum(len(content) for message in messages if isinstance(content := message.get("content"), str))
    if length > MAX_TEXT:
        raise ContextExceeded(f"the messages have {length} characters and the limit is {MAX_TEXT}; shorten them")
    environment = _Sandbox()
    try:
        tree = _Guard().visit(environment.parse(template))
        code = environment.compile(tree)
        program = environment.template_class.from_code(environment, code, environment.make_globals(None))
        pieces: list[str] = []
        size = 0
        for piece in program.generate(
            messages=messages, tools=tools, add_generation_prompt=True, bos_token=bos_token, eos_token=eos_token
        ):
            environment.check_time()
            size += len(piece)
            environment.check_size(size)
            pieces.append(piece)
        return "".join(pieces)
    except (
        TemplateError,
        ArithmeticError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise InvalidModel(f"its chat template failed ({error}); use another model or plain text") from None


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        self.deadline = time.monotonic() + MAX_SECONDS
        for name in REFUSED_FILTERS:
            del self.filters[name]
        self.filters |= {"steps": self.steps, "join": self.join, "replace": self.replace, "tojson": self.tojson}
        self.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise SecurityError(f"it ran longer than {MAX_SECONDS:g} s")

    def check_size(self, size: int) -> None:
        if size > MAX_TEXT:
            raise SecurityError(f"it made more than {MAX_TEXT} characters")

    def steps(self, items: Iterable[Any]) -> Iterator[Any]:
        """What every loop goes through."""
        for item in items:
            self.check_time()
            yield item

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.check_time()
        for value in args:
            self.check_size(value if isinstance(value, int) else 0)
        method, owner = getattr(obj, "__name__", ""), getattr(obj, "__self__", None)
        if isinstance(owner, str) and method == "replace" and len(args) > 1:
            return self.replace(owner, *args)
        if isinstance(owner, str) and method in ("join", "format", "format_map", "expandtabs", "translate"):
            raise SecurityError(f"the text method {method!r} is not allowed")
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.check_time()
        if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            self.check_size(len(left) + len(right))
        if operator == "*":
            self.check_size(_size(left) * _size(right))
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator!r} is not allowed there")
        return super().call_binop(context, operator, left, right)

    @pass_eval_context
    def join(self, eval_ctx: EvalContext, value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
        items = list(self.steps(value))
        self.check_size(len(items) * len(d))
        return str(do_join(eval_ctx, items, d, attribute))

    def replace(self, text: str, old: str, new: str, count: int = -1) -> str:
        text = str(text)
        self.check_size(len(text) + text.count(old) * len(new))
        return text.replace(old, new, count)

    def tojson(self, value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=min(indent, 8) if indent else None)


class _Guard(NodeTransformer):
    """Rewrites a template so that its loops and its `~` pass the sandbox's checks."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - the visitor finds it by this name
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "steps", [], [], None, None)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802 - the visitor finds it by this name
        self.generic_visit(node)
        texts = [nodes.Filter(part, "string", [], [], None, None) for part in node.nodes]
        whole: nodes.Expr = texts[0]
        for text in texts[1:]:
            whole = nodes.Add(whole, text)
        return whole


def _size(value: Any) -> int:
    """How much a factor of a product adds: a number counts as itself, a text or list as its length."""
    return abs(int(value)) if isinstance(value, int | float) else len(value)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
