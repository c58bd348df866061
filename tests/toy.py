"""A toy engine with known logits: a fixed random function of the last few tokens. No weights, microseconds a pass.

It models what matters of real ones: a cache that must hold exactly the tokens it was given, and (with `classes`) logits
whose last bits depend on the size of the pass, in classes, and on the class that filled the cache.
"""

import functools
from collections.abc import Sequence

import numpy as np

from outrider.engines.base import Chunk, Logits, check_chunk
from outrider.errors import EngineError, EngineFull


@functools.lru_cache(4096)
def _random_row(n_vocab: int, seed: int, context: tuple[int, ...]) -> Logits:
    return (2 * np.random.default_rng([seed, *context]).normal(size=n_vocab)).astype(np.float32)


class ToyEngine:
    name = "toy"
    can_truncate = True
    id_map = None

    def __init__(
        self,
        *,
        n_vocab: int = 16,
        seed: int = 0,
        max_context: int = 512,
        max_sequences: int = 4,
        max_batch: int = 4,
        max_chunk: int = 128,
        classes: Sequence[Sequence[int]] = (),
        order: int = 2,
        supports_tree: bool = False,
    ) -> None:
        self.supports_tree = supports_tree
        self.n_vocab, self.max_context, self.max_sequences = n_vocab, max_context, max_sequences
        self.max_batch, self.max_chunk = max_batch, max_chunk
        self._seed, self._order = seed, order
        self._class_of = {size: number for number, sizes in enumerate(classes) for size in sizes}
        self._cache: dict[int, list[tuple[int, int]]] = {}  # per sequence: (token id, class that cached it)
        self.num_passes = 0
        self.chunks: list[list[int]] = []  # sizes of the chunks of each pass
        self.poison: int | None = None  # this token makes a NaN row
        self.fail_next = False

    def allocate(self) -> int:
        for number in range(self.max_sequences):
            if number not in self._cache:
                self._cache[number] = []
                return number
        raise EngineFull("no sequence free")

    def length(self, sequence: int) -> int:
        return len(self._cache[sequence])

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        assert len(chunks) <= self.max_batch
        assert len({chunk.sequence for chunk in chunks}) == len(chunks)
        for chunk in chunks:
            assert len(chunk.token_ids) >= 1
            held = len(self._cache[chunk.sequence])
            check_chunk(chunk, n_vocab=self.n_vocab, length=held, max_context=self.max_context)
        self.num_passes += 1
        self.chunks.append([len(chunk.token_ids) for chunk in chunks])
        if self.fail_next:
            self.fail_next = False
            raise EngineError("the toy failed as told")
        number = self._class_of.get(sum(len(chunk.token_ids) for chunk in chunks), 0)
        rows = [self._extend_one(chunk, number) for chunk in chunks]
        if self._class_of:  # the output layer is a product of its own, over the rows asked for
            rows_class = self._class_of.get(sum(map(len, rows)), 0)
            rows = [row * np.float32(1 + 1e-6 * rows_class) for row in rows]
        return rows

    def _extend_one(self, chunk: Chunk, number: int) -> Logits:
        cache = self._cache[chunk.sequence]
        rows = []
        start = len(cache)
        for row, token_id in enumerate(chunk.token_ids):
            cache.append((int(token_id), number))
            rows.append(self._row(self._path(cache, start, row, chunk.parents)))
        wanted = rows[len(rows) - chunk.num_logits :] if chunk.num_logits else []
        return np.array(wanted, np.float32).reshape(-1, self.n_vocab)

    @staticmethod
    def _path(
        cache: list[tuple[int, int]], start: int, row: int, parents: Sequence[int] | None
    ) -> list[tuple[int, int]]:
        """What a row of a chunk sees: all before the chunk, and its own ancestors in it."""
        if parents is None:
            return cache
        path = []
        while row >= 0:
            path.append(cache[start + row])
            row = parents[row]
        return cache[:start] + path[::-1]

    def _row(self, cache: list[tuple[int, int]]) -> Logits:
        context = tuple(token_id for token_id, _ in cache[-self._order :])
        row = _random_row(self.n_vocab, self._seed, context).copy()
        if self._class_of:  # numerics: a hair's difference for each class that touched the sequence
            row *= np.float32(1 + 1e-6 * sum(number for _, number in cache))
        if context[-1] == self.poison:
            row[3] = np.nan
        return row

    def truncate(self, sequence: int, length: int) -> None:
        del self._cache[sequence][length:]

    def keep(self, sequence: int, start: int, rows: Sequence[int]) -> None:
        assert self.supports_tree
        held = self._cache[sequence]
        held[start:] = [held[start + row] for row in rows]

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self._cache[target]
        self._cache[target] = self._cache[source][:length]

    def release(self, sequence: int) -> None:
        self._cache.pop(sequence, None)

    def close(self) -> None:
        self._cache.clear()
