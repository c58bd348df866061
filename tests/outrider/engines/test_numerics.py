"""Inside a class, bits do not depend on how tokens arrived; the toy's last bits do, unless it is held to one."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.engines.base import Chunk, Logits
from outrider.engines.numerics import ClassEngine, class_cost_ms
from outrider.errors import ContextExceeded, InvalidToken
from tests.toy import ToyEngine

CLASSES = [[1], list(range(2, 33)), [64]]
TOKENS = [int(x) for x in np.random.default_rng(3).integers(0, 16, 40)]


def rows_by_cuts(engine: ToyEngine | ClassEngine, cuts: list[int]) -> np.ndarray:
    sequence = engine.allocate()
    rows = []
    for start, end in zip([0, *cuts], [*cuts, len(TOKENS)], strict=True):
        if start < end:
            rows.append(engine.extend([Chunk(sequence, TOKENS[start:end], end - start)])[0].copy())
    engine.release(sequence)
    return np.concatenate(rows)


@given(st.lists(st.integers(0, len(TOKENS)), max_size=12).map(sorted))
@settings(max_examples=30)
def test_bits_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    exact = ClassEngine(ToyEngine(classes=CLASSES), CLASSES[1])
    whole = rows_by_cuts(exact, [])
    assert np.array_equal(rows_by_cuts(exact, cuts).view(np.uint32), whole.view(np.uint32))


def test_without_the_class_they_do() -> None:
    engine = ToyEngine(classes=CLASSES)
    assert not np.array_equal(rows_by_cuts(engine, [1, 2, 3]), rows_by_cuts(engine, [10]))


@given(
    st.sampled_from([[1, 2, 3], [2, 4, 8], [8, 16, 32], [5], list(range(1, 33))]),
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=4),
    st.booleans(),
)
@settings(max_examples=30)
def test_every_pass_is_a_size_of_the_class_and_nothing_is_lost(sizes, asked, batch_exact: bool) -> None:
    engine = ToyEngine(max_context=600)
    exact = ClassEngine(engine, sizes, batch_exact=batch_exact)
    plain = ToyEngine(max_context=600)
    chunks, expected = [], []
    for length, num_logits in asked:
        ids = TOKENS[:length] + TOKENS[: max(0, length - len(TOKENS))]
        chunks.append(Chunk(exact.allocate(), ids, min(num_logits, len(ids))))
        expected.append(plain.extend([Chunk(plain.allocate(), ids, min(num_logits, len(ids)))])[0])
    for got, want in zip(exact.extend(chunks), expected, strict=True):
        assert np.array_equal(got, want)
    assert all(sum(pass_sizes) in sizes for pass_sizes in engine.chunks)
    for chunk in chunks:
        assert engine.length(chunk.sequence) == len(chunk.token_ids)


def test_padding_never_runs_past_the_cache() -> None:
    engine = ToyEngine(max_context=20)
    exact = ClassEngine(engine, [8])
    assert exact.max_context == 13
    sequence = exact.allocate()
    exact.extend([Chunk(sequence, TOKENS[:13])])
    with pytest.raises(ContextExceeded):
        exact.extend([Chunk(sequence, [1])])
    assert exact.length(sequence) == 13


def test_bad_ids_change_nothing() -> None:
    exact = ClassEngine(ToyEngine(), [2, 4])
    sequence = exact.allocate()
    for bad in (-1, 16, 2**31, 2**63):
        with pytest.raises(InvalidToken):
            exact.extend([Chunk(sequence, [1, bad])])
    assert exact.length(sequence) == 0


def test_costs_are_those_of_the_split_and_padded_passes() -> None:
    cost = {k: 10.0 * k for k in range(1, 9)}
    assert class_cost_ms(cost, [2, 3]) == {1: 20, 2: 20, 3: 30, 4: 50, 5: 50, 6: 60, 7: 80, 8: 80}


class OneBuffer(ToyEngine):
    """Gives views of one buffer, as backends may: the next pass writes over what the last one gave."""

    _buffer = np.empty((600, 16), np.float32)

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        rows = super().extend(chunks)
        self._buffer[:] = np.nan
        ends = np.cumsum([len(each) for each in rows])
        views = [self._buffer[end - len(each) : end] for each, end in zip(rows, ends, strict=True)]
        for view, each in zip(views, rows, strict=True):
            view[:] = each
        return views


@pytest.mark.parametrize("batch_exact", [False, True])
def test_rows_of_an_earlier_pass_outlive_the_next(batch_exact: bool) -> None:
    exact, plain = ClassEngine(OneBuffer(), [2, 4], batch_exact=batch_exact), ToyEngine()
    lengths = (11, 3)  # several passes each
    chunks = [Chunk(exact.allocate(), TOKENS[:length], length) for length in lengths]
    wanted = [plain.extend([Chunk(plain.allocate(), TOKENS[:length], length)])[0] for length in lengths]
    for got, want in zip(exact.extend(chunks), wanted, strict=True):
        assert np.array_equal(got, want)
