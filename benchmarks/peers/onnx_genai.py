"""ONNX Runtime GenAI over our own ONNX files: alone, with a draft model, with n-grams of its own text.

The files are read where they lie; only the configuration that it wants beside them is written.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.base import PeerAnswer
from benchmarks.peers.program import Job, Program, Setting

__all__ = ["ALONE", "DRAFT_MODEL", "NGRAMS", "open_program"]

ALONE: Mapping[str, Setting] = {"as it comes": {}}
DRAFT_MODEL: Mapping[str, Setting] = {
    "2 drafts": {"max_draft_tokens": 2},
    "4 drafts": {"max_draft_tokens": 4},
    "8 drafts": {"max_draft_tokens": 8},
    "adaptive from 2": {"min_adaptive_k": 2},
}
NGRAMS: Mapping[str, Setting] = {
    "3 tokens, 4 drafts": {"ngram_size": 3, "max_draft_tokens": 4},
    "3 tokens, 4 drafts, chained": {"ngram_size": 3, "max_draft_tokens": 4, "ngram_chained_lookup": True},
    "4 tokens, 8 drafts, chained": {"ngram_size": 4, "max_draft_tokens": 8, "ngram_chained_lookup": True},
    "3 tokens, adaptive from 2, chained": {"ngram_size": 3, "min_adaptive_k": 2, "ngram_chained_lookup": True},
}


class GenAI(Program):
    def __init__(self, job: Job) -> None:
        import onnxruntime_genai as genai

        genai.disable_telemetry_events()
        self._genai, self._job = genai, job
        write_config(job)
        self._model = genai.Model(job.work)

    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> PeerAnswer:
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(do_sample=False, max_length=len(prompt_ids) + max_tokens)
        if self._job.options:
            params.set_speculative_options(**self._job.options)
        generator = self._genai.Generator(self._model, params)
        began_s = time.perf_counter()
        generator.append_tokens(list(prompt_ids))
        # The first token is as good as known: what follows may already be a pass over drafts.
        first_s = time.perf_counter()
        token_ids = []
        while not generator.is_done():
            generator.generate_next_token()
            token_ids.append(int(generator.get_next_tokens()[0]))
        last_s = time.perf_counter()
        num_passes = None
        if self._job.options:
            stats = generator.get_speculative_stats()
            num_passes = stats["target_forward_passes"] + stats["standard_fallback_steps"]
        return PeerAnswer(token_ids, last_s - first_s, first_s - began_s, num_passes)


def write_config(job: Job) -> None:
    target = decoder("target", Path(job.target), job)
    model: dict[str, Any] = {
        "type": "decoder",
        "bos_token_id": 1,
        "eos_token_id": job.stop_ids,
        "pad_token_id": job.stop_ids[0],
        "context_length": job.max_context,
        "vocab_size": target.pop("vocab_size"),
        "decoder": target,
    }
    if job.drafter:
        model["draft"] = decoder("drafter", Path(job.drafter), job)
        model["draft"].pop("vocab_size")
    search = {"do_sample": False, "max_length": job.max_context, "past_present_share_buffer": True}
    config = {"model": model, "search": search}
    (Path(job.work) / "genai_config.json").write_text(json.dumps(config))


def decoder(role: str, folder: Path, job: Job) -> dict[str, Any]:
    """What the configuration says of one model, read off its graph. It takes no path that leads out of its folder."""
    import onnx

    (Path(job.work) / role).symlink_to(folder, target_is_directory=True)
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.input}
    vocab_size = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    attention = next(node for node in graph.node if node.op_type == "GroupQueryAttention")
    num_heads = next(attribute.i for attribute in attention.attribute if attribute.name == "num_heads")
    _, num_kv_heads, _, head_size = shapes["past_key_values.0.key"]
    inputs = {name: name for name in ("input_ids", "attention_mask", "position_ids") if name in shapes}
    inputs |= {f"past_{part}_names": f"past_key_values.%d.{part}" for part in ("key", "value")}
    outputs = {"logits": "logits"} | {f"present_{part}_names": f"present.%d.{part}" for part in ("key", "value")}
    return {
        "session_options": {"intra_op_num_threads": job.num_threads, "provider_options": []},
        "filename": f"{role}/model.onnx",
        "head_size": head_size,
        "hidden_size": head_size * num_heads,
        "num_attention_heads": num_heads,
        "num_hidden_layers": sum(name.endswith(".key") for name in shapes),
        "num_key_value_heads": num_kv_heads,
        "inputs": inputs,
        "outputs": outputs,
        "vocab_size": vocab_size,
    }


def open_program(job: Job) -> Program:
    return GenAI(job)
