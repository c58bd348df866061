"""A graph may name weights in files of its own folder, and no others: the runtime looks, and this holds it to that."""

import os
from pathlib import Path

import numpy as np
import pytest

from outrider.engines import EngineSettings, open_engine
from outrider.errors import InvalidModel
from outrider.manifest import Manifest, ModelFolder, Source
from tests.lazy import onnx

WEIGHTS = np.arange(4, dtype=np.float32).tobytes()


def folder_with(root: Path, location: str) -> ModelFolder:
    """A graph that only hands its weights on, and takes them from `location`."""
    path = root / "model"
    (path / "sub").mkdir(parents=True)
    (root / "outside.bin").write_bytes(WEIGHTS)
    (path / "weights.bin").write_bytes(WEIGHTS)
    os.symlink(root / "outside.bin", path / "link.bin")
    weights = onnx.TensorProto(
        name="w", data_type=onnx.TensorProto.FLOAT, dims=[4], data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in {"location": location.format(root=root), "offset": "0", "length": "16"}.items():
        weights.external_data.add(key=key, value=value)
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    (path / "model.onnx").write_bytes(model.SerializeToString())
    manifest = Manifest(
        name="m",
        format="onnx",
        architecture="qwen2",
        file="model.onnx",
        files={},
        source=Source("test", "0"),
        licence="none",
        n_vocab=4,
        max_context=64,
        stop_ids=[],
        tokenizer_fingerprint="f",
    )
    return ModelFolder(path, manifest)


OUTSIDE = ["../outside.bin", "sub/../../outside.bin", "{root}/outside.bin", "link.bin", "missing.bin", "../missing.bin"]


@pytest.mark.parametrize("location", OUTSIDE)
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(InvalidModel, match="cannot be loaded"):
        open_engine(folder_with(tmp_path, location), EngineSettings(num_threads=1))


def test_weights_beside_the_graph_are_found(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="is not a decoder"):  # it was loaded, and is none
        open_engine(folder_with(tmp_path, "weights.bin"), EngineSettings(num_threads=1))
