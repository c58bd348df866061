"""Writes docs/reference.md: what Python code may call, from the docstrings of the public modules (`make docs`).

Everything comes from the source, in the source's own words and order; nothing of it is written by hand, and the same
source gives the same page. Knows which modules are public.
"""

import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import outrider.errors

PAGE = Path(__file__).with_name("reference.md")
SOURCE = Path(__file__).parent.parent
# module -> what it is about, and which of its names are public; none named: all
MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "edge_runtime": ("On the device: what an app holds", ()),
    "edge_runtime.journal": ("What the device remembers", ("Asked", "Conversation", "Generation")),
    "edge_runtime.drafters": ("Who guesses ahead", ("Drafter", "Proposal")),
    "edge_runtime.links": ("Ways to a verifier", ("Link", "WebSocketLink")),
    "edge_runtime.api": ("The endpoint", ("ApiKey", "ApiSettings", "Modes", "create_api_server")),
    "cloud_verifier.target": ("A target ready to verify", ("LocalVerifier", "open_verifier")),
    "cloud_verifier.server": ("The verifier as a service", ("create_server",)),
    "cloud_verifier.settings": ("Its settings", ()),
    "outrider.catalog": ("Models by name", ("cards", "find", "home", "pull", "recipes", "stored")),
    "outrider.tokens": ("Text and token ids", ("StreamDecoder", "TextCodec")),
    "outrider.choice": ("What the target chooses", ("choose", "gumbel_noise", "top_logprobs")),
    "outrider.acceptance": ("Drafts against choices", ()),
    "outrider.engines": ("Engines", ()),
    "outrider.receipt": ("Receipts", ("Receipt", "Statement", "check", "key_name", "state")),
    "outrider.progress": ("Progress", ()),
    "outrider.errors": ("Errors", ()),
}
HEAD = """# Reference

What Python code may call, made from its docstrings by `make docs`. To begin with: [README](../README.md#try-it), and
[from Python, without HTTP](api.md#from-python-without-http). What is not listed here may change without notice.

"""
FIELDS = (ast.AnnAssign,)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def page() -> str:
    """The page's text."""
    seen: set[int] = set()
    contents = [f"- [`{name}`](#{name.replace('.', '')}): {title}" for name, (title, _) in MODULES.items()]
    parts = [HEAD + "\n".join(contents)]
    for name, (_, public) in MODULES.items():
        module = importlib.import_module(name)
        parts += [f"## {name}", prose(inspect.getdoc(module))]
        if module is outrider.errors:
            parts.append(errors())
            continue
        for entry in public or module.__all__:
            value = getattr(module, entry)
            if id(value) not in seen:
                seen.add(id(value))
                parts += described(module, entry, value)
    return "\n\n".join(part for part in parts if part) + "\n"


def described(module: ModuleType, name: str, value: Any) -> Iterator[str]:
    """One name of a module's `__all__`."""
    yield f"### {name}"
    home = getattr(module, "HOMES", {}).get(name) or getattr(value, "__module__", "")
    if inspect.isclass(value) or inspect.isfunction(value):
        node, lines = parsed(inspect.getsource(value))
        if isinstance(node, ast.ClassDef):
            yield prose(inspect.cleandoc(ast.get_docstring(node) or ""))
            yield from members(name, node, lines)
        elif isinstance(node, FUNCTIONS):
            yield signature(node, lines)
            yield prose(ast.get_docstring(node))
    else:  # an alias or a number: the line that says what it is
        yield from assigned(importlib.import_module(home if home.split(".")[0] in ROOTS else module.__name__), name)


def assigned(module: ModuleType, name: str) -> Iterator[str]:
    """The line of `module` that gives a name its value, or of the module that it was imported from."""
    text = Path(str(module.__file__)).read_text(encoding="utf-8")
    for each in ast.parse(text).body:
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == name:
            yield code(text.splitlines()[each.lineno - 1 : each.end_lineno])
        if isinstance(each, ast.ImportFrom) and each.module and name in (alias.name for alias in each.names):
            yield from assigned(importlib.import_module(each.module), name)


def members(name: str, node: ast.ClassDef, lines: list[str]) -> Iterator[str]:
    """A class's fields, with the words beside them, and its methods."""
    fields = [each for each in node.body if isinstance(each, FIELDS) and is_public(ast.unparse(each.target))]
    if fields:
        yield code([line for each in fields for line in lines[each.lineno - 1 : each.end_lineno]])
    methods = [each for each in node.body if isinstance(each, FUNCTIONS)]
    has_makers = any("classmethod" in decorators(each) for each in methods)
    for each in methods:
        if each.name == "__init__" and not has_makers:
            yield f"#### {name}()"
        elif is_public(each.name):
            yield f"#### {name}.{each.name}"
        else:
            continue
        yield signature(each, lines)
        yield prose(ast.get_docstring(each))


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [ast.unparse(each) for each in node.decorator_list]


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str:
    first = node.body[0]
    head = lines[node.lineno - 1 : first.lineno - 1] or [lines[node.lineno - 1][: first.col_offset]]
    while head and head[-1].strip().startswith("#"):
        head.pop()
    words = [f"@{each}" for each in decorators(node) if each in ("classmethod", "staticmethod", "property")]
    return code([*words, *textwrap.dedent("\n".join(head)).rstrip().removesuffix(":").splitlines()])


def errors() -> str:
    rows = ["| class | `code` | exit status | HTTP status | may be tried again |", "|---|---|---|---|---|"]
    for name in outrider.errors.__all__:
        kind = getattr(outrider.errors, name)
        if inspect.isclass(kind):
            retry = "yes" if kind.may_retry else ""
            rows.append(f"| `{name}` | `{kind.code}` | {kind.exit_status} | {kind.http_status} | {retry} |")
    return "\n".join(rows)


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: doctests, and paragraphs with indented lines in them, are code."""
    parts = re.split(r"\n\n", docstring or "")
    return "\n\n".join(
        part if part.startswith("    ") else code(part.splitlines()) if is_code(part) else escaped(part)
        for part in parts
    )


def is_code(paragraph: str) -> bool:
    return paragraph.startswith(">>> ") or "\n    " in paragraph


def escaped(text: str) -> str:
    """Outside of `code` Markdown would take these for its own."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(each if each.startswith("`") else re.sub(r"([*<])", r"\\\1", each) for each in pieces)


def parsed(source: str) -> tuple[ast.stmt, list[str]]:
    text = textwrap.dedent(source)
    return ast.parse(text).body[0], text.splitlines()


def code(lines: list[str]) -> str:
    return "```python\n" + textwrap.dedent("\n".join(lines)) + "\n```"


def is_public(name: str) -> bool:
    return not name.startswith("_")


ROOTS = ("outrider", "cloud_verifier", "edge_runtime")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stderr.write(f"{PAGE.relative_to(SOURCE)} is written\n")
