"""`outrider config`, and what its file and the environment change in other commands."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from edge_runtime.cli.config_file import OPTIONS, config_path, defaults, load
from edge_runtime.cli.frame import COMMANDS, LazyGroup
from outrider import catalog
from tests.edge_runtime.cli.test_generate import Run, _use_home, home, run

__all__ = ["_use_home", "home", "run"]  # fixtures

ASK = ("generate", "hello", "--max-tokens", "4", "--json")


def test_what_is_set_is_the_default_of_commands_until_it_is_unset(run: Run) -> None:
    for key, value in (("target", "tiny"), ("drafter", "none"), ("threads", "1"), ("context", "256")):
        assert run("config", "set", key, value).returncode == 0
    assert tomllib.loads(config_path().read_text()) == {
        "target": "tiny",
        "drafter": "none",
        "threads": 1,
        "context": 256,
    }
    shown = run("config", "show", "--json")
    assert json.loads(shown.stdout)["values"]["threads"] == 1
    assert run("config", "show").stdout == "target = tiny\ndrafter = none\nthreads = 1\ncontext = 256\n"
    assert "past is true from now on" in run("config", "set", "past", "True").stderr
    assert run("config", "show").stdout.endswith("\npast = true\n")
    assert run("config", "unset", "past").returncode == 0
    assert run("config", "path").stdout == f"{config_path()}\n"
    told = run(*ASK)
    assert told.returncode == 0, told.stderr
    for line in ("config unset threads", "config unset target", "config unset target"):
        assert run(*line.split()).returncode == 0
    missing = run(*ASK)  # the default target is not here
    assert missing.returncode == 2
    assert "[not_here]" in missing.stderr


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_path().write_text('target = "of-file"\nthreads = 1\ncontext = 256\ndrafter = "none"\n')
    assert "'of-file'" in run(*ASK).stderr
    monkeypatch.setenv("OUTRIDER_TARGET", "of-environment")
    assert "'of-environment'" in run(*ASK).stderr
    assert run(*ASK, "--target", "tiny").returncode == 0
    assert "[not_here]" in run("--no-config", *ASK).stderr


def test_the_environment_s_token_wins_and_a_token_goes_with_its_verifier(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_path().write_text('verifier = "http://127.0.0.1:9"\ntoken_file = "no.token"\ntarget = "tiny"\n')
    assert defaults()["sync"]["token_file"] == str(config_path().parent / "no.token")
    assert "no.token cannot be read" in run(*ASK, "--strict").stderr
    other = run(*ASK, "--strict", "--verifier", "http://127.0.0.1:1")
    assert "no.token" not in other.stderr
    assert "[link_lost]" in other.stderr
    monkeypatch.setenv("OUTRIDER_TOKEN", "abc")
    assert "token_file" not in defaults()["sync"]


def test_a_home_of_nobody_is_a_folder_of_that_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("config", "set", "token_file", "~nobody-here/token").returncode == 0
    assert str(load()["token_file"]).endswith("/~nobody-here/token")
    monkeypatch.setenv("OUTRIDER_HOME", "~nobody-here")
    assert catalog.home() == Path("~nobody-here")


def test_what_is_kept_for_verifiers_is_nothing_where_none_is_asked(run: Run) -> None:
    config_path().write_text('ca_file = "no.pem"\ntarget = "tiny"\nthreads = 1\n')
    assert run(*ASK, "--drafter", "none").returncode == 0
    assert "TLS files" in run(*ASK, "--verifier", "https://127.0.0.1:1").stderr


def test_other_lines_stay_as_they_are(run: Run) -> None:
    config_path().write_text('# mine\nthreads = 2  # two\n\ntarget = "tiny"\n')
    assert run("config", "set", "threads", "1").returncode == 0
    assert run("config", "set", "drafter", 'a "quoted" näme').returncode == 0
    assert config_path().read_text() == ('# mine\nthreads = 1\n\ntarget = "tiny"\ndrafter = "a \\"quoted\\" näme"\n')
    assert run("config", "unset", "target").returncode == 0
    assert "tiny" not in config_path().read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("set nonsense 1", "nonsense"),
        ("unset nonsense", "nonsense"),
        ("set threads many", "whole number"),
        ("set threads -- -1", "num_threads"),
        ("set context 0", "max_context"),
        ("set max_tokens 0", "max_tokens"),
        ("set temperature -- -1", "temperature"),
        ("set temperature nan", "temperature"),
        ("set past maybe", "true or false"),
        ("set verifier ftp://x", "address"),
        ("set target \x1b", "printed"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_and_changes_nothing(run: Run, arguments: str, words: str) -> None:
    done = run("config", *arguments.split())
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.rstrip().endswith("[invalid_parameter]")
    assert not config_path().exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("threads = ", "TOML"),
        ("thread = 1", "config unset thread"),
        ("threads = true", "whole number"),
        ("\xff", "TOML"),
    ],
)
def test_a_file_that_is_wrong_is_told_where_it_matters(run: Run, text: str, words: str) -> None:
    config_path().write_bytes(text.encode("latin-1"))
    done = run(*ASK)
    assert done.returncode == 2
    assert words in done.stderr
    assert str(config_path()) in done.stderr
    assert run("generate", "--help").returncode == 0
    assert run("models").returncode == 0


def test_what_is_no_option_can_be_taken_out(run: Run) -> None:
    config_path().write_text("thread = 1\nthreads = 2\n")
    assert run("config", "unset", "thread").returncode == 0
    assert config_path().read_text() == "threads = 2\n"


def test_every_option_is_one_of_the_commands_that_it_is_for() -> None:
    group = LazyGroup(name="outrider")
    for key, option in OPTIONS.items():
        for command in set(option.commands) & set(COMMANDS):
            assert key in {param.name for param in group.get_command(None, command).params}, (key, command)


def test_the_page_names_what_may_be_set() -> None:
    page = (Path(__file__).parents[3] / "docs" / "terminal.md").read_text()
    [named] = re.findall(r"It may set\n(.*?) and `past`,", page, re.DOTALL)
    assert {*re.findall(r"`(\w+)`", named), "past"} == OPTIONS.keys()
