"""Edits of a decoder's ONNX graph that change no result: a smaller embedding table, an output layer with fewer rows.

Both work on the graphs of either builder. Weights are mapped, not loaded; only what is cut is read. Knows no tokenizer.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.onnx import MODEL_FILE
from outrider.errors import InvalidModel

__all__ = ["cut_output_rows", "save", "shrink_embeddings"]

DATA_FILE = "model.onnx.data"
INLINE_BYTES = 4096  # smaller tensors stay in the graph, where shape inference can read them
CHUNK_ROWS = 4096

# Between the output product and the logits a graph may scale or cap them, each value for itself.
ELEMENTWISE = frozenset({"Cast", "Div", "Identity", "Mul", "Tanh"})


def save(model: ir.Model, folder: Path) -> None:
    """Write `model.onnx` and `model.onnx.data` into `folder`."""
    ir.save(model, folder / MODEL_FILE, external_data=DATA_FILE, size_threshold_bytes=INLINE_BYTES)


def shrink_embeddings(model: ir.Model) -> bool:
    """Store the float32 embedding table in 16 bits and widen each row as it is read, if that loses nothing.

    It loses nothing when the table came from half precision or bfloat16 weights. True when the table was replaced.
    """
    gather = next((node for node in model.graph if node.op_type == "Gather" and reads_input_ids(node)), None)
    if gather is None:
        return False
    table = gather.inputs[0]
    if table is None or table.const_value is None or table.dtype != ir.DataType.FLOAT or len(table.uses()) != 1:
        return False
    narrow = as_16_bits(table.const_value.numpy())
    if narrow is None:
        return False
    new_table = ir.Value(
        name=f"{table.name}_16", const_value=ir.Tensor(narrow.numpy(), narrow.dtype, name=f"{table.name}_16")
    )
    new_table.dtype, new_table.shape = narrow.dtype, table.shape
    model.graph.initializers.add(new_table)
    rows = gather.outputs[0]
    cast = ir.node("Cast", [rows], {"to": ir.DataType.FLOAT}, name=f"{gather.name}/Widen")
    rows.replace_all_uses_with(cast.outputs[0])
    cast.replace_input_with(0, rows)
    cast.outputs[0].name = f"{rows.name}_widened"
    cast.outputs[0].dtype, cast.outputs[0].shape = ir.DataType.FLOAT, rows.shape
    rows.dtype = narrow.dtype
    gather.replace_input_with(0, new_table)
    model.graph.insert_after(gather, cast)
    del model.graph.initializers[str(table.name)]
    return True


def reads_input_ids(node: ir.Node) -> bool:
    ids = node.inputs[1]
    return ids is not None and ids.is_graph_input() and ids.name == "input_ids"


def as_16_bits(table: NDArray[np.float32]) -> ir.Tensor | None:
    """The same numbers as float16, else as bfloat16, else None. Row blocks keep the memory small."""
    half = np.empty(table.shape, np.float16)
    brain = np.empty(table.shape, np.uint16)
    is_half, is_brain = True, True
    for start in range(0, len(table), CHUNK_ROWS):
        rows = np.ascontiguousarray(table[start : start + CHUNK_ROWS])
        if is_half:
            with np.errstate(over="ignore"):
                half[start : start + CHUNK_ROWS] = rows
            is_half = np.array_equal(half[start : start + CHUNK_ROWS].astype(np.float32), rows)
        if is_brain:
            bits = rows.view(np.uint32)  # a bfloat16 is the upper half of a float32
            brain[start : start + CHUNK_ROWS] = bits >> 16
            is_brain = not np.any(bits & 0xFFFF)
    if is_half:
        return ir.Tensor(half)
    if is_brain:
        return ir.Tensor(brain, ir.DataType.BFLOAT16)
    return None


def cut_output_rows(model: ir.Model, kept_ids: NDArray[np.int32]) -> None:
    """Keep only these rows of the output layer, in this order: logits column j becomes the old column kept_ids[j].

    The logits stay the same in every bit where both widths are multiples of 16: kernels work on blocks of columns, and
    columns left over may be rounded otherwise.
    Raises InvalidModel when the graph does not end in a product with a constant.
    """
    logits = next((value for value in model.graph.outputs if value.name == "logits"), None)
    product = None if logits is None else output_product(logits)
    if logits is None or product is None:
        raise InvalidModel(
            "the graph does not end in a product that gives the logits; build it again with either builder"
        )
    num_rows = logits.shape[-1] if logits.shape is not None else None
    if product.op_type == "MatMulNBits":
        num_rows = product.attributes["N"].as_int()
        product.attributes["N"] = ir.AttrInt64("N", len(kept_ids))
    for index, value in enumerate(product.inputs):
        # Input 0 is the activations, 4 an order of the inner dimension; all others have one row a logit.
        if index not in {0, 4} and value is not None and value.name:
            cut(model, value, kept_ids, num_rows=num_rows, axis=0 if product.op_type == "MatMulNBits" else -1)
    for value in [*after(product), logits]:
        if value.shape is not None:
            value.shape = ir.Shape([*value.shape[:-1], len(kept_ids)])


def output_product(logits: ir.Value) -> ir.Node | None:
    """The node that multiplies with the output layer, looking back through what acts on each value alone."""
    node = logits.producer()
    while node is not None and node.op_type in ELEMENTWISE:
        node = next(
            (value.producer() for value in node.inputs if value is not None and value.producer() is not None), None
        )
    if node is None or node.op_type not in {"MatMul", "MatMulNBits"}:
        return None
    weight = node.inputs[1]
    return node if weight is not None and weight.const_value is not None else None


def after(product: ir.Node) -> list[ir.Value]:
    """The values from the product to the end of the graph."""
    values = [product.outputs[0]]
    while users := [usage.node for usage in values[-1].uses()]:
        values.append(users[0].outputs[0])
    return values


def cut(model: ir.Model, value: ir.Value, kept_ids: NDArray[np.int32], num_rows: object, axis: int) -> None:
    """Replace one constant of the product by its kept rows. Scales and zero points may be stored flat."""
    if value.const_value is None or not isinstance(num_rows, int):
        raise InvalidModel("the output layer is not a constant; build the model again with either builder")
    array = value.const_value.numpy()
    if axis == 0:
        rows = array.reshape(num_rows, -1)[kept_ids]
        array = rows.reshape(-1) if array.ndim == 1 else rows.reshape(len(kept_ids), *array.shape[1:])
    else:
        array = np.ascontiguousarray(array[..., kept_ids])
    value.const_value = ir.Tensor(array, value.dtype, name=value.name)
    value.shape = ir.Shape(array.shape)
