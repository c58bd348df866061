"""An engine whose bits and costs are planted: it is told what size, place, neighbours and company do to a row."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from outrider.engines.base import Chunk, Logits
from outrider.engines.sequences import Sequences

Label = Callable[[int], object]


def alike(size: int) -> object:
    return 0


@dataclass
class PlantedEngine:
    """Logits and cells are hashes of all tokens so far and of the labels that the plants give a pass."""

    logits_label: Label = alike  # of the chunk's size
    cache_label: Label = alike  # of the chunk's size
    place_label: Callable[[int, int], object] = lambda size, place: 0
    sees_later_tokens: bool = False
    minds_company: bool = False  # bits depend on how many sequences share the pass
    cost_ms: Callable[[int], float] = float
    max_batch: int = 1
    max_sequences: int = 1
    max_context: int = 1024
    max_chunk: int = 512
    can_truncate: bool = True
    name: str = "planted 1.0"
    n_vocab: int = 50
    supports_tree: bool = False
    id_map: None = None
    now_s: float = 0.0
    num_passes: int = 0
    cells: dict[int, list[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sequences = Sequences(self.max_sequences)

    def clock(self) -> float:
        return self.now_s

    def allocate(self) -> int:
        number = self.sequences.allocate()
        self.cells[number] = []
        return number

    def length(self, sequence: int) -> int:
        return len(self.cells[sequence])

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        for chunk in chunks:
            self.sequences.resize(chunk.sequence, self.length(chunk.sequence))
        self.sequences.check(
            chunks, n_vocab=self.n_vocab, max_context=self.max_context, supports_tree=self.supports_tree
        )
        assert len(chunks) <= self.max_batch
        self.num_passes += 1
        self.now_s += self.cost_ms(sum(len(chunk.token_ids) for chunk in chunks)) / 1e3
        company = len(chunks) if self.minds_company else 0
        return [self._extend(chunk, company) for chunk in chunks]

    def _extend(self, chunk: Chunk, company: int) -> Logits:
        size = len(chunk.token_ids)
        assert size <= self.max_chunk
        cells = self.cells[chunk.sequence]
        later = list(chunk.token_ids) if self.sees_later_tokens else None
        rows = []
        for place, token_id in enumerate(chunk.token_ids):
            before = cells[-1] if cells else b""
            shared = (before, token_id, self.place_label(size, place), later, company)
            cells.append(_digest(*shared, self.cache_label(size)))
            if place >= size - chunk.num_logits:
                rows.append(_digest(*shared, self.logits_label(size)))
        return np.frombuffer(b"".join(rows), np.int32).reshape(len(rows), 4).astype(np.float32)

    def truncate(self, sequence: int, length: int) -> None:
        assert self.can_truncate
        del self.cells[sequence][length:]

    def keep(self, sequence: int, start: int, rows: Sequence[int]) -> None:
        raise AssertionError("nothing here is a tree")

    def release(self, sequence: int) -> None:
        self.sequences.release(sequence)
        self.cells.pop(sequence, None)

    def close(self) -> None:
        pass


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
