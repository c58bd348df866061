"""GGUF in the usual quantizations, from a GGUF file.

llama.cpp's own quantizer does the work, in a child process because it prints. Knows no trimming and writes no manifest.
"""

import ctypes
import shutil
import sys
from pathlib import Path

import msgspec

from export.child import require, run_child
from outrider.errors import UsageError
from outrider.manifest import ModelFolder
from outrider.progress import Progress

__all__ = ["QUANTIZATIONS", "Job", "build_gguf", "convert", "main"]

# name -> llama.cpp's constant
QUANTIZATIONS = {
    "f16": "LLAMA_FTYPE_MOSTLY_F16",
    "q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    "q4_1": "LLAMA_FTYPE_MOSTLY_Q4_1",
    "q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
    "q5_k_m": "LLAMA_FTYPE_MOSTLY_Q5_K_M",
    "q6_k": "LLAMA_FTYPE_MOSTLY_Q6_K",
    "q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
}


class Job(msgspec.Struct, frozen=True):
    source: str
    output: str
    quantization: str


def build_gguf(source: ModelFolder, output: Path, work: Path, quantization: str, progress: Progress) -> None:
    """Write the GGUF file `output`; everything temporary goes under `work`.

    Raises UsageError for a source that is not a GGUF file, MissingExtra, and what `run_child` raises.
    """
    if source.manifest.format != "gguf":
        raise UsageError(
            f"{source.name} is a {source.manifest.format} model, and GGUF is made from GGUF here; "
            "start from the model's GGUF file, or use --format onnx"
        )
    if source.manifest.id_map is not None:
        raise UsageError(f"{source.name} has a trimmed vocabulary; quantize the model it was trimmed from")
    require("llama_cpp", extra="gguf")
    job = Job(str(source.model_file), str(output), quantization)
    work.mkdir()
    try:
        run_child("export.gguf", msgspec.json.encode(job), work, progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> None:
    """The child: its job comes on standard input."""
    convert(msgspec.json.decode(sys.stdin.buffer.read(), type=Job))


def convert(job: Job) -> None:
    print(f"stage: quantize to {job.quantization}", flush=True)
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, QUANTIZATIONS[job.quantization])
    parameters.allow_requantize = True
    if llama_cpp.llama_model_quantize(job.source.encode(), job.output.encode(), ctypes.byref(parameters)) != 0:
        sys.exit(f"llama.cpp cannot quantize {Path(job.source).name}")


if __name__ == "__main__":
    main()
