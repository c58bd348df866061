"""Builds are made once a run, in this process: a child would load the heavy libraries anew for each."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tqdm import tqdm

from export import gguf, onnx
from outrider import catalog
from outrider.manifest import ModelFolder
from outrider.progress import Progress, silent
from tests.export.models import write_gguf, write_hf


def run_here(module: str, job: bytes, work: Path, progress: Progress) -> None:
    """In place of the child: its main function, without the libraries' warnings, which a child keeps to itself."""
    if module == "export.gguf":
        return gguf.convert(msgspec.json.decode(job, type=gguf.Job))
    from export import onnx_child

    assert module == "export.onnx_child"
    tqdm.monitor_interval = 0  # its bars would leave a thread behind
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx_child.convert(msgspec.json.decode(job, type=onnx.Job))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.onnx.run_child", run_here)
    monkeypatch.setattr("export.gguf.run_child", run_here)


class Built:
    """ONNX folders by model type, builder and quantization, made when first asked for."""

    def __init__(self, home: Path, sharpness: float = 1.0) -> None:
        self.home = home
        self.sharpness = sharpness
        self.sources: dict[str, ModelFolder] = {}
        self.folders: dict[tuple[str, str, str], Path] = {}

    def source(self, model_type: str) -> ModelFolder:
        if model_type not in self.sources:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                folder = write_hf(self.home / model_type, model_type, self.sharpness)
            files = [
                folder / name
                for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
            ]
            self.sources[model_type] = catalog.install_hf(
                files, folder, name=model_type, licence="none", source_name="random"
            )
        return self.sources[model_type]

    def onnx(self, model_type: str, builder: str, quantization: str) -> Path:
        key = (model_type, builder, quantization)
        if key not in self.folders:
            output = self.home / "-".join(key)
            output.mkdir()
            onnx.build_onnx(self.source(model_type), output, self.home / "work", quantization, builder, None, silent)
            self.folders[key] = output
        return self.folders[key]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.onnx.run_child", run_here)
        yield Built(tmp_path_factory.mktemp("built"))


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "source" / "tiny.gguf")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus" / "words.txt"
    file.parent.mkdir()
    file.write_text("hello hello\n" * 5)
    return file
