"""What every engine promises, on a tiny model of each format. A new backend is added to the fixture `folder`."""

from collections.abc import Iterator

import numpy as np
import pytest

from outrider.engines import Chunk, Engine, EngineSettings, open_engine
from outrider.errors import ContextExceeded, EngineError, EngineFull, InvalidParameter, InvalidToken
from outrider.manifest import ModelFolder
from tests.outrider.engines.tiny import N_VOCAB

TOKENS = [int(token) for token in np.random.default_rng(2).integers(0, N_VOCAB, 1200)]
SETTINGS = EngineSettings(num_threads=1, max_context=1024, max_sequences=3)


@pytest.fixture(scope="module", params=["gguf_folder", "hf_folder"])
def folder(request: pytest.FixtureRequest) -> ModelFolder:
    found: ModelFolder = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def loaded(folder: ModelFolder) -> Iterator[Engine]:
    engine = open_engine(folder, SETTINGS)
    yield engine
    engine.close()


@pytest.fixture
def engine(loaded: Engine) -> Iterator[Engine]:
    """One that others have used."""
    yield loaded
    for sequence in range(loaded.max_sequences):
        loaded.release(sequence)


def logits(engine: Engine, token_ids: list[int], num_logits: int | None = None) -> np.ndarray:
    """Rows of a fresh sequence that is fed all at once."""
    sequence = engine.allocate()
    rows = engine.extend([Chunk(sequence, token_ids, len(token_ids) if num_logits is None else num_logits)])[0].copy()
    engine.release(sequence)
    return rows


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


def test_it_declares_itself(engine: Engine) -> None:
    assert engine.n_vocab == N_VOCAB
    assert engine.max_context == 1024
    assert engine.max_sequences == 3
    assert engine.can_truncate
    assert engine.id_map is None
    assert any(character.isdigit() for character in engine.name)


def test_logits_depend_on_all_tokens_before_and_none_after(engine: Engine) -> None:
    full = logits(engine, TOKENS[:20])
    assert full.shape == (20, N_VOCAB)
    other_end = logits(engine, [*TOKENS[:19], (TOKENS[19] + 1) % N_VOCAB])
    other_start = logits(engine, [(TOKENS[0] + 1) % N_VOCAB, *TOKENS[1:20]])
    assert_same(other_end[:19], full[:19])
    assert np.abs(other_end[19] - full[19]).max() > 0.01
    assert np.abs(other_start - full).max(-1).min() > 1e-4


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
def test_chunks_of_any_size_give_the_same(engine: Engine, size: int) -> None:
    expected = logits(engine, TOKENS[:48])
    sequence = engine.allocate()
    parts = []
    for first in range(0, 48, size):
        chunk = TOKENS[first : min(first + size, 48)]
        parts.append(engine.extend([Chunk(sequence, chunk, len(chunk))])[0].copy())
    assert engine.length(sequence) == 48
    assert_same(np.concatenate(parts), expected)


def test_only_the_last_rows_asked_for_come_back(engine: Engine) -> None:
    full = logits(engine, TOKENS[:9])
    assert_same(logits(engine, TOKENS[:9], 3), full[-3:])
    assert logits(engine, TOKENS[:9], 0).shape == (0, N_VOCAB)
    assert logits(engine, [], 0).shape == (0, N_VOCAB)


def test_a_chunk_longer_than_a_pass_is_split(engine: Engine) -> None:
    assert engine.max_chunk < 600
    long = logits(engine, TOKENS[:600], 200)
    sequence = engine.allocate()
    for first in range(0, 600, 100):
        parts = engine.extend([Chunk(sequence, TOKENS[first : first + 100], 100)])[0].copy()
    assert_same(long[-100:], parts)


def test_unequal_lengths_together_equal_each_alone(engine: Engine) -> None:
    histories = [TOKENS[:5], TOKENS[100:170], TOKENS[300:301]]
    more = [TOKENS[5:6], TOKENS[170:177], TOKENS[301:305]]
    wanted = [1, 4, 2]
    alone = [logits(engine, [*h, *m], n) for h, m, n in zip(histories, more, wanted, strict=True)]
    sequences = [engine.allocate() for _ in histories]
    engine.extend([Chunk(s, h, 0) for s, h in zip(sequences, histories, strict=True)])
    together = engine.extend([Chunk(s, m, n) for s, m, n in zip(sequences, more, wanted, strict=True)])
    assert [engine.length(sequence) for sequence in sequences] == [6, 77, 5]
    for found, expected in zip(together, alone, strict=True):
        assert_same(found, expected)


def test_equal_lengths_in_any_order_of_numbers(engine: Engine) -> None:
    parts = [TOKENS[:8], TOKENS[50:58], TOKENS[90:98]]
    alone = [logits(engine, part, 2) for part in parts]
    sequences = [engine.allocate() for _ in parts][::-1]
    together = engine.extend([Chunk(s, part, 2) for s, part in zip(sequences, parts, strict=True)])
    for found, expected in zip(together, alone, strict=True):
        assert_same(found, expected)


def test_one_long_beside_one_short(engine: Engine) -> None:
    alone = [logits(engine, TOKENS[:700], 2), logits(engine, TOKENS[800:803], 2)]
    long, short = engine.allocate(), engine.allocate()
    together = engine.extend([Chunk(long, TOKENS[:700], 2), Chunk(short, TOKENS[800:803], 2)])
    for found, expected in zip(together, alone, strict=True):
        assert_same(found, expected)


def test_truncated_then_extended_is_as_if_never_said(engine: Engine) -> None:
    expected = logits(engine, TOKENS[:30], 10)
    sequence, other = engine.allocate(), engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:20] + TOKENS[500:540], 0), Chunk(other, TOKENS[:60], 0)])
    engine.truncate(sequence, 20)
    assert engine.length(sequence) == 20
    assert engine.length(other) == 60
    assert_same(engine.extend([Chunk(sequence, TOKENS[20:30], 10)])[0], expected)


def test_truncating_to_the_length_or_beyond_changes_nothing(engine: Engine) -> None:
    expected = logits(engine, TOKENS[:11], 1)
    sequence = engine.allocate()
    engine.truncate(sequence, 0)
    engine.extend([Chunk(sequence, TOKENS[:10], 0)])
    engine.truncate(sequence, 10)
    engine.truncate(sequence, 99)
    assert engine.length(sequence) == 10
    assert_same(engine.extend([Chunk(sequence, TOKENS[10:11], 1)])[0], expected)


@pytest.mark.parametrize("length", [1, 20, 40])
def test_a_copy_goes_on_as_its_source_would(engine: Engine, length: int) -> None:
    source, untouched = engine.allocate(), engine.allocate()
    for sequence in (source, untouched):
        engine.extend([Chunk(sequence, TOKENS[:40], 0)])
    target = engine.allocate()
    engine.copy(source, target, length)
    assert [engine.length(sequence) for sequence in (source, untouched, target)] == [40, 40, length]
    for first in (100, 108):  # the first pass after it, and one on what that wrote
        found = engine.extend([Chunk(target, TOKENS[first : first + 8], 8)])[0].copy()
        engine.truncate(untouched, length + first - 100)
        np.testing.assert_array_equal(found, engine.extend([Chunk(untouched, TOKENS[first : first + 8], 8)])[0])


def test_a_copy_and_its_source_do_not_touch_each_other(engine: Engine) -> None:
    source, untouched = engine.allocate(), engine.allocate()
    for sequence in (source, untouched):
        engine.extend([Chunk(sequence, TOKENS[:40], 0)])
    target = engine.allocate()
    engine.copy(source, target, 30)
    engine.extend([Chunk(target, TOKENS[200:230], 0)])
    expected = engine.extend([Chunk(untouched, TOKENS[40:48], 8)])[0].copy()
    np.testing.assert_array_equal(engine.extend([Chunk(source, TOKENS[40:48], 8)])[0], expected)
    engine.release(source)  # what was its, is the copy's own
    engine.truncate(target, 30)
    engine.truncate(untouched, 30)
    other = engine.allocate()
    engine.extend([Chunk(other, TOKENS[300:350], 0)])
    expected = engine.extend([Chunk(untouched, TOKENS[30:38], 8)])[0].copy()
    np.testing.assert_array_equal(engine.extend([Chunk(target, TOKENS[30:38], 8)])[0], expected)


def test_copies_made_one_after_the_other_before_any_pass(engine: Engine) -> None:
    first, second, third = (engine.allocate() for _ in range(3))
    engine.extend([Chunk(first, TOKENS[:40], 0)])
    engine.copy(first, second, 25)
    engine.copy(second, third, 12)
    engine.truncate(first, 12)
    engine.truncate(second, 12)
    rows = [engine.extend([Chunk(number, TOKENS[12:20], 8)])[0].copy() for number in (third, second, first)]
    np.testing.assert_array_equal(rows[0], rows[2])
    np.testing.assert_array_equal(rows[1], rows[2])
    engine.release(third)
    assert_same(rows[0], logits(engine, TOKENS[:20], 8))


def test_a_released_number_starts_empty(engine: Engine) -> None:
    expected = logits(engine, TOKENS[40:50])
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:40], 0)])
    engine.release(sequence)
    engine.release(sequence)
    again = engine.allocate()
    assert again == sequence
    assert engine.length(again) == 0
    assert_same(engine.extend([Chunk(again, TOKENS[40:50], 10)])[0], expected)


def test_no_more_sequences_than_asked_for(engine: Engine) -> None:
    assert sorted(engine.allocate() for _ in range(3)) == [0, 1, 2]
    with pytest.raises(EngineFull, match="all 3 sequences"):
        engine.allocate()


@pytest.mark.parametrize("token_id", [-1, N_VOCAB, 2**31, 2**63])
def test_a_bad_id_changes_no_sequence(engine: Engine, token_id: int) -> None:
    expected = logits(engine, TOKENS[:6], 1)
    first, second = engine.allocate(), engine.allocate()
    engine.extend([Chunk(first, TOKENS[:5], 0)])
    with pytest.raises(InvalidToken):
        engine.extend([Chunk(first, TOKENS[5:6]), Chunk(second, [1, token_id])])
    assert (engine.length(first), engine.length(second)) == (5, 0)
    assert_same(engine.extend([Chunk(first, TOKENS[5:6], 1)])[0], expected)


def test_past_the_context_changes_no_sequence(engine: Engine) -> None:
    first, second = engine.allocate(), engine.allocate()
    engine.extend([Chunk(first, TOKENS[:1020], 0), Chunk(second, TOKENS[:3], 0)])
    with pytest.raises(ContextExceeded):
        engine.extend([Chunk(second, TOKENS[3:5]), Chunk(first, TOKENS[1020:1025])])
    assert (engine.length(first), engine.length(second)) == (1020, 3)
    together = engine.extend([Chunk(first, TOKENS[1020:1024], 1), Chunk(second, TOKENS[3:13], 1)])
    assert engine.length(first) == 1024
    assert np.isfinite(together[0]).all()
    assert_same(together[1], logits(engine, TOKENS[:13], 1))


def test_calls_that_make_no_sense(engine: Engine) -> None:
    sequence = engine.allocate()
    with pytest.raises(EngineError, match="not held"):
        engine.extend([Chunk(2, [1])])
    with pytest.raises(EngineError, match="twice"):
        engine.extend([Chunk(sequence, [1]), Chunk(sequence, [2])])
    with pytest.raises(EngineError, match="2 rows"):
        engine.extend([Chunk(sequence, [1], 2)])
    with pytest.raises(EngineError, match="parents"):
        engine.extend([Chunk(sequence, [1, 2], 1, parents=[-1])])
    assert engine.length(sequence) == 0


def test_a_chain_may_name_its_parents(engine: Engine) -> None:
    expected = logits(engine, TOKENS[:4])
    sequence = engine.allocate()
    assert_same(engine.extend([Chunk(sequence, TOKENS[:4], 4, parents=[-1, 0, 1, 2])])[0], expected)
    assert_same(engine.extend([Chunk(sequence, TOKENS[4:5], 1)])[0], logits(engine, TOKENS[:5], 1))


def test_closed_twice_and_never_used_again(folder: ModelFolder) -> None:
    engine = open_engine(folder, SETTINGS)
    sequence = engine.allocate()
    engine.close()
    engine.close()
    with pytest.raises(EngineError):
        engine.extend([Chunk(sequence, [1])])
    with pytest.raises(EngineError):
        engine.allocate()
    engine.release(sequence)


def test_two_engines_do_not_touch_each_other(folder: ModelFolder) -> None:
    first, second = open_engine(folder, SETTINGS), open_engine(folder, SETTINGS)
    expected = logits(first, TOKENS[:12])
    held = first.allocate()
    first.extend([Chunk(held, TOKENS[:6], 0)])
    assert_same(logits(second, TOKENS[:12]), expected)
    second.close()
    assert_same(first.extend([Chunk(held, TOKENS[6:12], 6)])[0], expected[6:])
    first.close()


@pytest.mark.parametrize("setting", ["num_threads", "max_sequences", "max_context", "num_gpu_layers"])
def test_settings_that_make_no_sense(setting: str) -> None:
    with pytest.raises(InvalidParameter, match=setting):
        EngineSettings(**{setting: -2})


def test_the_context_is_lowered_to_the_models_own(folder: ModelFolder) -> None:
    engine = open_engine(folder, EngineSettings(num_threads=1, max_context=10**6))
    assert engine.max_context == 2048
    engine.close()
