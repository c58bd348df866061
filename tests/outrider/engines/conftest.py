"""Tiny models are written once a run."""

from pathlib import Path

import pytest

from outrider.manifest import ModelFolder
from tests.outrider.engines.tiny import tiny_gguf, tiny_hf


@pytest.fixture(scope="session")
def gguf_folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny")


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_hf(tmp_path_factory.mktemp("hf") / "tiny")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path
