"""Passes of the torch engine as CUDA graphs: recorded once a shape, replayed with other numbers in the same memory.

A shape is run plainly the first time, recorded the second; rare shapes are never recorded. Recordings share one memory
pool and one buffer of logits, since one replay ends before the next begins. Knows no model: it is given a function.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from outrider.engines.packing import Packed, Shape

__all__ = ["CudaGraphs"]

MAX_GRAPHS = 128
MAX_TOKENS = 512  # of a pass that is recorded; longer ones have enough to do on the GPU to hide what launching costs

Run = Callable[[Shape, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    numbers: torch.Tensor
    sees: torch.Tensor


class CudaGraphs:
    """`run(shape, numbers, sees)` gives float32 logits [num_wanted, width] on `device`, and reads nothing back."""

    def __init__(self, run: Run, width: int, device: torch.device) -> None:
        self._run = run
        self._device = device
        self._logits = torch.empty(MAX_TOKENS, width, device=device)
        self._host = torch.empty(MAX_TOKENS, width, pin_memory=True)
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[Shape, _Recording] = {}
        self._seen: set[Shape] = set()

    def __call__(self, packed: Packed) -> NDArray[np.float32]:
        """The wanted rows' logits, a view that holds until the next call."""
        shape = packed.shape
        numbers, sees = torch.from_numpy(packed.numbers), torch.from_numpy(packed.sees)
        recording = self._recordings.get(shape)
        if recording is None and shape in self._seen and len(self._recordings) < MAX_GRAPHS:
            recording = self._recordings[shape] = self._record(shape, numbers, sees)
        if recording is None:
            if shape.num_tokens <= MAX_TOKENS:
                self._seen.add(shape)
            logits = self._run(shape, numbers.to(self._device), sees.to(self._device))
        else:
            recording.numbers.copy_(numbers)
            recording.sees.copy_(sees)
            recording.graph.replay()
            logits = self._logits
        if packed.num_wanted > MAX_TOKENS:
            return logits[: packed.num_wanted].cpu().numpy()  # type: ignore[no-any-return]
        host = self._host[: packed.num_wanted]
        host.copy_(logits[: packed.num_wanted])  # waits for the pass
        return host.numpy()  # type: ignore[no-any-return]

    def _record(self, shape: Shape, numbers: torch.Tensor, sees: torch.Tensor) -> _Recording:
        numbers, sees = numbers.to(self._device), sees.to(self._device)
        stream = torch.cuda.Stream(self._device)  # libraries make their workspaces before recording, on another stream
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._run(shape, numbers, sees)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile: a drafter of the same process, say.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._logits[: shape.num_wanted].copy_(self._run(shape, numbers, sees))
        return _Recording(graph, numbers, sees)
