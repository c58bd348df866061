"""`outrider doctor` on devices that are well and such as are not: real files, failing libraries, a real service."""

import json
import shutil
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.checkup.finding import Finding, examine
from edge_runtime.checkup.libraries import EXTRAS
from edge_runtime.cli.config_file import config_path
from edge_runtime.journal import Asked, Journal
from outrider.manifest import load_folder
from outrider.part_file import PartFile
from outrider.pull import _partial
from tests.edge_runtime.cli.test_generate import Run, home, run
from tests.serving import serving
from tests.toy import ToyEngine

__all__ = ["home", "run"]  # fixtures


@pytest.fixture(autouse=True)
def store(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With one sound model, `tiny`, that each test has for itself."""
    store = tmp_path / "store"
    shutil.copytree(home / "tiny", store / "tiny")
    monkeypatch.setenv("OUTRIDER_HOME", str(store))
    return store


@pytest.fixture
def address(store: Path) -> Iterator[str]:
    manifest = load_folder(store / "tiny").manifest
    verifier = Verifier(ToyEngine(), target=manifest.fingerprint, vocabulary=manifest.tokenizer_fingerprint)
    loop = VerifierLoop(verifier)
    with serving(loop) as address:
        yield address
    loop.close()


def look(run: Run, *arguments: str, status: int = 0) -> tuple[dict[str, list[dict[str, str]]], dict[str, Any]]:
    """The findings by name, and the choice."""
    done = run("doctor", "--json", *arguments)
    assert done.returncode == status, done.stdout
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert told["healthy"] == (status == 0)
    findings: dict[str, list[dict[str, str]]] = {}
    for finding in told["findings"]:
        findings.setdefault(finding["name"], []).append(finding)
    return findings, told["choice"]


def test_a_device_that_is_well(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.checkup.libraries.EXTRAS", {"constraint": EXTRAS["constraint"]})
    findings, choice = look(run, "--target", "tiny", "--threads", "1")
    states = {name: found[0]["state"] for name, found in findings.items() if name != "store"}  # disks may be full
    names = ("machine", "memory", "config", "extra constraint", "models", "engine gguf", "tuned", "journal")
    assert states == {**dict.fromkeys(names, "ok"), "profile": "note"}
    assert findings["profile"][0]["fix"] == "outrider profile tiny"
    assert "runs tiny" in findings["engine gguf"][0]["detail"]
    assert choice["mode"] == "local"
    assert (choice["target"], choice["drafter"]) == ("tiny", "lookup")
    assert any("tiny is here" in why for why in choice["why"])


def test_a_person_reads_lines_with_what_to_do(run: Run) -> None:
    done = run("doctor", "--quick")
    assert done.returncode == 1
    assert "broken  target" in done.stdout
    assert done.stdout.count("broken") == 1  # what is not here is told once
    assert "-> outrider export qwen2.5-coder-1.5b-onnx\n" in done.stdout
    assert "It would choose: nothing" in done.stdout
    well = run("doctor", "--quick", "--target", "tiny")
    assert well.returncode == 0
    assert "It would choose: local, target tiny, drafter lookup" in well.stdout
    assert "because no verifier is in use" in well.stdout


def test_a_verifier_is_reached_and_its_round_trip_measured(run: Run, address: str) -> None:
    findings, choice = look(run, "--quick", "--verifier", address)
    [reached] = findings["verifier"]
    assert reached["state"] == "ok"
    assert "runs tiny" in reached["detail"]
    assert " ms" in reached["detail"]
    assert choice["mode"] == "hybrid"


def test_a_verifier_whose_words_nobody_here_knows(run: Run, address: str, store: Path) -> None:
    shutil.rmtree(store / "tiny")
    findings, _ = look(run, "--quick", "--verifier", address, status=1)
    assert "vocabulary" in findings["verifier"][1]["detail"]


def test_a_verifier_that_does_not_answer(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    findings, choice = look(run, "--quick", "--target", "tiny", "--verifier", f"127.0.0.1:{port}", status=1)
    assert "outrider verifier MODEL" in findings["verifier"][0]["detail"]
    assert choice["mode"] == "local"


def test_libraries_that_fail_are_named_and_the_others_still_tried(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "libraries"
    folder.mkdir()
    (folder / "failing_library.py").write_text("raise OSError('wrong\\nprocessor')")
    (folder / "crashing_library.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    (tmp_path / "email.py").write_text("raise OSError('a file of the folder that the user is in')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.syspath_prepend(folder)
    extras = {
        "failing": ("failing_library", "json"),
        "crashing": ("crashing_library",),
        "sound": ("email",),
        "half": ("csv", "no_such_library"),
        "absent": ("no_such_library",),
    }
    monkeypatch.setattr("edge_runtime.checkup.libraries.EXTRAS", extras)
    monkeypatch.setattr("edge_runtime.cli.doctor.check_engines", lambda: [])
    findings, _ = look(run, "--target", "tiny", status=1)
    assert findings["extra failing"][0]["detail"] == "failing_library cannot be imported: OSError: wrong processor"
    assert "SIGILL" in findings["extra crashing"][0]["detail"]
    assert findings["extra crashing"][0]["fix"] == 'pip install --force-reinstall "outrider[crashing]"'
    assert findings["extra sound"][0]["state"] == "ok"
    assert findings["extra half"][0] == {
        "name": "extra half",
        "state": "note",
        "detail": "lacks no_such_library",
        "fix": 'pip install "outrider[half]"',
    }
    assert findings["extras"][0]["detail"].endswith("absent")


def test_models_that_are_not_whole_or_do_not_run(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(store / "tiny", store / "smollm2-135m-instruct")
    (store / "smollm2-135m-instruct" / "tiny.gguf").unlink()
    with PartFile(_partial(store / "gemma-3-270m") / "model.gguf.part", num_bytes=1, sha256=None):
        """What a fetch that was cut leaves."""
    model = store / "tiny" / "tiny.gguf"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    monkeypatch.setattr("edge_runtime.checkup.libraries.EXTRAS", {})
    findings, _ = look(run, "--target", "tiny", "--threads", "1", status=1)
    broken = next(finding for finding in findings["models"] if finding["state"] == "broken")
    assert broken["fix"] == f"rm -r '{store / 'smollm2-135m-instruct'}' && outrider pull smollm2-135m-instruct"
    assert "tiny does not run" in findings["engine gguf"][0]["detail"]
    assert findings["engine gguf"][0]["fix"] == ""  # the file is cut off: another engine would not help
    assert findings["store"][-1]["fix"] == "outrider pull gemma-3-270m"


def test_what_the_journal_has_waiting(run: Run) -> None:
    with Journal() as journal:
        journal.begin(Asked([1], 4)).append_provisional(1, [5, 6])
    findings, _ = look(run, "--quick", "--target", "tiny")
    assert findings["journal"][0]["detail"].endswith("is sound, 1 conversation")
    assert findings["journal"][1]["detail"] == "waiting for a verifier: 2 provisional tokens, 1 answer cut short"
    assert findings["journal"][1]["fix"].startswith("outrider sync")


def test_a_damaged_journal_and_a_wrong_configuration_are_findings(run: Run, store: Path) -> None:
    (store / "journal.sqlite").write_bytes(b"not a journal, but somebody's file")
    config_path().write_text("thread = 1")
    findings, choice = look(run, "--quick", "--target", "tiny", status=1)
    assert "[invalid_journal]" in findings["journal"][0]["detail"]
    assert "config unset thread" in findings["config"][0]["detail"]
    assert choice["mode"] == "local"


def test_a_store_that_cannot_be(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OUTRIDER_HOME", str(tmp_path / "file" / "store"))
    findings, _ = look(run, "--quick", status=1)
    assert findings["store"][0]["fix"] == "export OUTRIDER_HOME=FOLDER"


def test_whatever_a_check_meets_is_a_finding() -> None:
    def fails() -> Iterator[Finding]:
        yield Finding("it", "ok", "lost")
        raise ZeroDivisionError("by zero")

    assert examine("it", fails) == [Finding("it", "broken", "this cannot be looked at (ZeroDivisionError: by zero)")]


def test_every_extra_is_looked_at() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert {*project["optional-dependencies"]} - {"dev"} == {*EXTRAS}
