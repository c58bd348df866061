"""The torch engine: trees, models whose layers slide a window, bad folders, ids that never reach the model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from outrider.engines import Chunk, Engine, EngineSettings, open_engine
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


@pytest.fixture(scope="module")
def loaded(hf_folder: ModelFolder) -> Iterator[Engine]:
    engine = open_engine(hf_folder, SETTINGS)
    yield engine
    engine.close()


@pytest.fixture
def engine(loaded: Engine) -> Iterator[Engine]:
    """One that others have used."""
    yield loaded
    for sequence in range(loaded.max_sequences):
        loaded.release(sequence)


def chain(engine: Engine, token_ids: list[int]) -> np.ndarray:
    sequence = engine.allocate()
    row = engine.extend([Chunk(sequence, token_ids, 1)])[0][0]
    engine.release(sequence)
    return row


@pytest.mark.parametrize("history", [[], TOKENS[:1], TOKENS[:70]], ids=["empty", "one", "many"])
def test_every_row_of_a_tree_is_its_path_run_as_a_chain(engine: Engine, history: list[int]) -> None:
    sequence, other = engine.allocate(), engine.allocate()
    engine.extend([Chunk(sequence, history, 0)])
    rows, beside = engine.extend([Chunk(sequence, TREE, 7, PARENTS), Chunk(other, TOKENS[:11], 1)])
    np.testing.assert_allclose(beside[0], chain(engine, TOKENS[:11]), atol=1e-4)
    for row in range(7):
        expected = chain(engine, history + [TREE[step] for step in path_to(row)])
        np.testing.assert_allclose(rows[row], expected, atol=1e-4)
        assert rows[row].argmax() == expected.argmax()


@pytest.mark.parametrize("row", [3, 5, 6, 4])
def test_a_kept_path_goes_on_as_a_chain(engine: Engine, row: int) -> None:
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:40], 0)])
    engine.extend([Chunk(sequence, TREE, 1, PARENTS)])
    engine.keep(sequence, 40, path_to(row))
    assert engine.length(sequence) == 40 + len(path_to(row))
    found = engine.extend([Chunk(sequence, TOKENS[50:55], 1)])[0][0]
    expected = chain(engine, TOKENS[:40] + [TREE[step] for step in path_to(row)] + TOKENS[50:55])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_tree_must_be_pruned_before_it_grows(engine: Engine) -> None:
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


def test_keeping_nothing_is_forgetting_the_tree(engine: Engine) -> None:
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:4], 0)])
    engine.extend([Chunk(sequence, TREE, 0, PARENTS)])
    engine.keep(sequence, 4, [])
    found = engine.extend([Chunk(sequence, TOKENS[4:6], 1)])[0][0]
    np.testing.assert_allclose(found, chain(engine, TOKENS[:6]), atol=1e-4)


@pytest.mark.parametrize("rows", [[7], [-1], [1, 0], [0, 0]])
def test_rows_that_are_no_path(engine: Engine, rows: list[int]) -> None:
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TREE, 0, PARENTS)])
    with pytest.raises(EngineError, match="no path"):
        engine.keep(sequence, 0, rows)


@pytest.mark.parametrize("parents", [[0, 0], [-2, 0], [-1, 1]])
def test_parents_that_make_no_tree(engine: Engine, parents: list[int]) -> None:
    with pytest.raises(EngineError, match="after the token it follows"):
        engine.extend([Chunk(engine.allocate(), [1, 2], 1, parents)])


def test_room_that_transformers_makes_beforehand_is_for_keys_alone() -> None:
    torch = pytest.importorskip("torch")
    from outrider.engines.slot_cache import SlotCache

    cache = SlotCache(num_layers=1, max_sequences=1, capacity=4)
    cache.begin(torch.zeros(2, dtype=torch.int64), torch.arange(2), torch.zeros(1, dtype=torch.int64), 2)
    keys, values = torch.ones(1, 1, 2, 3), torch.full((1, 1, 2, 5), 2.0)
    cache.layers[0].lazy_initialization(keys)
    for found, brought in zip(cache.layers[0].update(keys, values), (keys, values), strict=True):
        assert torch.equal(found, brought)


def test_a_bad_id_never_reaches_the_model(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(engine._model, "forward", lambda **given: seen.append(given))
    with pytest.raises(InvalidToken):
        engine.extend([Chunk(engine.allocate(), [1, N_VOCAB])])
    assert seen == []


def test_a_failing_model_is_an_engine_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
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
    engine = open_engine(folder, SETTINGS)
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:30], 0)])
    found = engine.extend([Chunk(sequence, TOKENS[30:40], 10)])[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder.path, attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = model(torch.tensor([TOKENS[:40]])).logits[0, 30:].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    engine.close()


def test_the_context_stays_within_a_sliding_window(tmp_path: Path) -> None:
    engine = open_engine(tiny_hf(tmp_path / "model", "mistral", sliding_window=100), SETTINGS)
    assert engine.max_context == 100
    engine.close()


def test_a_folder_that_is_no_model(empty: Path) -> None:
    with pytest.raises(InvalidModel, match="no model transformers can load"):
        open_engine(tiny_manifest(empty, "hf", "."), SETTINGS)


def test_a_broken_safetensors_file(tmp_path: Path) -> None:
    folder = tiny_hf(tmp_path / "model")
    (folder.path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00nonsense")
    with pytest.raises(InvalidModel):
        open_engine(folder, SETTINGS)


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    import torch

    folder = tiny_hf(tmp_path / "model")
    (folder.path / "model.safetensors").unlink()
    torch.save({}, folder.path / "pytorch_model.bin")
    with pytest.raises(InvalidModel):
        open_engine(folder, SETTINGS)


def test_a_providers_name_it_does_not_know(hf_folder: ModelFolder) -> None:
    with pytest.raises(InvalidParameter, match="cpu or cuda"):
        open_engine(hf_folder, EngineSettings(provider="qnn"))


def test_scores_that_are_bent_agree_with_transformers_itself(tmp_path: Path) -> None:
    import torch
    import transformers

    folder = tiny_hf(tmp_path / "model", "gemma2", head_dim=16, attn_logit_softcapping=0.5)
    engine = open_engine(folder, SETTINGS)
    found = engine.extend([Chunk(engine.allocate(), TOKENS[:40], 40)])[0]
    engine.close()
    rows = {}
    for softcap in (0.5, None):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder.path, attn_implementation="eager", attn_logit_softcapping=softcap
        ).eval()
        with torch.inference_mode():
            rows[softcap] = model(torch.tensor([TOKENS[:40]])).logits[0].numpy()
    np.testing.assert_allclose(found, rows[0.5], atol=1e-3)
    assert np.abs(found - rows[None]).max() > 0.01


def many_at_once(engine: Engine) -> list[np.ndarray]:
    """Three sessions of unequal lengths in passes of every kind: a fill, drafts, a tree, a token alone."""
    sequences = [engine.allocate() for _ in range(3)]
    calls = [
        [(TOKENS[:90], 1, None), (TOKENS[100:103], 3, None), (TOKENS[110:111], 0, None)],
        [(TOKENS[10:15], 5, None), (TREE, 7, PARENTS), (TOKENS[20:57], 2, None)],
        [(TOKENS[30:31], 1, None), None, (TOKENS[40:41], 1, None)],
    ]
    rows = []
    for call in calls:
        chunks = [Chunk(sequences[n], given[0], *given[1:]) for n, given in enumerate(call) if given is not None]
        rows += [logits.copy() for logits in engine.extend(chunks)]
    for sequence in sequences:
        engine.release(sequence)
    return rows


def test_rounding_sizes_up_changes_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    padded = many_at_once(engine)
    shapes = []
    run = engine._run
    monkeypatch.setattr(engine, "_run", lambda shape, *given: shapes.append(shape) or run(shape, *given))
    monkeypatch.setattr("outrider.engines.packing._power_of_two", int)
    monkeypatch.setattr("outrider.engines.packing._round_up", int)
    for found, expected in zip(padded, many_at_once(engine), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))
    assert [shape.num_tokens for shape in shapes] == [94, 49, 2]


def test_sizes_rounded_to_one_shape_agree_in_every_bit(engine: Engine) -> None:
    sequence = engine.allocate()
    engine.extend([Chunk(sequence, TOKENS[:40], 0)])
    expected = engine.extend([Chunk(sequence, TOKENS[40:48], 8)])[0]
    for size in (5, 6, 7):
        engine.truncate(sequence, 40)
        found = engine.extend([Chunk(sequence, TOKENS[40 : 40 + size], size)])[0]
        np.testing.assert_array_equal(found, expected[:size])


def test_one_pass_takes_all_sessions_and_runs_over_their_tokens_only(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    forward = engine._model.forward
    monkeypatch.setattr(
        engine._model, "forward", lambda **given: sizes.append(given["input_ids"].shape) or forward(**given)
    )
    long, *short = (engine.allocate() for _ in range(3))
    engine.extend([Chunk(long, TOKENS[:126], 0), *(Chunk(sequence, TOKENS[:1]) for sequence in short)])
    assert sizes == [(1, 128)]


def test_a_tree_that_nobody_pruned_is_not_copied(engine: Engine) -> None:
    source, target = engine.allocate(), engine.allocate()
    engine.extend([Chunk(source, TOKENS[:4], 0)])
    engine.extend([Chunk(source, TREE, 1, PARENTS)])
    with pytest.raises(EngineError, match="keep one path"):
        engine.copy(source, target, 6)
    engine.copy(source, target, 4)
    found = engine.extend([Chunk(target, TOKENS[4:6], 1)])[0][0]
    np.testing.assert_allclose(found, chain(engine, TOKENS[:6]), atol=1e-4)


def test_an_attention_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = tiny_hf(tmp_path / "model", "gpt_oss", head_dim=16, num_local_experts=2, num_experts_per_tok=1)
    with pytest.raises(InvalidModel, match="attention of its own"):
        open_engine(folder, SETTINGS)


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.mark.skipif("not has_cuda()", reason="needs a CUDA device")
def test_recorded_passes_say_what_plain_ones_say(hf_folder: ModelFolder) -> None:
    """The same calls thrice: run plainly, recorded, replayed. bfloat16 against float32, so near and not equal."""
    settings = EngineSettings(max_context=256, max_sequences=3, provider="cuda")
    engine, on_cpu = open_engine(hf_folder, settings), open_engine(hf_folder, SETTINGS)
    expected = many_at_once(on_cpu)
    plain, recorded, replayed = (many_at_once(engine) for _ in range(3))
    assert engine._graphs is not None
    assert len(engine._graphs._recordings) == 3
    for rows in zip(plain, recorded, replayed, expected, strict=True):
        np.testing.assert_allclose(rows[1], rows[0], atol=0.02)
        np.testing.assert_array_equal(rows[2], rows[1])
        np.testing.assert_allclose(rows[0], rows[3], atol=0.2)
    engine.close()
    on_cpu.close()
