"""The app for phones beside a verifier's doors: who gets what, from which pages, and what cannot be served."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.security import TOKEN_PREFIX
from cloud_verifier.server import create_server
from cloud_verifier.settings import ServiceSettings
from cloud_verifier.tokens import TokenFile
from cloud_verifier.verifier import Verifier
from edge_runtime.phone.fetch import npm_package
from edge_runtime.phone.site import DRAFTER, PhoneSite
from outrider.errors import InvalidParameter, MissingExtra, VocabularyMismatch
from outrider.manifest import Manifest, ModelFolder, Profile, Source, write_manifest
from outrider.wire import STREAM_PATH, SUBPROTOCOL
from tests.serving import running
from tests.toy import ToyEngine

WEIGHTS = b"weights of a drafter"


@pytest.fixture(autouse=True)
def _have_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not they were fetched: nothing here runs them."""
    monkeypatch.setattr("edge_runtime.phone.site.LIBRARIES", tmp_path)


@pytest.fixture
def drafter(tmp_path: Path) -> ModelFolder:
    folder = tmp_path / "drafter"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(WEIGHTS)
    (folder / "secret.txt").write_text("not of the model")
    manifest = Manifest(
        name="drafter",
        format="onnx",
        architecture="llama",
        file="model.onnx",
        files={"model.onnx": hashlib.sha256(WEIGHTS).hexdigest()},
        source=Source("random", "0"),
        licence="none",
        n_vocab=16,
        max_context=64,
        stop_ids=[2],
        tokenizer_fingerprint="v",
        profiles={"here": Profile("onnx", "this machine", 1, 64, {1: 1.0}, [[1]], False)},
    )
    return write_manifest(folder, manifest)


@contextmanager
def serving(site: PhoneSite | None, tokens: TokenFile | None = None) -> Iterator[str]:
    """Gives host and port."""
    loop = VerifierLoop(Verifier(ToyEngine(), target="t", vocabulary="v"))
    try:
        with running(create_server(loop, ServiceSettings(tokens=tokens), site)) as address:
            yield address
    finally:
        loop.close()


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")


def handshake(address: str, *tokens: str, origin: str | None = None) -> int:
    """The status of a page's socket that shows these tokens."""
    offered = [SUBPROTOCOL, *(TOKEN_PREFIX + token for token in tokens)]
    try:
        with connect(f"ws://{address}{STREAM_PATH}", subprotocols=offered, origin=origin) as socket:
            assert socket.subprotocol == SUBPROTOCOL  # the token is not said again
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def test_the_app_is_open_and_the_drafter_is_for_who_is_let_in(drafter: ModelFolder, tokens: TokenFile) -> None:
    _, secret = tokens.add("phone")
    site = PhoneSite(drafter, "v")
    with serving(site, tokens) as address, httpx.Client(base_url=f"http://{address}") as client:
        for path in site.paths:
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert "require-trusted-types-for" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        known = {"Authorization": f"Bearer {secret}"}
        for name in ("manifest.json", "model.onnx"):
            assert client.get(DRAFTER + name).status_code == 401
            assert client.get(DRAFTER + name, headers=known).status_code == 200
        assert client.get(DRAFTER + "model.onnx", headers=known).content == WEIGHTS
        told = client.get(DRAFTER + "manifest.json", headers=known).json()
        assert told["fingerprint"] == drafter.manifest.fingerprint
        assert told["profiles"] == {}
        for name in ("secret.txt", "../tokens.json", "%2e%2e/tokens.json", ""):
            assert client.get(DRAFTER + name, headers=known).status_code == 404


def test_every_file_that_the_app_asks_for_is_served(drafter: ModelFolder) -> None:
    site = PhoneSite(drafter, "v")
    with serving(site) as address, httpx.Client(base_url=f"http://{address}") as client:
        worker = client.get("/phone/sw.js").text
        page = client.get("/phone/").text
        assert client.get("/phone/phone.webmanifest").headers["content-type"] == "application/manifest+json"
        kept = worker.partition("FILES = ")[2].partition(";\n")[0]
        names = set(msgspec.json.decode(kept))
        assert {f"/phone/{name}" for name in names} == site.paths - {"/phone/sw.js"}
        assert {"", "app.js", "page.css", "answer.js", "icon-192.png"} <= names
        assert 'src="app.js"' in page


def test_any_change_to_a_file_is_another_version(drafter: ModelFolder, tmp_path: Path, monkeypatch) -> None:
    def version() -> bytes:
        return PhoneSite(drafter, "v")._files["sw.js"].partition(b'"')[2].partition(b'"')[0]

    before = version()
    assert version() == before
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("answer.js", "page.css", "icon.svg"):
        (shared / name).write_text("changed")
    monkeypatch.setattr("edge_runtime.phone.site.SHARED", shared)
    assert version() != before


def test_a_page_s_socket_shows_its_token_as_a_subprotocol(drafter: ModelFolder, tokens: TokenFile) -> None:
    _, secret = tokens.add("phone")
    with serving(PhoneSite(drafter, "v"), tokens) as address:
        assert handshake(address, secret, origin=f"http://{address}") == 101
        assert handshake(address, origin=f"http://{address}") == 401
        assert handshake(address, "wrong") == 401
        assert handshake(address, secret, "another") == 401
        answer = httpx.get(f"http://{address}/v1/models", headers={"sec-websocket-protocol": TOKEN_PREFIX + secret})
        assert answer.status_code == 401  # where a header can be set, it must be


def test_without_tokens_the_app_s_own_page_may_ask_and_no_other(drafter: ModelFolder) -> None:
    with serving(PhoneSite(drafter, "v")) as address:
        assert handshake(address, origin=f"http://{address}") == 101
        assert handshake(address, origin="http://evil.example") == 403
        assert handshake(address, origin=f"https://{address}") == 403
        port = address.rpartition(":")[2]
        assert handshake(address, origin=f"http://localhost:{port}") == 403
        headers = {"origin": "http://evil.example"}
        assert httpx.get(f"http://{address}{DRAFTER}model.onnx", headers=headers).status_code == 403
    with serving(None) as address:
        assert handshake(address, origin=f"http://{address}") == 403


def test_what_cannot_be_served(drafter: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VocabularyMismatch, match="another vocabulary"):
        PhoneSite(drafter, "w")
    gguf = msgspec.structs.replace(drafter, manifest=msgspec.structs.replace(drafter.manifest, format="gguf"))
    with pytest.raises(InvalidParameter, match="browsers run ONNX"):
        PhoneSite(gguf, "v")
    monkeypatch.setattr("edge_runtime.phone.site.LIBRARIES", tmp_path / "nowhere")
    with pytest.raises(MissingExtra, match="make phone"):
        PhoneSite(drafter, "v")


def test_an_npm_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="could not fetch a@1"):
        npm_package("a@1", "0")
