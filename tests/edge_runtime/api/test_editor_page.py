"""docs/editor.md: the settings lead to this endpoint, its example runs, and what it says of requests is so."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import httpx
import msgspec
import yaml

from edge_runtime.api.schemas import InfillRequest
from edge_runtime.api.suggestions import MAX_KEPT
from tests.edge_runtime.api.test_infill import SENT
from tests.edge_runtime.api.tiny import client

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "editor.md").read_text()
LIMIT_S = 60


def block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[-1]


def test_llama_vim_s_settings_lead_to_the_call(url: str) -> None:
    settings = dict(re.findall(r"'(\w+)': ([^,]+),", block("vim")))
    address = settings["endpoint"].strip("'").replace("http://127.0.0.1:8600", url.removesuffix("/v1"))
    assert httpx.post(address, json={**SENT, "n_predict": 2}, timeout=LIMIT_S).status_code == 200


def test_llama_vscode_s_settings_lead_to_the_call(url: str) -> None:
    endpoint = json.loads(block("json"))["llama-vscode.endpoint"]
    address = endpoint.replace("http://127.0.0.1:8600", url.removesuffix("/v1")) + "/infill"  # as the plugin does
    assert httpx.post(address, json={**SENT, "n_predict": 2}, timeout=LIMIT_S).status_code == 200


def test_continue_s_template_is_a_gap(url: str) -> None:
    """Its client is OpenAI's, with the template filled in; `suffix` says the same."""
    [model] = yaml.safe_load(block("yaml"))["models"]
    template: str = model["promptTemplates"]["autocomplete"]
    prompt = template.replace("{{{prefix}}}", "hello wor").replace("{{{suffix}}}", "\n hello")
    base = model["apiBase"].replace("http://127.0.0.1:8600/v1", url)
    wish: Any = {"model": model["model"], "temperature": 0, "max_tokens": 12}
    with client(base, api_key=model["apiKey"]) as ai:
        filled = ai.completions.create(prompt=prompt, **wish).choices[0].text
        assert filled == ai.completions.create(prompt="hello wor", suffix="\n hello", **wish).choices[0].text
        stream = ai.completions.create(prompt=prompt, stream=True, **wish)
        assert "".join(chunk.choices[0].text for chunk in stream) == filled


def test_the_example_runs(url: str) -> None:
    command = shlex.split(block("sh").replace("\\\n", " ").replace("http://127.0.0.1:8600", url.removesuffix("/v1")))
    done = subprocess.run([*command, "-s"], capture_output=True, text=True, timeout=LIMIT_S, check=True)
    answer = json.loads(done.stdout)
    assert {"content", "stop_type", "timings", "x_outrider", "tokens_recalled", "truncated"} <= answer.keys()


def test_every_field_is_told_of() -> None:
    fields = {field.name for field in msgspec.structs.fields(InfillRequest)}
    assert all(f"`{field}`" in PAGE for field in fields)
    assert f"The last {MAX_KEPT} suggestions" in PAGE
