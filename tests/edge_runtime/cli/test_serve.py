"""`outrider serve` as a person meets it: a real process, tiny models, every mode."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_runtime.cli import main
from edge_runtime.journal import Journal
from tests.edge_runtime.api.tiny import HELLO, client, write_store
from tests.lazy import openai
from tests.warm import Forked

TINY = ("--threads", "1", "--context", "512")
LIMIT_S = 60
KEY = "a-key-of-this-device"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def _use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(home))
    monkeypatch.delenv("OUTRIDER_API_KEY", raising=False)


@contextmanager
def command(*words: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Gives the address that it says it answers at."""
    process = Forked(["outrider", words[0], "--port", "0", *TINY, *words[1:]], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r" at (http://\S+)", line):
                yield found[1], process
                break
        else:
            raise AssertionError("it did not start")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_pair_answers_and_stops_when_told() -> None:
    with command("serve", "--target", "tiny", "--drafter", "tiny") as (url, process), client(url) as ai:
        assert [model.id for model in ai.models.list()] == ["auto", "local", "tiny"]
        answer = ai.chat.completions.create(model="auto", messages=HELLO, max_tokens=8, temperature=0)
        assert answer.x_outrider["state"] == "verified"  # type: ignore[attr-defined]
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(LIMIT_S) == 0
    assert said.rstrip().endswith("stopped")
    assert "Traceback" not in said
    assert "hello" not in said
    assert "/v1/chat/completions" in said  # a line for each request


@pytest.mark.parametrize("context", ["512", "4096"])  # less than the model holds, and more
def test_a_file_that_fills_the_context_is_cut_and_not_refused(context: str) -> None:
    words = ("serve", "--target", "tiny", "--drafter", "lookup", "--context", context)
    long = {"input_prefix": "x = 1; " * 9000, "input_suffix": "y = 2; " * 9000}
    with command(*words) as (url, _):
        for over in ({"n_predict": 0}, {"n_predict": 3}, {"n_predict": 32, "prompt": "hello_h"}):
            address = url.removesuffix("/v1") + "/infill"
            answer = httpx.post(address, json=long | over, timeout=LIMIT_S)
            assert answer.status_code == 200, answer.text
            assert answer.json()["truncated"] is True


def test_every_mode_of_a_device_with_a_verifier(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """hybrid, cloud and the name of the target say the same; local, the drafter's own words; offline, those as well,
    and then sync has the journal's put right."""
    wish: Any = {"messages": HELLO, "max_tokens": 16, "temperature": 0}
    with command("verifier", "tiny") as (verifier, there):
        words = ("serve", "--verifier", verifier, "--target", "tiny", "--drafter", "other", "--journal")
        with command(*words) as (url, _), client(url) as ai:
            answers = {
                model.id: ai.chat.completions.create(model=model.id, **wish).model_dump() for model in ai.models.list()
            }
            there.kill()
            there.wait()
            offline = ai.chat.completions.create(model="auto", **wish).model_dump()
            with pytest.raises(openai.InternalServerError):
                ai.chat.completions.create(model="auto", extra_headers={"X-Outrider-Strict": "true"}, **wish)
    text = {name: answer["choices"][0]["message"]["content"] for name, answer in answers.items()}
    states = {name: answer["x_outrider"]["state"] for name, answer in answers.items()}
    assert text["auto"] == text["hybrid"] == text["cloud"] == text["tiny"] != text["local"]
    assert states.pop("local") == "provisional"
    assert set(states.values()) == {"verified"}
    assert offline["x_outrider"]["state"] == "provisional"
    assert offline["choices"][0]["message"]["content"] == text["local"]
    with Journal() as journal:
        assert len(journal.conversations()) == 5  # auto, hybrid, cloud, the target's name; auto offline; none of local
        assert len(journal.pending()) == 1
    with command("verifier", "tiny") as (verifier, _):
        monkeypatch.setattr(sys, "argv", ["outrider", "sync", "--verifier", verifier, "--json"])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 0
    assert json.loads(capsys.readouterr().out)["text"] == text["auto"]


def test_a_key_in_a_file_lets_in_who_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    words = ("serve", "--target", "tiny", "--drafter", "none", "--api-key-file", str(file))
    with command(*words) as (url, _):
        assert httpx.get(f"{url}/models").status_code == 401
        with client(url, api_key=KEY) as ai:
            assert ai.models.list().data


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--target", "tinny"], "unknown_model"),
        (["--port", "70000"], "from 0 to 65535"),
        (["--sessions", "0"], "from 1 to 1024"),
        (["--log-format", "xml"], "json or text"),
        (["--host", "0.0.0.0"], "not a loopback address, and the service would have no key and TLS"),
        (["--host", "0.0.0.0", "--api-key-file", "KEY"], "no TLS"),
        (["--tls-cert", "KEY"], "give both"),
        (["--api-key-file", "/nowhere/at/all"], "cannot be read as a key"),
        (["--api-key-file", "SHORT"], "is not one"),
        (["--verifier", "ftp://x"], "not a verifier's address"),
    ],
)
def test_what_cannot_be_served_is_one_line_with_a_code(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "short").write_text("short")
    files = {"KEY": str(tmp_path / "key"), "SHORT": str(tmp_path / "short")}
    arguments = [files.get(word, word) for word in words]
    target = [] if "--target" in words or "--verifier" in words else ["--target", "tiny"]
    monkeypatch.setattr(sys, "argv", ["outrider", "serve", *target, *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_a_port_in_use_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["outrider", "serve", "--target", "tiny", "--port", port])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 2
    assert "or --port" in capsys.readouterr().err
