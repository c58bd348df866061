"""Other programs that speak OpenAI's interface, as people use them."""

import json
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner

from edge_runtime.runtime import Runtime
from tests.edge_runtime.api.test_openai_client import NUM_TOKENS, SEED, TOOLS, said
from tests.edge_runtime.api.tiny import HELLO

LIMIT_S = 60


def test_curl_hears_a_stream(url: str, pair: Runtime) -> None:
    body = {"model": "auto", "messages": HELLO, "temperature": 0, "max_tokens": 8, "stream": True}
    done = subprocess.run(
        ["curl", "-sN", f"{url}/chat/completions", "-H", "Content-Type: application/json", "-d", json.dumps(body)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    *events, last, end = done.stdout.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == said(pair, temperature=0, num_tokens=8, logit_bias=())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_langchain(url: str, pair: Runtime) -> None:
    from langchain_openai import ChatOpenAI
    from pydantic import BaseModel

    class Size(BaseModel):
        size: Literal[1, 2, 3]

    def model(**over: Any) -> ChatOpenAI:
        values = {"model": "auto", "temperature": 1.2, "seed": SEED, "max_tokens": NUM_TOKENS, "max_retries": 0, **over}
        return ChatOpenAI(base_url=url, api_key="none", **values)  # type: ignore[arg-type]

    want = said(pair, logit_bias=())
    answer = model().invoke("hello")
    assert answer.content == want
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] <= NUM_TOKENS
    parts = list(model(stream_usage=True).stream("hello"))
    assert "".join(str(part.content) for part in parts) == want
    found = model(max_tokens=300).with_structured_output(Size, method="json_schema").invoke("hello")
    assert isinstance(found, Size)
    called = model(max_tokens=400).bind_tools(TOOLS, tool_choice="required").invoke("hello")
    assert called.tool_calls[0]["name"] in ("weather", "clock")  # type: ignore[attr-defined]


def test_the_llm_command(url: str, pair: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its documentation has it: a model of a file of its own, and an option."""
    from llm.cli import cli

    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: here\n  model_name: auto\n  api_base: {url}\n  api_key_name: none\n"
    )
    options = ["-o", "temperature", "0", "-o", "max_tokens", "8"]
    done = CliRunner().invoke(cli, ["-m", "here", "hello", "--key", "none", "--no-log", *options])
    assert done.exit_code == 0, done.output
    assert done.stdout.removesuffix("\n") == said(pair, temperature=0, num_tokens=8, logit_bias=())
