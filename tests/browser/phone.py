"""Tiny exported models with one vocabulary, and a verifier that serves the app for phones, to stop and start again."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cloud_verifier.server import create_server
from cloud_verifier.settings import ServiceSettings
from cloud_verifier.target import LocalVerifier
from edge_runtime.phone.site import PhoneSite
from export.onnx import MODEL_FILE
from outrider.manifest import CHAT_TEMPLATE, TOKENIZER, Manifest, ModelFolder, file_sha256, load_folder, write_manifest
from outrider.tokens import TOKENIZER_CONFIG
from tests.export.conftest import Built, run_here
from tests.serving import UNHURRIED, running

SHARPNESS = 5.0  # a drafter that is sure of nothing does not run ahead
TEXT_FILES = (TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE)


def install(built: Built, store: Path, name: str, model_type: str, builder: str) -> ModelFolder:
    """An exported model with all that a folder of the store has."""
    source = built.source(model_type)
    folder = built.onnx(model_type, builder, "int4").rename(store / name)
    for file in TEXT_FILES:
        (folder / file).write_bytes((source.path / file).read_bytes())
    facts = source.manifest
    files = [MODEL_FILE, f"{MODEL_FILE}.data", *TEXT_FILES]
    manifest = Manifest(
        name=name,
        format="onnx",
        architecture=facts.architecture,
        file=MODEL_FILE,
        files={file: file_sha256(folder / file) for file in files},
        source=facts.source,
        licence="none",
        n_vocab=facts.n_vocab,
        max_context=256,
        stop_ids=facts.stop_ids,
        tokenizer_fingerprint=facts.tokenizer_fingerprint,
    )
    return write_manifest(folder, manifest)


def write_store(store: Path, patch: pytest.MonkeyPatch) -> Path:
    """`tiny`, the target; `twin`, of its weights by the other builder; `other`, of weights of its own."""
    patch.setattr("export.onnx.run_child", run_here)
    built = Built(store / "built", SHARPNESS)
    built.home.mkdir(parents=True)
    install(built, store, "tiny", "llama", "fused")
    install(built, store, "twin", "llama", "general")
    install(built, store, "other", "qwen2", "fused")
    return store


class Service:
    """A verifier with the app, at one address for as long as it lives, however often it is stopped and started."""

    def __init__(self, target: LocalVerifier, drafter: Path, settings: ServiceSettings = UNHURRIED) -> None:
        self._target = target
        self.drafter = drafter
        self._site = PhoneSite(load_folder(drafter), target.loop.verifier.vocabulary)
        self._settings = settings
        self._running = ExitStack()
        self._port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return self.origin + self._site.start

    def start(self) -> None:
        server = create_server(self._target.loop, self._settings, self._site)
        address = self._running.enter_context(running(server, self._port))
        self._port = int(address.rpartition(":")[2])

    def stop(self) -> None:
        self._running.close()


@contextmanager
def service(target: LocalVerifier, drafter: Path, settings: ServiceSettings = UNHURRIED) -> Iterator[Service]:
    found = Service(target, drafter, settings)
    found.start()
    try:
        yield found
    finally:
        found.stop()
