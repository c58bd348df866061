"""The frame of the command line: what the system refuses is a line and a status, whatever command asked for it."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.cli import output
from outrider.wire import Fault
from tests.edge_runtime.cli.in_process import run

COMMAND = [sys.executable, "-c", "from edge_runtime.cli import main; main()"]
LIMIT_S = 60


class Full(io.StringIO):
    """A disk without room."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "words", [["models"], ["models", "--json"], ["config", "path"], ["--help"], ["models", "--help"]]
)
def test_an_output_without_room_is_one_line_and_status_1(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    assert run(words, monkeypatch) == 1
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert err.endswith("[system_error]\n")
    assert err.count("\n") == 1


def test_a_store_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "store").write_text("no folder")
    monkeypatch.setenv("OUTRIDER_HOME", str(tmp_path / "store"))
    assert run(["pull", "smollm2-135m-instruct"], monkeypatch) == 1
    err = capsys.readouterr().err
    assert str(tmp_path / "store") in err
    assert err.endswith("[system_error]\n")


def shell(redirection: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)


def test_what_found_no_room_is_not_tried_again_at_the_exit() -> None:
    done = shell(">/dev/full", "config", "path")
    assert done.returncode == 1
    assert done.stderr.endswith("[system_error]\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closing", [">&-", "<&- 2>&-"])
def test_streams_that_the_caller_closed_go_nowhere(closing: str) -> None:
    done = shell(closing, "config", "path")
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closing != ">&-")


def test_a_prompt_from_a_closed_stream_is_an_empty_one() -> None:
    done = shell("<&-", "generate", "-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("[empty_prompt]\n")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stage_is_told_as_it_is_called(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds of prompts, files and models are called as their owners like."""
    told = io.StringIO()
    monkeypatch.setattr(output.console, "_file", told)
    monkeypatch.setattr(output.console, "_force_terminal", is_terminal)
    with output.show_progress() as progress:
        progress("[/red] :dog: 1", 0, 2)
        progress("[/red] :dog: 1", 2, 2)
    assert "[/red] :dog: 1" in told.getvalue()


CTRL_C_AT = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
module = sys.argv.pop()


class Finder:
    def find_spec(self, name, *rest):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)


sys.meta_path.insert(0, Finder())
from edge_runtime.cli import main

sys.argv.append("models")
main()
"""


@pytest.mark.parametrize("module", ["typer", "edge_runtime.cli.models"])
def test_ctrl_c_before_anything_is_loaded_is_one_line(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", CTRL_C_AT, module], capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "outrider: interrupted [interrupted]\n")


def test_what_a_stranger_says_in_an_error_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    error = Fault("overloaded", "busy\x1b]52;c;aGk=\x07\x1b[2J\x9b2J\ncome back").error()
    output.console.print(f"outrider: {error}")
    told = capsys.readouterr().err
    assert told.splitlines() == ["outrider: busy]52;c;aGk=[2J2J", "come back"]
