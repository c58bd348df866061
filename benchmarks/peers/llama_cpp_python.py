"""llama-cpp-python: llama.cpp compiled for this very processor, alone and with the binding's own prompt lookup."""

import time
from collections.abc import Mapping, Sequence

from benchmarks.peers.base import PeerAnswer
from benchmarks.peers.program import Job, Program, Setting

__all__ = ["ALONE", "LOOKUP", "open_program"]

ALONE: Mapping[str, Setting] = {"as it comes": {}}
LOOKUP: Mapping[str, Setting] = {
    f"{count} drafts": {"num_pred_tokens": count, "max_ngram_size": 2} for count in (2, 4, 8)
}


class Binding(Program):
    def __init__(self, job: Job) -> None:
        from llama_cpp import Llama
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        self._stop_ids = frozenset(job.stop_ids)
        self._llama = Llama(
            job.target,
            n_ctx=job.max_context,
            n_threads=job.num_threads,
            n_threads_batch=job.num_threads,
            n_gpu_layers=0,
            draft_model=LlamaPromptLookupDecoding(**job.options) if job.options else None,
            verbose=False,
        )

    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> PeerAnswer:
        self._llama.reset()
        token_ids: list[int] = []
        began_s = first_s = last_s = time.perf_counter()
        for token_id in self._llama.generate(list(prompt_ids), top_k=1, temp=0.0, repeat_penalty=1.0):
            last_s = time.perf_counter()
            token_ids.append(int(token_id))
            if len(token_ids) == 1:
                first_s = last_s
            if len(token_ids) == max_tokens or token_id in self._stop_ids:
                break
        return PeerAnswer(token_ids, last_s - first_s, first_s - began_s)


def open_program(job: Job) -> Program:
    return Binding(job)
