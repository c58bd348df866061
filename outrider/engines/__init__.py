"""Engines: one model on one backend. `open_engine` picks it by the model folder's format and the provider."""

import importlib
from typing import Any

import outrider.no_telemetry  # noqa: F401  before a library is loaded
from outrider.engines.base import Chunk, Engine, EngineSettings
from outrider.errors import InvalidParameter, MissingExtra
from outrider.manifest import ModelFolder

__all__ = ["Chunk", "Engine", "EngineSettings", "backend", "open_engine"]

# format -> (module, class, extra that installs its library)
BACKENDS = {
    "onnx": ("outrider.engines.onnx", "OnnxEngine", "onnx"),
    "gguf": ("outrider.engines.llama_cpp", "LlamaCppEngine", "gguf"),
    "hf": ("outrider.engines.torch", "TorchEngine", "torch"),
}
OPENVINO = ("outrider.engines.openvino", "OpenVinoEngine", "openvino")  # which runs ONNX's files


def backend(folder: ModelFolder, settings: EngineSettings) -> Any:
    """The engine's class. Raises MissingExtra; InvalidParameter where OpenVINO is wanted for what is not ONNX."""
    module_name, class_name, extra = BACKENDS[folder.manifest.format]
    if settings.provider == "openvino":
        if folder.manifest.format != "onnx":
            raise InvalidParameter(f"OpenVINO runs ONNX models here, and {folder.name} is {folder.manifest.format}")
        module_name, class_name, extra = OPENVINO
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise MissingExtra(
            f"a {folder.manifest.format} model needs a library that is not installed ({error.name}); "
            f'run: pip install "outrider[{extra}]"'
        ) from None


def open_engine(folder: ModelFolder, settings: EngineSettings | None = None) -> Engine:
    """Load the model of `folder`. Raises what `backend` does, InvalidModel or EngineError."""
    settings = settings or EngineSettings()
    engine: Engine = backend(folder, settings)(folder, settings)
    return engine
