"""The ONNX engine on the graphs of both builders: what `tests/outrider/engines/test_contract.py` asks, in its class."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from outrider.engines import Chunk, Engine, EngineSettings, open_engine
from outrider.engines.numerics import ClassEngine
from outrider.errors import ContextExceeded, EngineError, EngineFull, InvalidModel, InvalidParameter, InvalidToken
from outrider.manifest import Manifest, ModelFolder, Source
from tests.export.conftest import Built
from tests.export.models import N_VOCAB

TOKENS = [int(token_id) for token_id in np.random.default_rng(2).integers(0, N_VOCAB, 240)]
CLASS = list(range(2, 129, 2))  # two rows a time: an odd last one would be rounded otherwise
SETTINGS = EngineSettings(num_threads=1, max_context=200, max_sequences=2)


def folder_of(path: Path, **over: object) -> ModelFolder:
    fields = {
        "name": "tiny",
        "format": "onnx",
        "architecture": "llama",
        "file": "model.onnx",
        "files": {},
        "source": Source("random", "0"),
        "licence": "none",
        "n_vocab": N_VOCAB,
        "max_context": 256,
        "stop_ids": [2],
        "tokenizer_fingerprint": "none",
    }
    return ModelFolder(path, Manifest(**(fields | over)))


@pytest.fixture(params=["fused", "general"])
def folder(request: pytest.FixtureRequest, built: Built) -> ModelFolder:
    return folder_of(built.onnx("llama", request.param, "int4"))


@pytest.fixture
def engine(folder: ModelFolder) -> Iterator[Engine]:
    engine = open_engine(folder, SETTINGS)
    yield engine
    engine.close()
    engine.close()


def rows(engine: Engine | ClassEngine, token_ids: list[int], size: int) -> np.ndarray:
    sequence = engine.allocate()
    parts = []
    for first in range(0, len(token_ids), size):
        chunk = token_ids[first : first + size]
        parts.append(engine.extend([Chunk(sequence, chunk, len(chunk))])[0].copy())
    assert engine.length(sequence) == len(token_ids)
    engine.release(sequence)
    return np.concatenate(parts)


def test_inside_the_class_any_cut_gives_the_same_bits(engine: Engine) -> None:
    exact = ClassEngine(engine, CLASS)
    whole = rows(exact, TOKENS[:60], 60)
    assert whole.shape == (60, N_VOCAB)
    for size in (1, 2, 3, 7, 31):
        np.testing.assert_array_equal(rows(exact, TOKENS[:60], size), whole)


def test_a_token_changes_what_comes_after_it_and_nothing_before(engine: Engine) -> None:
    other = list(TOKENS[:20])
    other[10] = (other[10] + 1) % N_VOCAB
    one, two = rows(engine, TOKENS[:20], 20), rows(engine, other, 20)
    np.testing.assert_array_equal(one[:10], two[:10])
    assert np.abs(one[10:] - two[10:]).max(axis=1).min() > 0


def test_truncating_and_going_on_is_as_if_nothing_had_been_there(engine: Engine) -> None:
    whole = rows(engine, TOKENS[:40], 20)
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:20], 0)])
    engine.extend([Chunk(sequence, TOKENS[100:130], 0)])
    engine.truncate(sequence, 20)
    engine.truncate(sequence, 99)  # beyond the end: nothing to do
    assert engine.length(sequence) == 20
    again = engine.extend([Chunk(sequence, TOKENS[20:40], 20)])[0]
    np.testing.assert_array_equal(again, whole[20:])


def test_sequences_do_not_mix(engine: Engine) -> None:
    expected = [rows(engine, TOKENS[:30], 10), rows(engine, TOKENS[50:80], 10)]
    one, two = engine.allocate(), engine.allocate()
    with pytest.raises(EngineFull):
        engine.allocate()
    for first in range(0, 30, 10):
        chunks = [
            Chunk(one, TOKENS[first : first + 10], 10),
            Chunk(two, TOKENS[50 + first : 60 + first], 10),
        ]
        for found, whole in zip(engine.extend(chunks), expected, strict=True):
            np.testing.assert_array_equal(found, whole[first : first + 10])


@pytest.mark.parametrize("length", [1, 20, 30])
def test_a_copy_goes_on_as_its_source_would_and_leaves_it_alone(engine: Engine, length: int) -> None:
    source = engine.allocate()
    engine.extend([Chunk(source, TOKENS[:30], 0)])
    target = engine.allocate()
    engine.copy(source, target, length)
    assert (engine.length(source), engine.length(target)) == (30, length)
    found = [engine.extend([Chunk(target, TOKENS[first : first + 5], 5)])[0].copy() for first in (100, 105)]
    after = engine.extend([Chunk(source, TOKENS[30:40], 10)])[0].copy()
    engine.truncate(source, length)
    again = [engine.extend([Chunk(source, TOKENS[first : first + 5], 5)])[0].copy() for first in (100, 105)]
    np.testing.assert_array_equal(found, again)
    engine.release(target)
    untouched = engine.allocate()
    engine.extend([Chunk(untouched, TOKENS[:30], 0)])
    np.testing.assert_array_equal(engine.extend([Chunk(untouched, TOKENS[30:40], 10)])[0], after)


def test_a_copy_outlives_its_source(engine: Engine) -> None:
    source, target = engine.allocate(), engine.allocate()
    engine.extend([Chunk(source, TOKENS[:30], 0)])
    engine.copy(source, target, 20)
    engine.release(source)
    other = engine.allocate()
    engine.extend([Chunk(other, TOKENS[60:90], 0)])
    found = engine.extend([Chunk(target, TOKENS[30:40], 10)])[0].copy()
    engine.release(other)
    again = engine.allocate()
    engine.extend([Chunk(again, TOKENS[:30], 0)])
    engine.truncate(again, 20)
    np.testing.assert_array_equal(engine.extend([Chunk(again, TOKENS[30:40], 10)])[0], found)


def test_a_long_chunk_runs_in_passes_and_only_the_rows_asked_for_come_back(engine: Engine) -> None:
    whole = np.concatenate([rows(engine, TOKENS[:128], 128), rows(engine, TOKENS[:190], 128)[128:]])
    for num_logits in (0, 1, 62, 63, 190):
        sequence = engine.allocate()
        found = engine.extend([Chunk(sequence, TOKENS[:190], num_logits)])[0]
        assert found.shape == (num_logits, N_VOCAB)
        np.testing.assert_array_equal(found, whole[190 - num_logits :])
        engine.release(sequence)


@pytest.mark.parametrize("bad", [-1, -(2**31), N_VOCAB, 2**31, 2**63])
def test_bad_ids_never_reach_native_code(engine: Engine, bad: int) -> None:
    sequence = engine.allocate()
    with pytest.raises(InvalidToken):
        engine.extend([Chunk(sequence, [1, bad])])
    assert engine.length(sequence) == 0
    engine.extend([Chunk(sequence, [N_VOCAB - 1])])


def test_what_does_not_fit_changes_nothing(engine: Engine) -> None:
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:150], 0)])
    with pytest.raises(ContextExceeded):
        engine.extend([Chunk(sequence, TOKENS[:51])])
    assert engine.length(sequence) == 150
    engine.extend([Chunk(sequence, TOKENS[:50])])


def test_trees_are_refused(engine: Engine) -> None:
    assert not engine.supports_tree
    with pytest.raises(EngineError):
        engine.keep(engine.allocate(), 0, [0])


def test_providers_go_by_name(folder: ModelFolder) -> None:
    with pytest.raises(InvalidParameter, match=r"it has: .*cpu"):
        open_engine(folder, EngineSettings(provider="qnn"))


def test_a_file_that_is_no_decoder_is_refused(tmp_path: Path, built: Built) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(InvalidModel):
        open_engine(folder_of(tmp_path))
