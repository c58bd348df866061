"""ONNX builds and the edits of their graphs. The library of graphs, which takes long to import, is for the tests alone
that run: every worker of the tests reads this file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.onnx import build_onnx, pick_builder
from outrider.errors import InvalidModel, InvalidParameter, UsageError
from outrider.manifest import ModelFolder
from outrider.progress import silent
from tests.export.conftest import Built
from tests.export.models import N_VOCAB, run_onnx

BUILDS = [
    ("qwen2", "fused", "int4"),
    ("qwen2", "fused", "int8"),
    ("llama", "fused", "int4"),
    ("llama", "general", "int4"),
]
TOKEN_IDS = [1, 70, 71, 200, 9, 33, 104]


def source_logits(built: Built, model_type: str) -> np.ndarray:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(built.source(model_type).path, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([TOKEN_IDS])).logits[0].numpy()


@pytest.mark.parametrize(("model_type", "builder", "quantization"), BUILDS)
def test_a_build_says_nearly_what_its_source_says(
    built: Built, model_type: str, builder: str, quantization: str
) -> None:
    import onnx_ir as ir

    folder = built.onnx(model_type, builder, quantization)
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.onnx.data"]
    expected, found = source_logits(built, model_type), run_onnx(folder / "model.onnx", TOKEN_IDS)
    assert found.shape == (len(TOKEN_IDS), N_VOCAB)
    errors = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0 < errors.max() < (0.5 if quantization == "int4" else 0.06)
    assert all(
        node.op_type != "MatMul" or node.inputs[1].const_value is None for node in ir.load(folder / "model.onnx").graph
    )


@pytest.mark.parametrize(("model_type", "builder", "quantization"), BUILDS)
def test_trimmed_logits_are_the_full_ones_at_the_kept_ids(
    built: Built, tmp_path: Path, model_type: str, builder: str, quantization: str
) -> None:
    import onnx_ir as ir

    from export.onnx_graph import cut_output_rows, save

    file = built.onnx(model_type, builder, quantization) / "model.onnx"
    kept = np.array([0, 1, 2, 3, *range(7, 67), *range(100, 292, 3)], np.int32)
    model = ir.load(file)
    cut_output_rows(model, kept)
    save(model, tmp_path)
    full, trimmed = run_onnx(file, TOKEN_IDS), run_onnx(tmp_path / "model.onnx", TOKEN_IDS)
    np.testing.assert_array_equal(trimmed, full[:, kept])
    assert (tmp_path / "model.onnx.data").stat().st_size < file.with_name("model.onnx.data").stat().st_size


def test_the_embedding_table_is_stored_in_half_precision(built: Built) -> None:
    import onnx_ir as ir

    graph = ir.load(built.onnx("qwen2", "fused", "int4") / "model.onnx").graph
    tables = [value for value in graph.initializers.values() if list(value.shape) == [N_VOCAB, 64]]
    assert [value.dtype for value in tables] == [ir.DataType.FLOAT16]


def embedding_model(table: np.ndarray) -> Any:
    import onnx_ir as ir

    ids = ir.Value(name="input_ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1, 3]))
    value = ir.Value(name="table", const_value=ir.Tensor(table, name="table"))
    value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(table.shape)
    gather = ir.node("Gather", [value, ids], name="gather")
    out = ir.node("Neg", gather.outputs, name="neg")
    for node in (gather, out):
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, ir.Shape([1, 3, table.shape[1]])
    graph = ir.Graph([ids], out.outputs, nodes=[gather, out], initializers=[value], opset_imports={"": 21}, name="g")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("table", "dtype"),
    [
        (np.float32([[0.5, -3.25], [1e-7, 2.0]]).astype(np.float16).astype(np.float32), "FLOAT16"),
        (np.float32([[2.0**-120, 1.5], [0.0, -(2.0**90)]]), "BFLOAT16"),
        (np.float32([[1 / 3, 0.1], [0.7, 1.0]]), "FLOAT"),
    ],
)
def test_a_table_shrinks_only_where_nothing_is_lost(tmp_path: Path, table: np.ndarray, dtype: str) -> None:
    import onnxruntime as ort

    from export.onnx_graph import save, shrink_embeddings

    model = embedding_model(table)
    assert shrink_embeddings(model) == (dtype != "FLOAT")
    assert [value.dtype.name for value in model.graph.initializers.values()] == [dtype]
    save(model, tmp_path)
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {"input_ids": np.array([[0, 1, 0]], np.int64)})[0]
    np.testing.assert_array_equal(found, -table[[0, 1, 0]][None])


def test_numbers_beyond_half_precision_are_no_error() -> None:
    from export.onnx_graph import as_16_bits

    assert as_16_bits(np.float32([[1e6 + 1]])) is None


def test_a_graph_without_an_output_product_is_refused() -> None:
    from export.onnx_graph import cut_output_rows

    with pytest.raises(InvalidModel, match="does not end in a product"):
        cut_output_rows(embedding_model(np.zeros((2, 2), np.float32)), np.array([0], np.int32))


def test_the_builder_follows_the_architecture() -> None:
    assert pick_builder("qwen2", None) == "fused"
    assert pick_builder("qwen2", "general") == "general"
    assert pick_builder("gpt_neox", None) == "general"
    with pytest.raises(InvalidParameter, match="not gpt_neox; use --builder general"):
        pick_builder("gpt_neox", "fused")


def test_onnx_is_no_source_for_onnx(tmp_path: Path, built: Built) -> None:
    from msgspec.structs import replace

    source = built.source("qwen2")
    again = ModelFolder(source.path, replace(source.manifest, format="onnx"))
    with pytest.raises(UsageError, match="is onnx already"):
        build_onnx(again, tmp_path, tmp_path / "work", "int4", None, None, silent)
