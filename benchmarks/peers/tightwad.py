"""Tightwad: a proxy that drafts on one llama.cpp server and has another check, here both in this process.

It speaks text: the prompt goes in as text and the answer is split into tokens again. It counts words where it is asked
for tokens, so it is stopped from outside.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.base import PeerAnswer
from benchmarks.peers.llama_cpp import server_params
from benchmarks.peers.program import Job, Program, Setting

__all__ = ["SETTINGS", "open_program"]

SETTINGS: Mapping[str, Setting] = {
    "4 drafts": {"max_draft_tokens": 4},
    "8 drafts": {"max_draft_tokens": 8},
    "its own choice": {"auto_draft_tokens": True},
}
ASK_S = 60.0


class Tightwad(Program):
    def __init__(self, job: Job) -> None:
        import xllamacpp
        from tightwad.config import ProxyConfig, ServerEndpoint

        assert job.drafter is not None
        self._stop_ids = frozenset(job.stop_ids)
        self._servers = [xllamacpp.Server(server_params(job, file)) for file in (job.drafter, job.target)]
        drafter, target = [ServerEndpoint(server.listening_address, "local") for server in self._servers]
        self._config = ProxyConfig(drafter, target, **job.options)

    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> PeerAnswer:
        return asyncio.run(self._generate(list(prompt_ids), max_tokens))

    async def _generate(self, prompt_ids: list[int], max_tokens: int) -> PeerAnswer:
        from tightwad.proxy import SpeculativeProxy

        proxy = SpeculativeProxy(self._config)
        try:
            prompt = self._ask("detokenize", tokens=prompt_ids)["content"]
            began_s = time.perf_counter()
            times_s: list[float] = []
            texts: list[str] = []
            token_ids: list[int] = []
            chunks = await proxy.generate_completion(prompt, max_tokens, stream=True)
            while len(token_ids) < max_tokens and self._stop_ids.isdisjoint(token_ids):
                try:
                    choice = json.loads((await anext(chunks)).removeprefix("data: "))["choices"][0]
                except AttributeError:
                    if not texts:
                        raise
                    break  # how it takes a target that has nothing more to say
                if choice["finish_reason"]:
                    break
                times_s.append(time.perf_counter())
                texts.append(choice["text"])
                token_ids = self._ask("tokenize", content="".join(texts))["tokens"]
            num_first = len(self._ask("tokenize", content=texts[0])["tokens"])
            num_timed = len(token_ids) - num_first
            per_token_s = (times_s[-1] - times_s[0]) / num_timed if num_timed else (times_s[-1] - began_s) / num_first
            token_ids = token_ids[:max_tokens]
            return PeerAnswer(token_ids, per_token_s * (len(token_ids) - 1), times_s[0] - began_s)
        finally:
            await proxy.close()

    def _ask(self, what: str, **question: Any) -> Any:
        import httpx

        return httpx.post(f"{self._servers[1].listening_address}/{what}", json=question, timeout=ASK_S).json()


def open_program(job: Job) -> Program:
    return Tightwad(job)
