"""The file of tokens: hashes only, written whole, read again when it changed, nobody let in when it cannot be read."""

import ast
import hashlib
import hmac
import inspect
import json
import os
import stat
from pathlib import Path

import pytest

from cloud_verifier import tokens as module
from cloud_verifier.tokens import TokenFile
from outrider.errors import InvalidParameter


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "new folder" / "tokens.json")


def test_a_token_opens_for_its_own_credential(file: TokenFile) -> None:
    made = [file.add(name) for name in ("laptop", "phone", "board")]
    assert len({secret for _, secret in made}) == len({token.id for token, _ in made}) == 3
    for token, secret in made:
        assert file.credential_of(secret.encode()) == token.id
        assert file.is_live(token.id)
        assert len(secret) >= 43  # 256 bits
        assert token.name not in token.id
    assert [token.name for token in file.tokens()] == ["laptop", "phone", "board"]


@pytest.mark.parametrize("secret", [b"", b"x", b"\xff\x80", "密".encode(), b"x" * 10**6, b"\0"])
def test_anything_else_opens_nothing(file: TokenFile, secret: bytes) -> None:
    assert file.credential_of(secret) is None
    _, right = file.add("laptop")
    assert file.credential_of(secret) is None
    assert file.credential_of(right.encode()[:-1]) is None
    assert file.credential_of(right.encode() + b" ") is None
    assert file.credential_of(hashlib.sha256(right.encode()).hexdigest().encode()) is None


def test_only_the_hash_is_kept_and_only_its_owner_reads_it(file: TokenFile) -> None:
    token, secret = file.add("laptop")
    text = file.path.read_text()
    assert secret not in text
    assert token.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert token.sha256 in text
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert secret not in repr(token)
    assert [path.name for path in file.path.parent.iterdir()] == ["tokens.json"]


def test_secrets_are_hashed_and_then_compared_in_constant_time(
    file: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = file.add("laptop")
    file.add("phone")
    compared: list[tuple[int, int]] = []

    def spy(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return hmac_compare(a, b)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", spy)
    assert file.credential_of(secret.encode())
    assert file.credential_of(b"wrong") is None
    assert compared == [(32, 32)] * 4  # every token, whether one matched before or not
    lookup = ast.parse(inspect.getsource(TokenFile.credential_of).lstrip())
    compares = [node for node in ast.walk(lookup) if isinstance(node, ast.Compare)]
    assert compares == []  # no == on secrets or digests


def test_another_process_changes_the_file(file: TokenFile) -> None:
    old, old_secret = file.add("old")
    assert file.credential_of(old_secret.encode()) == old.id
    operator = TokenFile(file.path)
    new, new_secret = operator.add("new")
    assert file.credential_of(new_secret.encode()) == new.id
    assert file.take_revoked() == []
    operator.revoke("old")
    assert file.credential_of(old_secret.encode()) is None
    assert not file.is_live(old.id)
    assert file.is_live(new.id)
    assert file.take_revoked() == [old.id]
    assert file.take_revoked() == []
    again, _ = operator.add("old")
    assert again.id != old.id


BROKEN = ["", "{", "[]", '{"version": 2}', '{"tokens": [{"id": 1}]}', '{"version": 1, "tokens": [], "more": 1}']
BROKEN += ['{"version": 1, "tokens": [{"id": "a", "name": "b", "sha256": "zz", "created": ""}]}']


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_cannot_be_read_lets_nobody_in(
    file: TokenFile, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    token, secret = file.add("laptop")
    good = file.path.read_bytes()
    assert file.credential_of(secret.encode()) == token.id
    file.path.write_text(text)
    for _ in range(3):
        assert file.credential_of(secret.encode()) is None
    assert file.take_revoked() == [token.id]
    assert caplog.text.count("nobody is let in") == 1
    with pytest.raises(InvalidParameter):
        file.tokens()
    with pytest.raises(InvalidParameter):
        file.add("phone")
    assert file.path.read_text() == text
    file.path.write_bytes(good)
    assert file.credential_of(secret.encode()) == token.id


def test_a_file_that_others_may_write_lets_nobody_in(file: TokenFile) -> None:
    token, secret = file.add("laptop")
    assert file.credential_of(secret.encode()) == token.id
    file.path.chmod(0o666)
    assert file.credential_of(secret.encode()) is None
    with pytest.raises(InvalidParameter, match="chmod 600"):
        file.tokens()
    file.path.chmod(0o600)
    assert file.credential_of(secret.encode()) == token.id


def test_no_file_is_no_tokens(file: TokenFile) -> None:
    assert file.tokens() == []
    _, secret = file.add("laptop")
    assert file.credential_of(secret.encode())
    file.path.unlink()
    assert file.credential_of(secret.encode()) is None


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "../a", "-a", ".a", "é", "x" * 65, "a\n"])
def test_odd_names(file: TokenFile, name: str) -> None:
    with pytest.raises(InvalidParameter):
        file.add(name)
    assert file.tokens() == []


def test_names_are_taken_once_and_revoked_once(file: TokenFile) -> None:
    file.add("laptop")
    with pytest.raises(InvalidParameter, match="already"):
        file.add("laptop")
    file.revoke("laptop")
    with pytest.raises(InvalidParameter, match="no token"):
        file.revoke("laptop")
    assert file.tokens() == []


def test_two_writers_do_not_lose_each_others_tokens(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.add("first")
    other = TokenFile(file.path)
    replace = os.replace

    def meanwhile(source: object, target: object) -> None:
        with pytest.raises(InvalidParameter, match="another command is writing"):
            other.add("second")
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", meanwhile)
    file.add("third")
    assert [token["name"] for token in json.loads(file.path.read_text())["tokens"]] == ["first", "third"]


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file(file: TokenFile, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file.add("first")
    before = file.path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, step, fail)
        with pytest.raises(InvalidParameter, match="cannot be written"):
            file.add("second")
    assert file.path.read_bytes() == before
    assert [path.name for path in file.path.parent.iterdir()] == ["tokens.json"]
    file.add("second")
