"""Which peers there are: `all_peers()` gives those that this place knows; one that cannot run here says why.

Knows no prompt and no table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from benchmarks.peers import hf_transformers, llama_cpp, llama_cpp_python, onnx_genai, openvino_genai, tightwad
from benchmarks.peers.base import CannotRun, Peer
from benchmarks.peers.libraries import GENAI, OPENVINO, TIGHTWAD, Installed
from benchmarks.peers.process import Library, Machine, Model, ProcessPeer
from benchmarks.peers.program import Setting
from benchmarks.pinned import cores
from outrider import catalog
from outrider.engines.machine import resolve_threads
from outrider.errors import OutriderError

__all__ = ["Weights", "all_peers", "stored_weights", "this_machine"]


@dataclass(frozen=True)
class Weights:
    """The same two models in the formats that peers read: a GGUF is a file, an ONNX model a folder."""

    gguf_target: Model
    gguf_drafter: Model
    onnx_target: Model
    onnx_drafter: Model
    wide_target: Model  # the GGUF whose weights transformers gets
    stop_ids: tuple[int, ...]


def stored_weights() -> Weights:
    """Those of the store; what is missing there is the reason why a peer cannot run."""
    return Weights(
        gguf_target=stored("qwen2.5-coder-1.5b-q4_0"),
        gguf_drafter=stored("qwen2.5-coder-0.5b-instruct"),
        onnx_target=stored("qwen2.5-coder-1.5b-onnx"),
        onnx_drafter=stored("qwen2.5-coder-0.5b-onnx"),
        wide_target=stored("qwen2.5-coder-1.5b-instruct"),
        stop_ids=(151643, 151645),
    )


def stored(name: str) -> Model:
    try:
        folder = catalog.find(name)
    except OutriderError as error:
        return Model(name, None, str(error))
    return Model(name, folder.path if folder.manifest.format == "onnx" else folder.model_file)


def this_machine(num_threads: int = 0, max_context: int = 1024) -> Machine:
    """So many threads, 0 for the physical cores, on as many cores, as ours get."""
    num_threads = resolve_threads(num_threads)
    return Machine(num_threads, tuple(sorted(set(cores(num_threads)))), max_context)


def all_peers(weights: Weights | None = None, machine: Machine | None = None) -> list[Peer]:
    """Every peer, also those that cannot run here."""
    weights, machine = weights or stored_weights(), machine or this_machine()
    gguf, drafter = weights.gguf_target, weights.gguf_drafter
    gguf_pair = f"{gguf.name} and {drafter.name}"
    portable, compiled = "the wheel's kernels, made for any processor", "kernels compiled for this processor"
    onnx_files = f"{weights.onnx_target.name}, the very files of ours"
    wide = f"{weights.wide_target.name} widened to 16 bits"

    def peer(
        name: str,
        reads: str,
        module: ModuleType,
        library: Library,
        target: Model,
        options: Mapping[str, Setting],
        drafter: Model | None = None,
    ) -> Peer:
        return ProcessPeer(name, reads, module.__name__, library, target, drafter, options, weights.stop_ids, machine)

    wheel, native, torch = Installed("xllamacpp"), Installed("llama_cpp"), Installed("transformers")
    return [
        peer("llama.cpp", f"{gguf.name}; {portable}", llama_cpp, wheel, gguf, llama_cpp.ALONE),
        peer(
            "llama.cpp, draft model", f"{gguf_pair}; {portable}", llama_cpp, wheel, gguf, llama_cpp.DRAFT_MODEL, drafter
        ),
        peer("llama.cpp, n-gram drafts", f"{gguf.name}; {portable}", llama_cpp, wheel, gguf, llama_cpp.NGRAMS),
        peer("llama-cpp-python", f"{gguf.name}; {compiled}", llama_cpp_python, native, gguf, llama_cpp_python.ALONE),
        peer(
            "llama-cpp-python, prompt lookup",
            f"{gguf.name}; {compiled}",
            llama_cpp_python,
            native,
            gguf,
            llama_cpp_python.LOOKUP,
        ),
        peer("ONNX Runtime GenAI", onnx_files, onnx_genai, GENAI, weights.onnx_target, onnx_genai.ALONE),
        peer(
            "ONNX Runtime GenAI, draft model",
            f"{onnx_files}, and {weights.onnx_drafter.name}",
            onnx_genai,
            GENAI,
            weights.onnx_target,
            onnx_genai.DRAFT_MODEL,
            weights.onnx_drafter,
        ),
        peer(
            "ONNX Runtime GenAI, n-gram drafts", onnx_files, onnx_genai, GENAI, weights.onnx_target, onnx_genai.NGRAMS
        ),
        peer("OpenVINO GenAI", gguf.name, openvino_genai, OPENVINO, gguf, openvino_genai.ALONE),
        peer(
            "OpenVINO GenAI, draft model",
            f"{gguf_pair} made Q4_0",
            openvino_genai,
            OPENVINO,
            gguf,
            openvino_genai.DRAFT_MODEL,
            drafter,
        ),
        peer("OpenVINO GenAI, prompt lookup", gguf.name, openvino_genai, OPENVINO, gguf, openvino_genai.LOOKUP),
        peer("transformers", wide, hf_transformers, torch, weights.wide_target, hf_transformers.ALONE),
        peer(
            "transformers, assisted",
            f"{wide}, and {drafter.name} likewise",
            hf_transformers,
            torch,
            weights.wide_target,
            hf_transformers.ASSISTED,
            drafter,
        ),
        peer("transformers, prompt lookup", wide, hf_transformers, torch, weights.wide_target, hf_transformers.LOOKUP),
        peer("Tightwad", f"{gguf_pair}; {portable}", tightwad, TIGHTWAD, gguf, tightwad.SETTINGS, drafter),
        CannotRun(
            "AutoDraft",
            "none",
            "autodraft-sd 1.1.1 needs an NVIDIA GPU: whatever its device_map, it moves each prompt to cuda and calls "
            "torch.cuda.synchronize at every step",
        ),
    ]
