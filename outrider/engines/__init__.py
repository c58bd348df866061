"""Engines: one model on one backend. `open_engine` picks the backend from the model folder's format."""

import importlib

import outrider.no_telemetry  # noqa: F401  before a library is loaded
from outrider.engines.base import Chunk, Engine, EngineSettings
from outrider.errors import MissingExtra
from outrider.manifest import ModelFolder

__all__ = ["Chunk", "Engine", "EngineSettings", "open_engine"]

# format -> (module, class, extra that installs its library)
BACKENDS = {
    "onnx": ("outrider.engines.onnx", "OnnxEngine", "onnx"),
    "gguf": ("outrider.engines.llama_cpp", "LlamaCppEngine", "gguf"),
    "hf": ("outrider.engines.torch", "TorchEngine", "torch"),
}


def open_engine(folder: ModelFolder, settings: EngineSettings | None = None) -> Engine:
    """Load the model of `folder`. Raises MissingExtra, InvalidModel or EngineError."""
    module_name, class_name, extra = BACKENDS[folder.manifest.format]
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise MissingExtra(
            f"a {folder.manifest.format} model needs a library that is not installed ({error.name}); "
            f'run: pip install "outrider[{extra}]"'
        ) from None
    engine: Engine = getattr(module, class_name)(folder, settings or EngineSettings())
    return engine
