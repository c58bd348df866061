"""`outrider receipt check` as a person meets it."""

import json
from pathlib import Path

import pytest

from edge_runtime.links import InProcessLink
from tests.edge_runtime.cli.in_process import run
from tests.signing import generate, signer, signing_loop


@pytest.fixture
def written(tmp_path: Path) -> tuple[str, str, str]:
    """A receipt, one of a generation that was resumed, and the verifier's key."""
    own = signer()
    loop = signing_loop(own)
    try:
        whole = generate(InProcessLink(loop))
        resumed = generate(InProcessLink(loop), earlier_ids=whole.token_ids[:5])
    finally:
        loop.close()
    files = (tmp_path / "whole.receipt", tmp_path / "resumed.receipt")
    files[0].write_bytes(whole.receipt())
    files[1].write_bytes(resumed.receipt())
    return str(files[0]), str(files[1]), own.public_key.hex()


def test_valid(
    written: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, resumed, key = written
    assert run(["receipt", "check", whole, "--key", key], monkeypatch) == 0
    said = capsys.readouterr().out
    assert said.startswith("valid: 12 tokens from position 3")
    assert key in said
    assert "nobody vouches" not in said
    assert "energy unknown" in said
    assert run(["receipt", "check", whole], monkeypatch) == 0
    assert "nobody vouches" in capsys.readouterr().out
    assert run(["receipt", "check", resumed], monkeypatch) == 0
    said = capsys.readouterr().out
    assert said.startswith("valid: 7 tokens from position 8")
    assert "not signed: the 5 tokens before" in said


def test_valid_as_json(
    written: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["receipt", "check", written[0], "--json"], monkeypatch) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["valid"], said["is_key_given"]) == (True, False)
    assert len(said["receipt"]["signed"]["token_ids"]) == 12


def test_invalid(
    written: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, _, key = written
    data = Path(whole).read_bytes()
    Path(whole).write_bytes(data.replace(b'"seed":3', b'"seed":4'))
    assert run(["receipt", "check", whole, "--key", key], monkeypatch) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "invalid_receipt" in said.err
    Path(whole).write_bytes(data)
    assert run(["receipt", "check", whole, "--key", "0" * 64], monkeypatch) == 1


def test_asked_wrongly(written: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(["receipt", "check", str(tmp_path / "none")], monkeypatch) == 2
    assert run(["receipt", "check", str(tmp_path)], monkeypatch) == 2
    assert run(["receipt", "check", written[0], "--key", "abc"], monkeypatch) == 2
    (tmp_path / "text").write_text("hello")
    assert run(["receipt", "check", str(tmp_path / "text")], monkeypatch) == 1
