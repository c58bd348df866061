import hashlib
from typing import Any

import msgspec
import pytest

from outrider import catalog
from outrider.card import Card
from outrider.errors import FetchError, InvalidModel, UnknownModel, WrongHash
from outrider.manifest import MANIFEST
from outrider.tokens import TextCodec
from tests.hf_folder import hf_files
from tests.outrider.hub_server import Hub
from tests.outrider.toy_card import toy_card
from tests.toy_gguf import toy_metadata, toy_model

DATA = toy_model()
CARD = toy_card(DATA)


def publish(hub: Hub, files: dict[str, bytes]) -> None:
    """Put the files on the hub as `owner/repo`, at one commit."""
    siblings: list[dict[str, Any]] = []
    for name, content in files.items():
        is_large = name.endswith((".safetensors", ".gguf"))
        large = {"sha256": hashlib.sha256(content).hexdigest()} if is_large else None
        siblings.append({"rfilename": name, "size": len(content), "lfs": large})
        hub.files[f"owner/repo/resolve/c0ffee/{name}"] = content
    hub.models["owner/repo"] = {"sha": "c0ffee", "cardData": {"license": "mit"}, "siblings": siblings}


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> Card:
    hub.files["o/r/resolve/main/w.gguf"] = DATA
    monkeypatch.setattr("outrider.catalog.cards", lambda: {"toy": CARD})
    return CARD


def test_pulls_a_card_once(card: Card, hub: Hub) -> None:
    stages: list[str] = []
    pulled = catalog.pull("toy", lambda stage, done, total: stages.append(stage))
    assert pulled.path == catalog.home() / "toy"
    assert pulled == catalog.find("toy")
    assert pulled.manifest.source.sha256 == card.sha256
    assert pulled.manifest.licence == "none"
    assert set(stages) == {"download toy", "read the vocabulary of toy"}
    num_requests = len(hub.seen)
    assert catalog.pull("toy") == pulled
    assert len(hub.seen) == num_requests
    assert TextCodec(pulled).decode(TextCodec(pulled).encode("hello")) == "hello"


@pytest.mark.usefixtures("card")
def test_a_file_that_came_before_an_interruption_is_used(hub: Hub) -> None:
    pulled = catalog.pull("toy")
    (pulled.path / MANIFEST).unlink()
    num_requests = len(hub.seen)
    assert catalog.pull("toy") == pulled
    assert len(hub.seen) == num_requests
    (pulled.path / MANIFEST).unlink()
    pulled.model_file.write_bytes(b"GGUF of another day")
    assert catalog.pull("toy") == pulled
    assert len(hub.seen) == num_requests + 1


def test_of_two_at_once_one_goes_on(card: Card, hub: Hub) -> None:
    refused: list[str] = []

    def again(stage: str, done: int, total: int) -> None:
        if stage == "download toy":
            with pytest.raises(FetchError, match="another process fetches toy"):
                catalog.pull("toy")
            refused.append(stage)

    assert catalog.pull("toy", again) == catalog.find("toy")
    assert refused
    assert not list(catalog.home().rglob("*.lock"))


def test_a_card_with_a_wrong_file_leaves_nothing(card: Card, hub: Hub) -> None:
    hub.files["o/r/resolve/main/w.gguf"] = bytes(len(DATA))
    with pytest.raises(WrongHash):
        catalog.pull(card.name)
    assert [path for path in catalog.home().rglob("*") if path.is_file()] == []


def test_pulls_a_repository_without_code_or_pickles(hub: Hub) -> None:
    others = {
        "pytorch_model.bin": b"pickled",
        "modeling_x.py": b"import os",
        "onnx/model.onnx": b"x",
        "README.md": b"x",
    }
    publish(hub, hf_files() | others)
    pulled = catalog.pull("owner/repo")
    assert pulled == catalog.find("owner/repo")
    assert sorted(pulled.manifest.files) == sorted([*hf_files(), "chat_template.jinja"])
    assert pulled.manifest.source.name == "owner/repo@c0ffee"
    assert pulled.manifest.licence == "mit"
    assert {path.name for path in pulled.path.iterdir()} == {*pulled.manifest.files, MANIFEST}


def test_an_interrupted_repository_goes_on(hub: Hub) -> None:
    publish(hub, hf_files())
    weights = "owner/repo/resolve/c0ffee/model.safetensors"
    content = hub.files.pop(weights)
    with pytest.raises(FetchError, match="no longer"):
        catalog.pull("owner/repo")
    assert not (catalog.home() / "owner--repo" / MANIFEST).exists()
    hub.files[weights] = content
    catalog.pull("owner/repo")


def test_pulls_one_gguf_file(hub: Hub) -> None:
    publish(hub, {"sub/q4.gguf": DATA, "config.json": b"{}"})
    pulled = catalog.pull("owner/repo/sub/q4.gguf")
    assert pulled.model_file.name == "q4.gguf"
    assert pulled.manifest.source.sha256 == CARD.sha256
    assert catalog.find("owner/repo/sub/q4.gguf") == pulled


def test_repositories_that_cannot_be_used(hub: Hub) -> None:
    publish(hub, {"config.json": b"{}", "pytorch_model.bin": b"x", "a.gguf": DATA})
    with pytest.raises(InvalidModel, match=r"no safetensors weights.*a\.gguf"):
        catalog.pull("owner/repo")
    with pytest.raises(UnknownModel, match=r"has no GGUF file b\.gguf; it has: a\.gguf"):
        catalog.pull("owner/repo/b.gguf")
    with pytest.raises(UnknownModel, match=r"has no GGUF file pytorch_model\.bin"):
        catalog.pull("owner/repo/pytorch_model.bin")
    publish(hub, {"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(InvalidModel, match=r"lacks config\.json or tokenizer\.json"):
        catalog.pull("owner/repo")
    with pytest.raises(UnknownModel, match="the hub has no model owner/other"):
        catalog.pull("owner/other")


def test_a_gguf_file_with_a_foreign_tokenizer(hub: Hub) -> None:
    publish(hub, {"q4.gguf": toy_model(toy_metadata(tokenizer__ggml__model="bert"))})
    with pytest.raises(InvalidModel, match="of the kind 'bert'"):
        catalog.pull("owner/repo/q4.gguf")
    assert not list(catalog.home().rglob(MANIFEST))


def test_card_hashes_are_checked_before_the_file_is_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    other = msgspec.structs.replace(CARD, sha256="0" * 64)
    hub.files["o/r/resolve/main/w.gguf"] = DATA
    monkeypatch.setattr("outrider.catalog.cards", lambda: {"toy": other})
    monkeypatch.setattr("outrider.describe.read_header", None)
    with pytest.raises(WrongHash):
        catalog.pull("toy")
