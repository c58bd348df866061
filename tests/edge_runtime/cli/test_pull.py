import json

import pytest

from outrider import catalog
from outrider.manifest import Source, file_sha256
from tests.edge_runtime.cli.in_process import run
from tests.toy_gguf import write_model


def test_what_is_here_is_ready_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = catalog.store_folder("mine")
    file = write_model(folder / "m.gguf")
    manifest = catalog.install_gguf(file, folder, name="mine", licence="mit", source=Source("mine", file_sha256(file)))
    assert run(["pull", "mine"], monkeypatch) == 0
    assert capsys.readouterr() == ("", f"mine is ready in {folder}\n")
    assert run(["pull", "mine", "--json"], monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["fingerprint"] == manifest.manifest.fingerprint
    assert answer["path"] == str(folder)


@pytest.mark.parametrize(
    ("name", "status", "line"),
    [
        ("smolm2", 2, "nearest: smollm2-135m-instruct [unknown_model]"),
        ("../x", 2, "[unknown_model]"),
        ("owner/repo", 1, "[no_network]"),
    ],
)
def test_mistakes_are_one_line(
    name: str, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert run(["pull", name], monkeypatch) == status
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.rstrip().endswith(line)


@pytest.mark.parametrize("command", ["pull", "models"])
def test_help_has_an_example(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"], monkeypatch) == 0
    assert f"Example: outrider {command}" in capsys.readouterr().out
