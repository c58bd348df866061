"""The Python of docs/api.md, block after block as it stands there, against an endpoint over tiny models."""

import asyncio
import json
import re
from typing import Any

import pytest

from docs import reference
from edge_runtime.runtime import Runtime
from tests.test_docs import PAGES, ROOT

PAGE = ROOT / "docs" / "api.md"


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_every_example_of_the_page_runs(
    url: str, pair: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("secrets.randbits", lambda bits: 7)  # the seed where the page gives none
    names: dict[str, Any] = {"__name__": "example"}
    said = []
    for block in blocks(PAGE.read_text()):
        exec(compile(block.replace("http://127.0.0.1:8600/v1", url), "docs/api.md", "exec"), names)
        said.append(capsys.readouterr().out)
    first, _, rating, _ = said
    assert first
    assert names["text"]
    assert json.loads(rating) in [{"stars": stars} for stars in (1, 2, 3)]
    names["tell"](pair)
    assert capsys.readouterr().out
    asyncio.run(names["tell_later"](pair))
    assert capsys.readouterr().out


def test_no_other_page_has_examples_that_nothing_runs() -> None:
    with_python = {page.name for page in PAGES if blocks(page.read_text())}
    assert with_python == {"README.md", PAGE.name, reference.PAGE.name}  # the last has signatures, and doctests
