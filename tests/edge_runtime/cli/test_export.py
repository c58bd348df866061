import json
from pathlib import Path

import pytest

from export import build as build_module
from export import report
from outrider import catalog
from tests.edge_runtime.cli.in_process import run
from tests.export.models import write_gguf


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(report, "NUM_TOKENS", 4)
    monkeypatch.setattr(report, "PROMPTS", {"code": ("hello",)})
    monkeypatch.setattr(build_module, "load_or_measure", lambda *arguments: None)
    return str(write_gguf(tmp_path / "source" / "tiny.gguf"))


def test_export_then_export_again(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", model, "--format", "gguf", "--quantization", "q8_0"], monkeypatch) == 0
    out, err = capsys.readouterr()
    folder = catalog.home() / "tiny-gguf-q8_0"
    assert out == ""
    assert "quantize to q8_0 ..." in err
    assert f"tiny-gguf-q8_0 is made: {folder}" in err
    assert "agreement" in err
    assert run(["export", model, "--format", "gguf", "--quantization", "q8_0"], monkeypatch) == 0
    _, err = capsys.readouterr()
    assert f"tiny-gguf-q8_0 was here already: {folder}" in err
    assert "quantize" not in err


def test_json_is_one_object(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [model, "--format", "gguf", "--trim", "99", "--corpus", model, "--json", "--no-report"]
    assert run(["export", *words, "--output", str(tmp_path / "out")], monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["name"], answer["built"], answer["report"]) == ("tiny-gguf-trim99", True, None)
    assert answer["path"] == str(tmp_path / "out")
    assert answer["recipe"]["trim"] == {"num_tokens": 99, "corpus": [model]}


def test_a_recipe_file(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'kind = "recipe"\nsource = "{model}"\nformat = "gguf"\nquantization = "q4_0"\n')
    assert run(["export", str(file), "--no-report"], monkeypatch) == 0
    assert (catalog.home() / "mine" / "manifest.json").exists()
    assert run(["export", str(file), "--trim", "9"], monkeypatch) == 2
    assert "leave out --trim [invalid_parameter]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["no-such-model"], "[unknown_model]"),
        (["MODEL", "--quantization", "int3"], "quantization 'int3' is not one of onnx's; use one of int4, int8"),
        (["MODEL", "--format", "exe"], "outrider: format 'exe' is none; use one of onnx, gguf ["),
        (["MODEL", "--builder", "magic"], "outrider: builder 'magic' is none; use one of fused, general ["),
        (["MODEL", "--format", "gguf", "--builder", "fused"], "only for ONNX"),
        (["MODEL", "--block-size", "0"], "block_size 0 is not one that kernels know; use one of 16, 32, 64, 128, 256"),
        (["MODEL", "--format", "gguf", "--block-size", "32"], "block_size 32 is only for ONNX"),
        (["MODEL", "--corpus", "x"], "add --trim"),
        (["MODEL", "--format", "gguf", "--trim", "1"], "(those that every answer needs and one more)"),
        (
            ["MODEL", "--format", "gguf", "--trim", "99", "--corpus", "nowhere"],
            "no text is found in the corpus",
        ),
        (["qwen2.5-coder-0.5b-onnx", "--block-size", "64"], "says all of that itself; leave out --block-size"),
        (["qwen2.5-coder-0.5b-onnx", "--trim", "0"], "says all of that itself; leave out --trim"),
        (["missing.toml"], "missing.toml cannot be read"),
    ],
)
def test_bad_input_is_one_line(
    model: str,
    arguments: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["export", *(model if word == "MODEL" else word for word in arguments)], monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not list(catalog.home().glob(".*"))
