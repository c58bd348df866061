"""What docs/api.md shows is so: its examples run, and it names every field."""

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.api.schemas import ChatRequest, CompletionRequest
from edge_runtime.runtime import Runtime

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
ADDRESS = "http://127.0.0.1:8600/v1"


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_examples_run(url: str, pair: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {"__name__": "example"}
    for example in examples("python"):
        assert "outrider" in example or "ai." in example or "Runtime" in example
        exec(compile(example.replace(ADDRESS, url), "docs/api.md", "exec"), scope)
    scope["ai"].close()
    assert capsys.readouterr().out
    assert scope["answer"].choices[0].message.content.lstrip().startswith("{")
    assert scope["text"]
    scope["tell"](pair)
    first = capsys.readouterr().out
    asyncio.run(scope["tell_later"](pair))
    assert first
    assert capsys.readouterr().out


def test_the_curl_example_runs(url: str) -> None:
    [example] = [block for block in examples("sh") if block.startswith("curl")]
    done = subprocess.run(["bash", "-c", example.replace(ADDRESS, url)], capture_output=True, text=True, check=True)
    assert '"object":"chat.completion"' in done.stdout


def test_every_field_is_named() -> None:
    for field in {*ChatRequest.__struct_fields__, *CompletionRequest.__struct_fields__}:
        assert f"`{field}`" in PAGE, field
