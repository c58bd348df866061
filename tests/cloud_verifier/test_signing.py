"""The verifier's key file, and what it signs: over both links, after a loss, and only where it was asked to."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.signing import Signer, load_signer
from edge_runtime.links import InProcessLink, WebSocketLink
from outrider.errors import InvalidParameter, MissingExtra
from outrider.receipt import check
from tests.serving import serving
from tests.signing import generate, signer, signing_loop


@pytest.fixture(scope="module")
def own() -> Signer:
    return signer()


@pytest.fixture
def loop(own: Signer) -> Iterator[VerifierLoop]:
    found = signing_loop(own)
    yield found
    found.close()
    found.verifier.check_integrity()


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.pem"
    before = os.umask(0)
    try:
        first = load_signer(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_signer(path).public_key == first.public_key
    assert len(first.public_key) == 32
    assert [each.name for each in path.parent.iterdir()] == ["key.pem"]
    assert load_signer(tmp_path / "other.pem").public_key != first.public_key


def test_of_many_first_users_all_have_one_key(tmp_path: Path) -> None:
    path, found = tmp_path / "key.pem", []
    start = threading.Barrier(8)

    def load() -> None:
        start.wait()
        found.append(load_signer(path).public_key)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["key.pem"]


def test_a_key_that_cannot_be_is_refused_and_kept(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path = tmp_path / "key.pem"
    curve = generate_private_key(SECP256R1())
    for content, words in (
        (b"", "no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key"),
        (curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")), "no private key"),
        (curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "Ed25519"),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(InvalidParameter, match=words):
            load_signer(path)
        assert path.read_bytes() == content
    path.unlink()
    load_signer(path)
    path.chmod(0o640)
    with pytest.raises(InvalidParameter, match="chmod 600"):
        load_signer(path)
    with pytest.raises(InvalidParameter, match="check its folder"):
        load_signer(path / "beneath" / "key.pem")


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.exceptions", None)
    with pytest.raises(MissingExtra, match=r"outrider\[server\]"):
        load_signer(tmp_path / "key.pem")


def test_what_came_over_a_socket_is_signed(loop: VerifierLoop, own: Signer) -> None:
    with serving(loop) as address:
        truth = generate(WebSocketLink(address), wants_signature=False)
        generated = generate(WebSocketLink(address), drafts=truth.token_ids[:7])
    assert truth.signature == b""
    assert truth.opened.public_key == b""
    assert generated.token_ids == truth.token_ids
    receipt = check(generated.receipt(), own.public_key.hex())
    assert receipt.statement.token_ids == truth.token_ids
    assert receipt.counts.accepted == 6
    assert receipt.bytes_up > 0


def test_drafts_do_not_change_what_is_signed(loop: VerifierLoop) -> None:
    plain = generate(InProcessLink(loop))
    for length in (1, 5, 11):
        assert generate(InProcessLink(loop), drafts=plain.token_ids[:length]).signature == plain.signature
    wrong = [(token_id + 1) % 16 for token_id in plain.token_ids]
    assert generate(InProcessLink(loop), drafts=wrong).signature == plain.signature


def test_after_a_loss_the_verifier_signs_what_it_chose_since(loop: VerifierLoop, own: Signer) -> None:
    whole = generate(InProcessLink(loop))
    resumed = generate(InProcessLink(loop), earlier_ids=whole.token_ids[:5])
    assert resumed.token_ids == whole.token_ids
    receipt = check(resumed.receipt(), own.public_key.hex())
    assert receipt.earlier_ids == whole.token_ids[:5]
    assert receipt.statement.token_ids == whole.token_ids[5:]
    assert receipt.statement.start == 8
    assert resumed.signature != whole.signature


def test_an_answer_that_is_verified_again_is_signed_whole(loop: VerifierLoop) -> None:
    """How to have a whole receipt after a loss: open the prompt, send the answer as one draft."""
    whole = generate(InProcessLink(loop))
    again = generate(InProcessLink(loop), drafts=whole.token_ids)
    assert again.signature == whole.signature
    assert check(again.receipt()).counts.accepted == 10  # the first and the last place are the verifier's own
