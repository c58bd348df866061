"""transformers' `generate`, alone, assisted by a draft model, and with prompt lookup.

It reads no quantized file, so the GGUF's weights are widened to 16 bits once and kept as a folder of its own format.
"""

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.base import PeerAnswer
from benchmarks.peers.program import Job, Program, Setting

__all__ = ["ALONE", "ASSISTED", "LOOKUP", "open_program"]

ALONE: Mapping[str, Setting] = {"as it comes": {}}
FIXED: Setting = {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0}
ASSISTED: Mapping[str, Setting] = {
    "as it comes": {},
    "4 drafts": {"num_assistant_tokens": 4, **FIXED},
    "8 drafts": {"num_assistant_tokens": 8, **FIXED},
}
LOOKUP: Mapping[str, Setting] = {
    "4 drafts": {"prompt_lookup_num_tokens": 4},
    "10 drafts": {"prompt_lookup_num_tokens": 10},
}


class Clock:
    """The streamer that `generate` puts its tokens into: the prompt first, then those of each pass."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.counts: list[int] = []

    def put(self, token_ids: Any) -> None:
        self.times_s.append(time.perf_counter())
        self.counts.append(token_ids.numel())

    def end(self) -> None:
        """Nothing to show."""


class Transformers(Program):
    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(job.num_threads)
        self._torch, self._stop_ids = torch, job.stop_ids
        self._target = self._load(job.target)
        self._options: dict[str, Any] = {}
        if job.drafter:
            self._options["assistant_model"] = drafter = self._load(job.drafter)
            for name, value in job.options.items():
                setattr(drafter.generation_config, name, value)
        else:
            self._options |= job.options

    def _load(self, source: str) -> Any:
        from transformers import AutoModelForCausalLM

        # Without 16-bit products in hardware a processor is faster over 32 bits.
        is_half = self._torch.ops.mkldnn._is_mkldnn_bf16_supported()
        dtype = self._torch.bfloat16 if is_half else self._torch.float32
        return AutoModelForCausalLM.from_pretrained(widened(Path(source)), dtype=dtype).eval()

    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> PeerAnswer:
        clock = Clock()
        prompt = self._torch.tensor([list(prompt_ids)])
        began_s = time.perf_counter()
        with self._torch.inference_mode():
            sequence = self._target.generate(
                prompt,
                attention_mask=self._torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=max_tokens,
                eos_token_id=self._stop_ids,
                pad_token_id=self._stop_ids[0],
                streamer=clock,
                **self._options,
            )
        token_ids = sequence[0, len(prompt_ids) :].tolist()
        first_s, last_s = clock.times_s[1], clock.times_s[-1]
        # Drafts are checked together with the prompt; the tokens that then come with the first one are not timed.
        num_timed = len(token_ids) - clock.counts[1]
        token_ids = token_ids[:max_tokens]  # its last pass may go beyond
        per_token_s = (last_s - first_s) / num_timed if num_timed else (last_s - began_s) / len(token_ids)
        seconds = per_token_s * (len(token_ids) - 1)
        return PeerAnswer(token_ids, seconds, first_s - began_s, len(clock.times_s) - 2)


def widened(source: Path) -> Path:
    """A folder of 16-bit weights for a GGUF file, made beside the store's models the first time; a folder is itself."""
    import torch
    from transformers import AutoModelForCausalLM

    if source.is_dir():
        return source
    folder = source.parents[1] / "peers" / f"{source.stem}-bf16"
    if not folder.exists():
        print(f"widening {source.name} to 16 bits, once ...", file=sys.stderr)
        half = folder.with_name(f"{folder.name}.{os.getpid()}")
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
        model.save_pretrained(half)
        try:
            half.rename(folder)
        except OSError:
            shutil.rmtree(half)
    return folder


def open_program(job: Job) -> Program:
    return Transformers(job)
