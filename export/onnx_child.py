"""The child process of `export.onnx`: weights to half precision, a builder, quantization, a smaller embedding table.

Reads its job from standard input and prints `stage: ...` lines between what the libraries print. Runs no code from a
model's folder and reaches for no network.
"""

import functools
import json
import shutil
import sys
from pathlib import Path

import msgspec
import onnx_ir as ir

from export.light_gguf import drop_token_lists
from export.onnx import Job
from export.onnx_graph import save, shrink_embeddings

__all__ = ["convert", "main"]

ACCURACY_LEVEL = 4  # products over int8 activations: the fast kernels of a CPU


def main() -> None:
    convert(msgspec.json.decode(sys.stdin.buffer.read(), type=Job))


def convert(job: Job) -> None:
    work = Path(job.work)
    folder = unpack(job, work / "hf") if job.gguf_file else Path(job.source)
    model = build_fused(folder, work, job) if job.builder == "fused" else build_general(folder, work, job)
    print("stage: write ONNX", flush=True)
    shrink_embeddings(model)
    save(model, Path(job.output))


def unpack(job: Job, folder: Path) -> Path:
    """GGUF to a Hugging Face folder in half precision."""
    print("stage: unpack GGUF weights", flush=True)
    import gguf
    import torch
    from transformers import AutoModelForCausalLM

    assert job.gguf_file is not None
    light = folder.with_name("light.gguf")
    drop_token_lists(Path(job.source) / job.gguf_file, light)
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)  # asked for anew for each module of a model
    model = AutoModelForCausalLM.from_pretrained(light.parent, gguf_file=light.name, dtype=torch.float16)
    light.unlink()
    model.save_pretrained(folder)
    # The builders load a tokenizer and save it again; the result's own is copied from the source, so any will do.
    shutil.copyfile(job.tokenizer, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def build_fused(folder: Path, work: Path, job: Job) -> ir.Model:
    print("stage: build ONNX (fused)", flush=True)
    from onnxruntime_genai.models.builder import create_model

    output = work / "fused"
    precision = "int4" if job.bits == 4 else "fp32"
    options = {
        "int4_accuracy_level": ACCURACY_LEVEL,
        "int4_block_size": job.block_size,
        "int4_is_symmetric": False,
        "hf_remote": False,
        "hf_token": "false",
    }
    create_model(
        None,
        str(folder),
        str(output),
        precision,
        "cpu",
        str(work / "cache"),
        **options,
    )
    # The builder writes int4 itself; for int8 its float32 graph is quantized here.
    return ir.load(output / "model.onnx") if job.bits == 4 else quantize(output / "model.onnx", job)


def build_general(folder: Path, work: Path, job: Job) -> ir.Model:
    print("stage: build ONNX (general)", flush=True)
    from optimum.exporters.onnx import main_export

    output = work / "general"
    # Post-processing would join tied input and output tables again, and a joined table cannot be quantized.
    main_export(
        str(folder),
        output=output,
        task="text-generation-with-past",
        dtype="fp32",
        do_validation=False,
        no_post_process=True,
    )
    return quantize(output / "model.onnx", job)


def quantize(file: Path, job: Job) -> ir.Model:
    """Every product with a constant float32 matrix becomes one with blocks of integers, a scale and a zero each."""
    print(f"stage: quantize to int{job.bits}", flush=True)
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        str(file), bits=job.bits, block_size=job.block_size, is_symmetric=False, accuracy_level=ACCURACY_LEVEL
    )
    quantizer.process()
    return ir.from_proto(quantizer.model.model)


if __name__ == "__main__":
    main()
