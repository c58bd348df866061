"""`outrider tune` as a person meets it, on a tiny real model. How fast anything is decides nothing here."""

import functools
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cloud_verifier.settings import ServiceSettings
from cloud_verifier.target import open_verifier
from cloud_verifier.tokens import TokenFile
from edge_runtime.cli import tune as command
from edge_runtime.knobs import Knobs
from edge_runtime.tuning import space
from edge_runtime.tuning.compare import Comparison
from edge_runtime.tuning.search import Found, Trial
from edge_runtime.tuning.stored import choose
from edge_runtime.tuning.tune import Outcome
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.engines import machine as engine_machine
from outrider.manifest import load_folder
from tests.edge_runtime.api.tiny import write_store
from tests.edge_runtime.cli.in_process import run
from tests.serving import serving

SHORT = ("--max-tokens", "8", "--budget", "0.013", "--prompts", "chat")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its model is measured before, so that a short budget is for settings."""
    home = write_store(tmp_path_factory.mktemp("store"))
    open_verifier(load_folder(home / "tiny"), EngineSettings(num_threads=1, max_context=1024)).close()
    return home


@pytest.fixture(autouse=True)
def _use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(home))
    for module in (engine_machine, space):  # tiny models gain nothing by a second thread
        monkeypatch.setattr(module, "num_physical_cores", lambda: 1)


def test_it_measures_settings_and_says_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(space, "LARGEST_SHARE", 2.0)  # tiny models have one size
    seconds = itertools.count(step=0.01)  # on a loaded machine, too, there is time for three settings
    monkeypatch.setattr(command, "run_tuning", functools.partial(command.run_tuning, clock=seconds.__next__))
    assert run(["tune", "tiny", "--json", "--name", "mine", *SHORT], monkeypatch) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["exact"] is True
    assert found["trials"][0]["knobs"]["drafter"] == "lookup"
    assert found["trials"][0]["end"] == "done"
    assert len(found["trials"]) > 2
    assert found["comparison"]["num_pairs"] > 2
    assert found["tuned"] == ("mine" if found["gain"] else None)
    assert (catalog.home() / "tuned" / "mine.json").exists() == found["gain"]
    assert "\r" not in told.err
    assert "\x1b" not in told.err


def outcome(ratio: float, high: float, *, is_exact: bool = True, is_interrupted: bool = False) -> Outcome:
    trials = [Trial(Knobs("lookup", 2, 2), "done", 10.0, 8), Trial(Knobs("none", 2, 2), "done", 8.0, 8)]
    comparison = Comparison(12, 24, (10.0, 9.0, 11.0), (8.0, 7.0, 9.0), ratio, (0.7, high), is_exact)
    return Outcome(Found(trials, {}, is_interrupted), comparison)


@pytest.mark.parametrize(
    ("ended", "status", "is_kept", "words"),
    [
        (outcome(0.8, 0.9), 0, True, "20% less than the defaults: kept as tiny-latency"),
        (outcome(0.8, 1.1), 0, False, "the defaults stay"),
        (outcome(0.99, 0.995), 0, False, "the defaults stay"),
        (outcome(0.8, 0.9, is_interrupted=True), 130, True, "kept as tiny-latency"),
        (outcome(0.8, 0.9, is_exact=False), 1, False, "NOT every answer"),
        (Outcome(outcome(1, 1).found, None), 0, False, "larger --budget"),
    ],
)
def test_only_a_gain_beyond_the_noise_is_kept(
    ended: Outcome,
    status: int,
    is_kept: bool,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def tuned(*_: Any, **__: Any) -> Outcome:
        return ended

    (catalog.home() / "tuned" / "tiny-latency.json").unlink(missing_ok=True)
    monkeypatch.setattr(command, "run_tuning", tuned)
    assert run(["tune", "tiny"], monkeypatch) == status
    assert words in capsys.readouterr().out
    chosen, _ = choose("tiny-latency", target=catalog.find("tiny").manifest.fingerprint)
    assert (chosen is not None) == is_kept


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--goal", "speed"), "latency, verifier-cost, energy"),
        (("--budget", "0"), "--budget"),
        (("--budget", "nan"), "--budget"),
        (("--name", "../x"), "cannot name"),
        (("--prompts", "nowhere.jsonl"), "give code, chat, both, or a file"),
        (("--max-tokens", "1"), "--max-tokens"),
        (("--verifier", "http://127.0.0.1:1"), "link_lost"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_measured(
    words: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["tune", "tiny", *words], monkeypatch) in (1, 2)
    assert told in capsys.readouterr().err


def test_what_a_verifier_refuses_is_told_before_anything_is_measured(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = open_verifier(load_folder(home / "tiny"), EngineSettings(num_threads=1, max_context=1024))
    try:
        with serving(target.loop) as url:
            assert run(["tune", "other", "--verifier", url], monkeypatch) == 2
            assert "model_mismatch" in capsys.readouterr().err
        tokens = TokenFile(tmp_path / "tokens.json")
        tokens.add("laptop")
        with serving(target.loop, ServiceSettings(tokens=tokens)) as url:
            assert run(["tune", "--verifier", url], monkeypatch) == 1
            assert "[unauthorized]" in capsys.readouterr().err
    finally:
        target.close()


def test_without_optuna_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run(["tune", "tiny", *SHORT], monkeypatch) == 2
    assert 'pip install "outrider[tune]"' in capsys.readouterr().err
