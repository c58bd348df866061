"""What the shell is told to complete, asked as bash asks."""

import pytest

from edge_runtime.cli.frame import app
from tests.edge_runtime.cli.test_generate import Run, _use_home, home, run

__all__ = ["_use_home", "home", "run"]  # fixtures


def completed(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("_OUTRIDER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    with pytest.raises(SystemExit):
        app(prog_name="outrider")
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("outrider doc", ["doctor"]),
        ("outrider generate --target ti", ["tiny"]),
        ("outrider chat --drafter smollm2-135m-i", ["smollm2-135m-instruct"]),
        ("outrider generate --drafter look", ["lookup"]),
        ("outrider chat --drafter lookup+ti", ["lookup+tiny"]),
        ("outrider doctor --drafter a", ["auto"]),
        ("outrider tune --goal lat", ["latency"]),
        ("outrider pull qwen2.5-coder-1.5b-i", ["qwen2.5-coder-1.5b-instruct"]),
        ("outrider export gem", ["gemma-3-270m"]),
        ("outrider verifier ti", ["tiny"]),
        ("outrider profile ti", ["tiny"]),
        ("outrider chat --mode str", ["strict"]),
        ("outrider config set token", ["token_file"]),
        ("outrider generate --ver", ["--verifier"]),
    ],
)
def test_commands_options_and_names_are_completed(
    words: str, found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed(words, monkeypatch, capsys) == found


def test_it_can_be_installed(run: Run) -> None:
    assert "--install-completion" in run("--help").stdout
