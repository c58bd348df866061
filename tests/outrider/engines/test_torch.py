"""The torch engine: trees, models whose layers slide a window, bad folders, ids that never reach the model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from outrider.engines import Chunk, EngineSettings
from outrider.engines.torch import TorchEngine
from outrider.errors import EngineError, InvalidModel, InvalidParameter, InvalidToken
from outrider.manifest import ModelFolder
from tests.outrider.engines.tiny import N_VOCAB, tiny_hf, tiny_manifest

TOKENS = [int(token) for token in np.random.default_rng(3).integers(0, N_VOCAB, 400)]
SETTINGS = EngineSettings(num_threads=1, max_context=256, max_sequences=3)

# A tree of seven: two roots, branches of unequal length, siblings far apart.
PARENTS = [-1, 0, 0, 1, -1, 4, 2]
TREE = TOKENS[200:207]


def path_to(row: int) -> list[int]:
    return [] if row < 0 else [*path_to(PARENTS[row]), row]


@pytest.fixture
def engine(hf_folder: ModelFolder) -> Iterator[TorchEngine]:
    engine = TorchEngine(hf_folder, SETTINGS)
    yield engine
    engine.close()


def chain(engine: TorchEngine, token_ids: list[int]) -> np.ndarray:
    sequence = engine.allocate()
    row = engine.extend([Chunk(sequence, token_ids, 1)])[0][0]
    engine.release(sequence)
    return row


@pytest.mark.parametrize("history", [[], TOKENS[:1], TOKENS[:70]], ids=["empty", "one", "many"])
def test_every_row_of_a_tree_is_its_path_run_as_a_chain(engine: TorchEngine, history: list[int]) -> None:
    sequence, other = engine.allocate(), engine.allocate()
    engine.extend([Chunk(sequence, history, 0)])
    rows, beside = engine.extend([Chunk(sequence, TREE, 7, PARENTS), Chunk(other, TOKENS[:11], 1)])
    np.testing.assert_allclose(beside[0], chain(engine, TOKENS[:11]), atol=1e-4)
    for row in range(7):
        expected = chain(engine, history + [TREE[step] for step in path_to(row)])
        np.testing.assert_allclose(rows[row], expected, atol=1e-4)
        assert rows[row].argmax() == expected.argmax()


@pytest.mark.parametrize("row", [3, 5, 6, 4])
def test_a_kept_path_goes_on_as_a_chain(engine: TorchEngine, row: int) -> None:
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:40], 0)])
    engine.extend([Chunk(sequence, TREE, 1, PARENTS)])
    engine.keep(sequence, 40, path_to(row))
    assert engine.length(sequence) == 40 + len(path_to(row))
    found = engine.extend([Chunk(sequence, TOKENS[50:55], 1)])[0][0]
    expected = chain(engine, TOKENS[:40] + [TREE[step] for step in path_to(row)] + TOKENS[50:55])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_tree_must_be_pruned_before_it_grows(engine: TorchEngine) -> None:
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:4], 0)])
    engine.extend([Chunk(sequence, TREE, 1, PARENTS)])
    with pytest.raises(EngineError, match="keep one path"):
        engine.extend([Chunk(sequence, [1])])
    engine.truncate(sequence, 6)
    with pytest.raises(EngineError, match="keep one path"):
        engine.extend([Chunk(sequence, [1])])
    engine.truncate(sequence, 4)
    found = engine.extend([Chunk(sequence, TOKENS[4:6], 1)])[0][0]
    np.testing.assert_allclose(found, chain(engine, TOKENS[:6]), atol=1e-4)


def test_keeping_nothing_is_forgetting_the_tree(engine: TorchEngine) -> None:
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:4], 0)])
    engine.extend([Chunk(sequence, TREE, 0, PARENTS)])
    engine.keep(sequence, 4, [])
    found = engine.extend([Chunk(sequence, TOKENS[4:6], 1)])[0][0]
    np.testing.assert_allclose(found, chain(engine, TOKENS[:6]), atol=1e-4)


@pytest.mark.parametrize("rows", [[7], [-1], [1, 0], [0, 0]])
def test_rows_that_are_no_path(engine: TorchEngine, rows: list[int]) -> None:
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TREE, 0, PARENTS)])
    with pytest.raises(EngineError, match="no path"):
        engine.keep(sequence, 0, rows)


@pytest.mark.parametrize("parents", [[0, 0], [-2, 0], [-1, 1]])
def test_parents_that_make_no_tree(engine: TorchEngine, parents: list[int]) -> None:
    with pytest.raises(EngineError, match="after the token it follows"):
        engine.extend([Chunk(engine.allocate(), [1, 2], 1, parents)])


def test_a_bad_id_never_reaches_the_model(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(engine._model, "forward", lambda **given: seen.append(given))
    with pytest.raises(InvalidToken):
        engine.extend([Chunk(engine.allocate(), [1, N_VOCAB])])
    assert seen == []


def test_a_failing_model_is_an_engine_error(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("out of memory\nand a long story")

    monkeypatch.setattr(engine._model, "forward", fail)
    with pytest.raises(EngineError, match=r"^torch failed \(out of memory\);"):
        engine.extend([Chunk(engine.allocate(), [1])])


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "gemma2", "mistral"])
def test_other_architectures_agree_with_transformers_itself(tmp_path: Path, model_type: str) -> None:
    import torch
    import transformers

    folder = tiny_hf(tmp_path / "model", model_type, head_dim=16)
    engine = TorchEngine(folder, SETTINGS)
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:30], 0)])
    found = engine.extend([Chunk(sequence, TOKENS[30:40], 10)])[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder.path, attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = model(torch.tensor([TOKENS[:40]])).logits[0, 30:].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    engine.close()


def test_the_context_stays_within_a_sliding_window(tmp_path: Path) -> None:
    engine = TorchEngine(tiny_hf(tmp_path / "model", "mistral", sliding_window=100), SETTINGS)
    assert engine.max_context == 100
    engine.close()


def test_a_folder_that_is_no_model(empty: Path) -> None:
    with pytest.raises(InvalidModel, match="no model transformers can load"):
        TorchEngine(tiny_manifest(empty, "hf", "."), SETTINGS)


def test_a_broken_safetensors_file(tmp_path: Path) -> None:
    folder = tiny_hf(tmp_path / "model")
    (folder.path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00nonsense")
    with pytest.raises(InvalidModel):
        TorchEngine(folder, SETTINGS)


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    import torch

    folder = tiny_hf(tmp_path / "model")
    (folder.path / "model.safetensors").unlink()
    torch.save({}, folder.path / "pytorch_model.bin")
    with pytest.raises(InvalidModel):
        TorchEngine(folder, SETTINGS)


def test_a_providers_name_it_does_not_know(hf_folder: ModelFolder) -> None:
    with pytest.raises(InvalidParameter, match="cpu or cuda"):
        TorchEngine(hf_folder, EngineSettings(provider="qnn"))
