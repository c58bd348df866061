"""Tiny real models for the endpoint, runtimes over them, and the endpoint on a loopback port for as long as a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloud_verifier.settings import DoorSettings
from edge_runtime.api import ApiSettings, Modes, create_api_server
from edge_runtime.runtime import Runtime
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.manifest import Source, file_sha256
from tests.export.models import write_gguf
from tests.lazy import openai
from tests.serving import running

SETTINGS = EngineSettings(num_threads=1, max_context=1024, max_sequences=2)
UNHURRIED = ApiSettings(requests_per_s=1e6)
HELLO: Any = [{"role": "user", "content": "hello"}]
MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>")
CHAT = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "Put calls between <tool_call> and </tool_call>.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function.arguments.city }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant{{ '\n' }}"
)


def write_store(home: Path) -> Path:
    """`tiny` and `other`, of one vocabulary, know tools and gaps; `plain` knows neither."""
    for name, seed, more in (
        ("tiny", 1, {"marks": MARKS, "chat": CHAT}),
        ("other", 2, {"marks": MARKS, "chat": CHAT}),
        ("plain", 1, {}),
    ):
        file = write_gguf(home / name / f"{name}.gguf", seed=seed, max_context=1024, **more)  # type: ignore[arg-type]
        catalog.install_gguf(file, home / name, name=name, licence="none", source=Source("random", file_sha256(file)))
    return home


@contextlib.contextmanager
def endpoint(
    runtime: Runtime, *, is_remote: bool = False, model: str = "", settings: DoorSettings = UNHURRIED
) -> Iterator[str]:
    """Gives its address, as clients want it."""
    modes = Modes(runtime, is_remote=is_remote, model=model)
    with running(create_api_server(modes, settings)) as address:  # type: ignore[arg-type]
        yield f"http://{address}/v1"


def client(url: str, **over: Any) -> openai.OpenAI:
    return openai.OpenAI(**{"base_url": url, "api_key": "none", "max_retries": 0, "timeout": 60, **over})
