"""llama.cpp's own server, as the xllamacpp wheel carries it: alone, with a draft model, with n-grams of its own text.

Asked over loopback for whole answers; speeds are by its own clock, so that no transport counts against it.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.base import PeerAnswer
from benchmarks.peers.program import Job, Program, Setting

__all__ = ["ALONE", "DRAFT_MODEL", "NGRAMS", "open_program", "server_params"]

ALONE: Mapping[str, Setting] = {"as it comes": {}}
DRAFT_MODEL: Mapping[str, Setting] = {
    "2 drafts": {"kind": "draft", "n_max": 2},
    "4 drafts": {"kind": "draft", "n_max": 4},
    "8 drafts": {"kind": "draft", "n_max": 8},
    "8 drafts, p-min 0.75": {"kind": "draft", "n_max": 8, "p_min": 0.75},
}
# `ngram-mod` is left out: it remembers earlier requests, so that a prompt asked again is known already. `ngram-cache`
# drafts nothing without statistics from files.
NGRAMS: Mapping[str, Setting] = {
    "simple, 2 tokens, 4 drafts": {"kind": "simple", "size_n": 2, "size_m": 4},
    "simple, 3 tokens, 8 drafts": {"kind": "simple", "size_n": 3, "size_m": 8},
    "simple, 12 tokens, 48 drafts (its own)": {"kind": "simple", "size_n": 12, "size_m": 48},
    "map-k, 3 tokens, 8 drafts": {"kind": "map_k", "size_n": 3, "size_m": 8},
}
ANSWER_S = 600.0


class Server(Program):
    def __init__(self, job: Job) -> None:
        import xllamacpp

        kinds = xllamacpp.common_speculative_type
        params = server_params(job, job.target)
        options = dict(job.options)
        kind = options.pop("kind", None)
        if kind == "draft":
            params.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
            draft = params.speculative.draft
            draft.mparams.path = job.drafter
            draft.n_gpu_layers = 0
            for threads in (draft.cpuparams, draft.cpuparams_batch):
                threads.n_threads = job.num_threads
            chosen: Any = draft
        elif kind == "simple":
            params.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
            chosen = params.speculative.ngram_simple
        elif kind == "map_k":
            params.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_MAP_K]
            chosen = params.speculative.ngram_map_k
        for name, value in options.items():
            setattr(chosen, name, value)
        self._server = xllamacpp.Server(params)

    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> PeerAnswer:
        import httpx

        question = {
            "prompt": list(prompt_ids),
            "n_predict": max_tokens,
            "samplers": ["top_k"],
            "top_k": 1,
            "temperature": 0.0,
            "return_tokens": True,
            "cache_prompt": False,
        }
        began_s = time.perf_counter()
        response = httpx.post(f"{self._server.listening_address}/completion", json=question, timeout=ANSWER_S)
        took_s = time.perf_counter() - began_s
        response.raise_for_status()
        body = response.json()
        timings = body["timings"]
        seconds = timings["predicted_ms"] / 1e3
        # Drafts beyond the end count as accepted, so that a short answer would have had no pass at all.
        num_passes = max(1, len(body["tokens"]) - 1 - timings.get("draft_n_accepted", 0))
        return PeerAnswer(body["tokens"], seconds, took_s - seconds, num_passes)


def server_params(job: Job, file: str) -> Any:
    """One slot that knows no earlier prompt, on the job's threads."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx = job.max_context
    params.n_parallel = 1
    params.fit_params = False
    params.ui = False
    params.verbosity = 0
    params.cache_ram_mib = 0
    params.n_gpu_layers = 0
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = job.num_threads
    return params


def open_program(job: Job) -> Program:
    return Server(job)
