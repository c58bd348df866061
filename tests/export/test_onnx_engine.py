"""The engines for ONNX on the graphs that they run: what `tests/outrider/engines/test_contract.py` asks, in a class.

ONNX Runtime runs the graphs of both builders, OpenVINO the fused ones, several sequences in one pass."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from outrider.engines import Chunk, Engine, EngineSettings, backend, open_engine
from outrider.engines.fastest import fastest
from outrider.engines.numerics import ClassEngine
from outrider.engines.profile import machine
from outrider.errors import ContextExceeded, EngineError, EngineFull, InvalidModel, InvalidParameter, InvalidToken
from outrider.manifest import Manifest, ModelFolder, Profile, Source, load_folder, write_manifest
from tests.export.conftest import Built
from tests.export.models import N_VOCAB

TOKENS = [int(token_id) for token_id in np.random.default_rng(2).integers(0, N_VOCAB, 240)]
CLASS = list(range(2, 129, 2))  # two rows a time: an odd last one would be rounded otherwise
SETTINGS = EngineSettings(num_threads=1, max_context=200, max_sequences=2)
OPENVINO = replace(SETTINGS, provider="openvino")


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


RUN = {"fused": ("fused", SETTINGS), "general": ("general", SETTINGS), "openvino": ("fused", OPENVINO)}


@pytest.fixture(scope="module", params=list(RUN))
def loaded(request: pytest.FixtureRequest, built: Built) -> Iterator[Engine]:
    builder, settings = RUN[request.param]
    engine = open_engine(folder_of(built.onnx("llama", builder, "int4")), settings)
    yield engine
    engine.close()
    engine.close()


@pytest.fixture
def engine(loaded: Engine) -> Iterator[Engine]:
    """One that others have used."""
    yield loaded
    for sequence in range(loaded.max_sequences):
        loaded.release(sequence)


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


def test_providers_go_by_name(built: Built) -> None:
    with pytest.raises(InvalidParameter, match=r"it has: .*cpu"):
        open_engine(folder_of(built.onnx("llama", "fused", "int4")), EngineSettings(provider="qnn"))


@pytest.mark.parametrize("settings", [SETTINGS, OPENVINO], ids=["cpu", "openvino"])
def test_a_file_that_is_no_decoder_is_refused(tmp_path: Path, settings: EngineSettings) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(InvalidModel, match="export the model again"):
        open_engine(folder_of(tmp_path), settings)


# OpenVINO


on_openvino = pytest.mark.parametrize("loaded", ["openvino"], indirect=True)


@on_openvino
def test_both_libraries_say_the_same_but_for_rounding(built: Built, engine: Engine) -> None:
    with closing(open_engine(folder_of(built.onnx("llama", "fused", "int4")), SETTINGS)) as other:
        found = [rows(each, TOKENS[:60], 20) for each in (other, engine)]
    apart = np.abs(found[0] - found[1])
    assert apart.max() < 0.25 * found[0].std()
    assert apart.mean() < 0.05 * found[0].std()


@on_openvino
@pytest.mark.parametrize("lengths", [(1, 1), (1, 2), (5, 1), (64, 3)])
def test_sequences_in_one_pass_keep_the_bits_that_each_has_alone(engine: Engine, lengths: tuple[int, int]) -> None:
    exact = ClassEngine(engine, range(2, 129), batch_exact=True)
    histories = (TOKENS[:37], TOKENS[100:111])
    parts = [TOKENS[start : start + length] for start, length in zip((50, 150), lengths, strict=True)]
    alone = [rows(exact, [*history, *part], 200)[-len(part) :] for history, part in zip(histories, parts, strict=True)]
    sequences = [exact.allocate() for _ in histories]
    for sequence, history in zip(sequences, histories, strict=True):
        exact.extend([Chunk(sequence, history, 0)])
    together = exact.extend([Chunk(s, part, len(part)) for s, part in zip(sequences, parts, strict=True)])
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_openvino_refuses_what_it_cannot_run(built: Built) -> None:
    with pytest.raises(InvalidModel, match="fused graphs only"):
        open_engine(folder_of(built.onnx("llama", "general", "int4")), OPENVINO)
    with pytest.raises(InvalidParameter, match="runs ONNX models"):
        open_engine(folder_of(built.onnx("llama", "fused", "int4"), format="gguf"), OPENVINO)


# Which of them


@pytest.fixture
def small(built: Built, tmp_path: Path) -> ModelFolder:
    """A folder of one's own, to keep profiles in."""
    path = Path(shutil.copytree(built.onnx("llama", "fused", "int4"), tmp_path / "tiny"))
    write_manifest(path, folder_of(path).manifest)
    return load_folder(path)


def with_costs(folder: ModelFolder, **cost_ms: float) -> ModelFolder:
    """Measured already: a pass of any size costs so much with a library."""
    profiles = {}
    for provider, cost in cost_ms.items():
        settings = replace(SETTINGS, provider=provider)
        profiles[provider] = Profile(
            engine="",
            machine=machine(backend(folder, settings), settings),
            num_threads=1,
            context=256,
            cost_ms=dict.fromkeys(range(1, 33), cost),
            classes=[list(range(1, 33))],
            batch_exact=False,
        )
    write_manifest(folder.path, msgspec.structs.replace(folder.manifest, profiles=profiles))
    return load_folder(folder.path)


def test_a_target_runs_on_the_library_whose_passes_cost_least(
    small: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cost_ms, wanted in (({"cpu": 2.0, "openvino": 1.0}, "openvino"), ({"cpu": 1.0, "openvino": 2.0}, "cpu")):
        assert fastest(with_costs(small, **cost_ms), SETTINGS).provider == wanted
    slow = with_costs(small, openvino=1e9)  # the other is timed, and known from then on
    assert fastest(slow, SETTINGS).provider == "cpu"
    assert [{2, 8} <= each.keys() for each in load_folder(small.path).manifest.timings.values()] == [True]
    monkeypatch.setattr("outrider.engines.profile.open_engine", None)
    assert fastest(slow, SETTINGS).provider == "cpu"
    for provider in ("cpu", "openvino"):  # who asks for one has it
        assert fastest(slow, replace(SETTINGS, provider=provider)).provider == provider
    monkeypatch.setitem(sys.modules, "outrider.engines.openvino", None)
    assert fastest(small, SETTINGS).provider == "cpu"  # not installed


def test_a_graph_that_only_one_of_them_runs(built: Built) -> None:
    assert fastest(folder_of(built.onnx("llama", "general", "int4")), SETTINGS).provider == "cpu"
