"""The torch engine's KV cache: one static buffer a layer, a row of it for each sequence, as a transformers `Cache`.

A pass names the slot and cell of each token and the slots to read; every layer writes and reads by index, for all
sequences at once. Shapes depend only on the buffers and on the pass's padded sizes. Knows no masks, lengths or tokens.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

__all__ = ["SlotCache"]


class SlotCache(Cache):  # type: ignore[misc]
    """Keys and values, [max_sequences, kv_heads, capacity + 1, head_dim] a layer. The last cell takes padding."""

    def __init__(self, num_layers: int, max_sequences: int, capacity: int) -> None:
        self.capacity = capacity
        self.slots = self.cells = self.lane_slots = torch.empty(0, dtype=torch.int64)
        self.num_cells = 0
        super().__init__(layers=[SlotLayer(self, max_sequences) for _ in range(num_layers)])

    def begin(self, slots: torch.Tensor, cells: torch.Tensor, lane_slots: torch.Tensor, num_cells: int) -> None:
        """Before a pass: `slots` and `cells` [tokens] to write; `lane_slots` [lanes] to read, `num_cells` of each."""
        self.slots, self.cells, self.lane_slots, self.num_cells = slots, cells, lane_slots, num_cells

    def move(self, slot: int, sources: torch.Tensor, target: int) -> None:
        """Copy cells `sources` [n] of a slot to its cells target … target + n - 1."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                buffer[slot, :, target : target + len(sources)] = buffer[slot, :, sources]  # the right side is a copy

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` cells of one slot to another."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                buffer[target, :, :length] = buffer[source, :, :length]


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    is_sliding = False
    is_compileable = True  # static buffers; also tells transformers not to drop the mask

    def __init__(self, cache: SlotCache, max_sequences: int) -> None:
        super().__init__()
        self.is_initialized: bool = False
        self._cache = cache
        self._max_sequences = max_sequences

    def lazy_initialization(self, key_states: torch.Tensor) -> None:
        """Room for keys; that for values, which may differ in shape, `update` makes."""
        self.keys = self._buffer(key_states)

    def _buffer(self, states: torch.Tensor) -> torch.Tensor:
        _, num_heads, _, head_dim = states.shape
        # Zeros, not garbage: a masked cell's weight is 0, but 0 times a NaN is a NaN.
        return states.new_zeros((self._max_sequences, num_heads, self._cache.capacity + 1, head_dim))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write what the tokens bring, [1, kv_heads, tokens, head_dim]; give [lanes, kv_heads, num_cells, head_dim]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states)
            self.values = self._buffer(value_states)
            self.is_initialized = True
        cache = self._cache
        where = (cache.slots, slice(None), cache.cells)
        # Indexing by two tensors around a slice puts their dimension first: [tokens, heads, head_dim].
        self.keys[where] = key_states[0].transpose(0, 1)
        self.values[where] = value_states[0].transpose(0, 1)
        return self._read(self.keys), self._read(self.values)

    def _read(self, buffer: torch.Tensor) -> torch.Tensor:
        cache = self._cache
        return buffer[:, :, : cache.num_cells].index_select(0, cache.lane_slots)

    def get_mask_sizes(self, cache_position: torch.Tensor) -> tuple[int, int]:
        return self._cache.num_cells, 0

    def get_seq_length(self) -> int:
        return self._cache.num_cells

    def get_max_cache_shape(self) -> int:
        return self._cache.capacity
