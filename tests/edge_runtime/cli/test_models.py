import json

import pytest

from outrider import catalog
from outrider.manifest import Source, file_sha256
from tests.edge_runtime.cli.in_process import run
from tests.toy_gguf import write_model


def install(name: str) -> None:
    folder = catalog.store_folder(name)
    file = write_model(folder / "m.gguf")
    catalog.install_gguf(file, folder, name=name, licence="mit", source=Source(name, file_sha256(file)))


def test_lists_cards_and_what_is_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    install("mine")
    assert run(["models"], monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("smollm2-135m-instruct" in line and "outrider pull smollm2-135m-instruct" in line for line in lines)
    assert any(line.startswith("mine") and "mit" in line and line.rstrip().endswith("here") for line in lines)
    assert str(catalog.home()) in lines[-1]


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    install("mine")
    install("bad")
    (catalog.home() / "bad" / "manifest.json").write_text("{")
    assert run(["models", "--json"], monkeypatch) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert listed["mine"]["state"] == "here"
    assert listed["mine"]["path"] == str(catalog.home() / "mine")
    assert listed["bad"]["state"] == "broken"
    card = listed["qwen2.5-coder-1.5b-instruct"]
    assert (card["kind"], card["state"], card["bytes"]) == ("card", "not here", 1_117_320_768)
    assert card["how"] == "outrider pull qwen2.5-coder-1.5b-instruct"
