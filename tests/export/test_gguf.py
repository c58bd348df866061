from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from msgspec.structs import replace

from export.gguf import QUANTIZATIONS, build_gguf
from export.trim_gguf import cut_gguf
from outrider import catalog
from outrider.engines import Chunk, EngineSettings, open_engine
from outrider.errors import InvalidModel, UsageError
from outrider.manifest import ModelFolder
from outrider.progress import silent
from tests.export.models import TOKENS, WIDTH, write_gguf

TOKEN_IDS = [1, 70, 71, 200, 9, 33, 104]
KEPT = np.array([0, 1, 2, 3, *range(7, 67), *range(100, 244, 3)], np.int32)


def logits(folder: ModelFolder) -> np.ndarray:
    engine = open_engine(folder, EngineSettings(num_threads=1, max_context=64))
    try:
        return engine.extend([Chunk(engine.allocate(), TOKEN_IDS, len(TOKEN_IDS))])[0].copy()
    finally:
        engine.close()


@pytest.mark.parametrize("is_tied", [False, True])
def test_a_trimmed_gguf_gives_the_full_logits_at_the_kept_ids(tmp_path: Path, is_tied: bool) -> None:
    full = catalog.find(str(write_gguf(tmp_path / "source" / "tiny.gguf", is_tied=is_tied)))
    cut_gguf(full.model_file, tmp_path / "cut.gguf", tmp_path / "embeddings.npy", KEPT)
    np.save(tmp_path / "id_map.npy", KEPT)
    manifest = replace(full.manifest, file="cut.gguf", id_map="id_map.npy", embeddings="embeddings.npy")
    np.testing.assert_array_equal(logits(ModelFolder(tmp_path, manifest)), logits(full)[:, KEPT])


def quantization_of(file: Path) -> GGMLQuantizationType:
    return {tensor.name: tensor.tensor_type for tensor in GGUFReader(file).tensors}["blk.0.attn_q.weight"]


def test_the_child_tells_how_far_it_is_and_leaves_the_file_alone(tmp_path: Path, gguf_file: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    source = catalog.find(str(gguf_file))
    build_gguf(source, tmp_path / "out.gguf", tmp_path / "work", "q4_0", lambda *stage: stages.append(stage))
    assert quantization_of(tmp_path / "out.gguf") == GGMLQuantizationType.Q4_0
    assert stages[0] == ("quantize to q4_0", 0, 0)
    assert stages[-1][1] == stages[-1][2] > 0
    assert not (tmp_path / "work").exists()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("quantization", "type_name"), [("q8_0", "Q8_0"), ("f16", "F16")])
def test_a_quantized_file_holds_that_quantization(
    tmp_path: Path, gguf_file: Path, quantization: str, type_name: str
) -> None:
    build_gguf(catalog.find(str(gguf_file)), tmp_path / "out.gguf", tmp_path / "work", quantization, silent)
    assert quantization_of(tmp_path / "out.gguf") == GGMLQuantizationType[type_name]


@pytest.mark.usefixtures("in_process")
def test_rows_of_a_quantized_table_are_cut_byte_for_byte(tmp_path: Path, gguf_file: Path) -> None:
    build_gguf(catalog.find(str(gguf_file)), tmp_path / "q.gguf", tmp_path / "work", "q8_0", silent)
    cut_gguf(tmp_path / "q.gguf", tmp_path / "cut.gguf", tmp_path / "embeddings.npy", KEPT)
    full = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "q.gguf").tensors}
    reader = GGUFReader(tmp_path / "cut.gguf")
    cut = {tensor.name: tensor.data for tensor in reader.tensors}
    assert cut.keys() == full.keys()
    for name in full:
        is_table = name in {"token_embd.weight", "output.weight"}
        np.testing.assert_array_equal(cut[name], full[name][KEPT] if is_table else full[name])
    assert reader.get_field("tokenizer.ggml.model").contents() == "none"
    assert reader.get_field("llama.vocab_size").contents() == len(KEPT)
    embeddings = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    assert (embeddings.shape, embeddings.dtype) == ((len(TOKENS), WIDTH), np.float16)


def test_an_architecture_that_scales_its_input_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "g.gguf", architecture="gemma")
    with pytest.raises(UsageError, match="not for gemma; use --format onnx"):
        cut_gguf(file, tmp_path / "cut.gguf", tmp_path / "embeddings.npy", KEPT)


def test_gguf_from_another_format_is_refused_with_a_way_out(tmp_path: Path, gguf_file: Path) -> None:
    source = catalog.find(str(gguf_file))
    folder = ModelFolder(source.path, replace(source.manifest, format="hf"))
    with pytest.raises(UsageError, match="start from the model's GGUF file"):
        build_gguf(folder, tmp_path / "out.gguf", tmp_path / "work", "q4_0", silent)


def test_a_file_that_llama_cpp_refuses_is_one_sentence(tmp_path: Path, gguf_file: Path) -> None:
    source = catalog.find(str(gguf_file))
    data = source.model_file.read_bytes()
    (tmp_path / "half.gguf").write_bytes(data[: len(data) // 2])
    broken = ModelFolder(tmp_path, replace(source.manifest, file="half.gguf"))
    with pytest.raises(InvalidModel, match=r"llama\.cpp cannot quantize half\.gguf"):
        build_gguf(broken, tmp_path / "out.gguf", tmp_path / "work", "q4_0", silent)
    assert not (tmp_path / "work").exists()


def test_every_quantization_is_one_that_llama_cpp_knows() -> None:
    import llama_cpp

    assert all(hasattr(llama_cpp, constant) for constant in QUANTIZATIONS.values())
