"""The llama.cpp engine: trimmed models, bad files, silence, ids that never reach native code."""

from pathlib import Path

import numpy as np
import pytest

from outrider.engines import Chunk, EngineSettings
from outrider.engines import llama_cpp as module
from outrider.engines.llama_cpp import LlamaCppEngine
from outrider.errors import ContextExceeded, EngineError, InvalidModel, InvalidParameter, InvalidToken
from outrider.manifest import ModelFolder
from tests.outrider.engines.tiny import N_VOCAB, tiny_gguf, tiny_manifest

TOKENS = [int(token) for token in np.random.default_rng(4).integers(0, N_VOCAB, 400)]
SETTINGS = EngineSettings(num_threads=1, max_context=512, max_sequences=2)


def test_a_trimmed_model_gives_the_full_models_bits_at_the_kept_columns(
    gguf_folder: ModelFolder, tmp_path: Path
) -> None:
    kept_ids = [0, 3, 4, 17, 40, 41, 77, 95]
    full = LlamaCppEngine(gguf_folder, SETTINGS)
    trimmed = LlamaCppEngine(tiny_gguf(tmp_path / "trimmed", kept_ids=kept_ids), SETTINGS)
    assert trimmed.n_vocab == N_VOCAB
    assert trimmed.id_map is not None
    assert trimmed.id_map.tolist() == kept_ids
    for size in (1, 5, 20):
        first, second = full.allocate(), trimmed.allocate()
        expected = full.extend([Chunk(first, TOKENS[:size], size)])[0]
        found = trimmed.extend([Chunk(second, TOKENS[:size], size)])[0]
        assert found.shape == (size, 8)
        np.testing.assert_array_equal(found, expected[:, kept_ids])
        full.release(first)
        trimmed.release(second)
    full.close()
    trimmed.close()


def test_a_trimmed_model_takes_every_id_and_no_other(tmp_path: Path) -> None:
    engine = LlamaCppEngine(tiny_gguf(tmp_path / "trimmed", kept_ids=[1, 2]), SETTINGS)
    sequence = engine.allocate()
    assert engine.extend([Chunk(sequence, [N_VOCAB - 1])])[0].shape == (1, 2)
    with pytest.raises(InvalidToken):
        engine.extend([Chunk(sequence, [N_VOCAB])])
    engine.close()


@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("id_map.npy", np.arange(3, dtype=np.int32)),
        ("id_map.npy", np.arange(2, dtype=np.int64)),
        ("embeddings.npy", np.zeros((N_VOCAB, 3), np.float16)),
        ("embeddings.npy", None),
    ],
    ids=["map too long", "map of the wrong kind", "embeddings too narrow", "embeddings missing"],
)
def test_a_trimmed_model_that_does_not_fit_together(tmp_path: Path, file: str, array: np.ndarray | None) -> None:
    folder = tiny_gguf(tmp_path / "trimmed", kept_ids=[1, 2])
    (folder.path / file).unlink()
    if array is not None:
        np.save(folder.path / file, array)
    with pytest.raises(InvalidModel, match="export"):
        LlamaCppEngine(folder, SETTINGS)


def test_a_map_without_embeddings(tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "trimmed", kept_ids=[1, 2])
    folder = tiny_manifest(tmp_path / "trimmed", "gguf", "model.gguf", id_map="id_map.npy")
    with pytest.raises(InvalidModel, match="both"):
        LlamaCppEngine(folder, SETTINGS)


@pytest.mark.parametrize("data", [b"", b"GGUF", b"not a model at all" * 10], ids=["empty", "cut", "text"])
def test_a_file_that_is_no_model(empty: Path, capfd: pytest.CaptureFixture[str], data: bytes) -> None:
    (empty / "model.gguf").write_bytes(data)
    with pytest.raises(InvalidModel) as raised:
        LlamaCppEngine(tiny_manifest(empty, "gguf", "model.gguf"), SETTINGS)
    assert "\n" not in str(raised.value)
    assert "no reason" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_half_a_model(gguf_folder: ModelFolder, empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = gguf_folder.model_file.read_bytes()
    (empty / "model.gguf").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidModel):
        LlamaCppEngine(tiny_manifest(empty, "gguf", "model.gguf"), SETTINGS)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_not_there(empty: Path) -> None:
    with pytest.raises(InvalidModel, match="is missing"):
        LlamaCppEngine(tiny_manifest(empty, "gguf", "model.gguf"), SETTINGS)


def test_nothing_is_printed(gguf_folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    engine = LlamaCppEngine(gguf_folder, SETTINGS)
    engine.extend([Chunk(engine.allocate(), TOKENS[:9])])
    engine.close()
    assert capfd.readouterr() == ("", "")


def test_a_bad_id_never_reaches_native_code(gguf_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LlamaCppEngine(gguf_folder, SETTINGS)
    seen: list[object] = []
    monkeypatch.setattr(module.native, "llama_decode", lambda *given: seen.append(given) or 0)
    with pytest.raises(InvalidToken):
        engine.extend([Chunk(engine.allocate(), [1, N_VOCAB])])
    assert seen == []
    engine.close()


@pytest.mark.parametrize(("status", "error"), [(1, ContextExceeded), (2, EngineError), (-1, EngineError)])
def test_a_failing_pass_leaves_the_sequences_as_they_were(
    gguf_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, status: int, error: type[Exception]
) -> None:
    engine = LlamaCppEngine(gguf_folder, SETTINGS)
    first, second = engine.allocate(), engine.allocate()
    expected = engine.extend([Chunk(first, TOKENS[:10], 3)])[0].copy()
    engine.truncate(first, 7)
    decode = module.native.llama_decode
    calls: list[int] = []

    def fail_late(*given: object) -> int:
        calls.append(decode(*given))
        return calls[-1] if len(calls) < 2 else status

    with monkeypatch.context() as patched:
        patched.setattr(module.native, "llama_decode", fail_late)
        with pytest.raises(error):
            engine.extend([Chunk(first, TOKENS[50:53]), Chunk(second, TOKENS[:5])])
    assert calls == [0, 0]
    assert (engine.length(first), engine.length(second)) == (7, 0)
    np.testing.assert_allclose(engine.extend([Chunk(first, TOKENS[7:10], 3)])[0], expected, atol=1e-4)
    engine.close()


def test_a_model_that_cannot_forget_says_so(gguf_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LlamaCppEngine(gguf_folder, SETTINGS)
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:5])])
    with monkeypatch.context() as patched:
        patched.setattr(module.native, "llama_memory_seq_rm", lambda *_: False)
        with pytest.raises(EngineError, match="cannot forget"):
            engine.truncate(sequence, 2)
    assert engine.length(sequence) == 5
    engine.close()


def test_a_gpu_that_this_build_has_not(gguf_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.native, "llama_supports_gpu_offload", lambda: False)
    with pytest.raises(InvalidParameter, match="no GPU"):
        LlamaCppEngine(gguf_folder, EngineSettings(num_gpu_layers=-1))


def test_chains_only(gguf_folder: ModelFolder) -> None:
    engine = LlamaCppEngine(gguf_folder, SETTINGS)
    sequence = engine.allocate()
    with pytest.raises(EngineError, match="chains only"):
        engine.extend([Chunk(sequence, [1, 2], 1, parents=[-1, -1])])
    with pytest.raises(EngineError, match="chains only"):
        engine.keep(sequence, 0, [0])
    engine.close()


@pytest.mark.weights
def test_real_weights_keep_their_bits_over_sizes_and_after_a_refill() -> None:
    from outrider import catalog

    engine = LlamaCppEngine(catalog.find("smollm2-135m-instruct"), EngineSettings(num_threads=1, max_context=512))
    tokens = [int(token) for token in np.random.default_rng(5).integers(0, engine.n_vocab, 160)]
    sequence = engine.allocate()
    rows = {}
    for size in (2, 5, 8, 32, 160):
        parts = []
        for first in range(0, 160, size):
            parts.append(engine.extend([Chunk(sequence, tokens[first : first + size], size)])[0].copy())
        rows[size] = np.concatenate(parts)
        engine.truncate(sequence, 0)
    for size in (2, 5, 8, 32):
        np.testing.assert_array_equal(rows[size], rows[160])
    engine.close()
