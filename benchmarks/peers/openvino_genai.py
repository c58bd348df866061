"""OpenVINO GenAI over the GGUF itself: alone, with a draft model, with prompt lookup.

As it comes it takes bfloat16 between the layers where the processor has it; its drafts run in 32-bit floats, which were
faster. Whatever else it does to the weights and the cache is left as it is. With a single thread the library crashes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.base import PeerAnswer
from benchmarks.peers.program import Job, Program, Setting

__all__ = ["ALONE", "DRAFT_MODEL", "LOOKUP", "open_program"]

FLOAT32: Setting = {"INFERENCE_PRECISION_HINT": "f32"}  # in capitals: properties of the device, not of a generation
ALONE: Mapping[str, Setting] = {"as it comes": {}, "32-bit": FLOAT32}
DRAFT_MODEL: Mapping[str, Setting] = {
    f"{count} drafts, 32-bit": {"num_assistant_tokens": count, **FLOAT32} for count in (2, 4, 8)
}
LOOKUP: Mapping[str, Setting] = {
    f"{size} tokens, {count} drafts, 32-bit": {"max_ngram_size": size, "num_assistant_tokens": count, **FLOAT32}
    for size, count in ((2, 2), (2, 4), (3, 4), (3, 8))
}


class OpenVINO(Program):
    def __init__(self, job: Job) -> None:
        import openvino_genai

        device = {name: value for name, value in job.options.items() if name.isupper()}
        generation = {name: value for name, value in job.options.items() if name not in device}
        device["INFERENCE_NUM_THREADS"] = job.num_threads
        drafts: dict[str, Any] = {"prompt_lookup": True} if generation else {}
        if job.drafter:
            drafts = {"draft_model": openvino_genai.draft_model(converted(job, job.drafter), "CPU", **device)}
        self._pipeline = openvino_genai.LLMPipeline(job.target, "CPU", **device, **drafts)
        self._config = openvino_genai.GenerationConfig()
        self._config.do_sample = False
        self._config.eos_token_id = job.stop_ids[0]
        self._config.stop_token_ids = set(job.stop_ids)
        for name, value in generation.items():
            setattr(self._config, name, value)

    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> PeerAnswer:
        import numpy as np
        import openvino
        import openvino_genai

        ids = np.array([prompt_ids], dtype=np.int64)
        self._config.max_new_tokens = max_tokens
        prompt = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        result = self._pipeline.generate(prompt, self._config)
        num_passes = len(result.perf_metrics.raw_metrics.m_batch_sizes) - 1
        first_s = result.perf_metrics.get_ttft().mean / 1e3
        seconds = result.perf_metrics.get_generate_duration().mean / 1e3 - first_s
        return PeerAnswer(list(result.tokens[0]), seconds, first_s, num_passes)


def converted(job: Job, file: str) -> Path:
    """A folder in its own format: it reads no drafter from GGUF, and of the GGUF's quantizations not all.

    So the drafter is made Q4_0 first, as the target is. It writes its own format where the GGUF lies.
    """
    import llama_cpp
    import openvino_genai

    folder = Path(job.work) / "drafter"
    folder.mkdir()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, True
    if llama_cpp.llama_model_quantize(file.encode(), str(folder / "drafter.gguf").encode(), params):
        raise RuntimeError(f"{Path(file).name} cannot be made Q4_0")
    openvino_genai.LLMPipeline(folder / "drafter.gguf", "CPU", enable_save_ov_model=True)
    return folder


def open_program(job: Job) -> Program:
    return OpenVINO(job)
