"""ONNX int4 and int8 from a GGUF file or a Hugging Face folder.

The heavy part runs in a child (`export.onnx_child`); here are the choice of the builder, the checks before it and the
folder it works in. Knows no trimming and writes no manifest.
"""

import shutil
from pathlib import Path

import msgspec

from export.child import require, run_child
from outrider.errors import InvalidParameter, UsageError
from outrider.manifest import TOKENIZER, ModelFolder
from outrider.progress import Progress

__all__ = ["BLOCK_SIZES", "FUSED_ARCHITECTURES", "MODEL_FILE", "QUANTIZATIONS", "Job", "build_onnx", "pick_builder"]

MODEL_FILE = "model.onnx"
QUANTIZATIONS = {"int4": 4, "int8": 8}  # name -> bits of a weight
BLOCK_SIZES = (16, 32, 64, 128, 256)  # weights that share a scale, as the kernels know them
BLOCK_SIZE = 128

# What the fused builder writes and the ONNX engine runs; any other architecture takes the general way.
FUSED_ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


class Job(msgspec.Struct, frozen=True):
    """What the child is told. `gguf_file` is None when `source` is a Hugging Face folder already."""

    source: str
    gguf_file: str | None
    tokenizer: str
    work: str
    output: str
    builder: str
    bits: int
    block_size: int


def pick_builder(architecture: str, builder: str | None) -> str:
    """The builder that was asked for, or the fused one where it knows the architecture. Raises InvalidParameter."""
    if builder == "fused" and architecture not in FUSED_ARCHITECTURES:
        known = ", ".join(sorted(FUSED_ARCHITECTURES))
        raise InvalidParameter(f"the fused builder knows {known}, not {architecture}; use --builder general")
    return builder or ("fused" if architecture in FUSED_ARCHITECTURES else "general")


def build_onnx(
    source: ModelFolder,
    output: Path,
    work: Path,
    quantization: str,
    builder: str | None,
    block_size: int | None,
    progress: Progress,
) -> None:
    """Write `model.onnx` and `model.onnx.data` into the folder `output`; everything temporary goes under `work`.

    Raises UsageError for a source it cannot convert, MissingExtra, and what `run_child` raises.
    """
    if source.manifest.format not in {"gguf", "hf"}:
        raise UsageError(
            f"{source.name} is {source.manifest.format} already; build ONNX from its GGUF file or its source"
        )
    if source.manifest.id_map is not None:
        raise UsageError(f"{source.name} has a trimmed vocabulary; build from the model it was trimmed from")
    chosen = pick_builder(source.manifest.architecture, builder)
    require("torch", "transformers", "accelerate", "onnx_ir", "onnxruntime")
    require("onnxruntime_genai" if chosen == "fused" else "optimum")
    is_gguf = source.manifest.format == "gguf"
    job = Job(
        source=str(source.model_file.parent if is_gguf else source.model_file),
        gguf_file=source.model_file.name if is_gguf else None,
        tokenizer=str(source.path / TOKENIZER),
        work=str(work),
        output=str(output),
        builder=chosen,
        bits=QUANTIZATIONS[quantization],
        block_size=block_size or BLOCK_SIZE,
    )
    work.mkdir()
    try:
        run_child("export.onnx_child", msgspec.json.encode(job), work, progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)
