"""Rewrites a fused decoder graph for OpenVINO: attention over a cache in blocks, several sequences in one pass.

ONNX's grouped-query attention takes a sequence's past as a tensor and returns a longer one: copies that grow with the
text. OpenVINO's paged attention reads and writes blocks of caches where they lie, wherever a sequence's blocks are, so
truncation is a number. Tokens of all sequences stand in one row, with their positions. Knows graphs; runs nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino.op import _PagedAttentionExtension as PagedAttention

from outrider.errors import InvalidModel

__all__ = ["paged"]

FUSED = "GroupQueryAttention"
WANTED = {"do_rotary": True, "rotary_interleaved": False, "causal": True, "local_window_size": -1}
INPUTS = ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins")


def paged(model: Any) -> Any:
    """The graph with inputs `input_ids` (1, n), `position_ids` (n,), `rows` (those of the n whose logits are wanted),
    what paged attention asks of blocks, and a `key_cache.N` and `value_cache.N` for each layer N. Output: `logits`
    (1, rows, width). Raises InvalidModel where attention is not the kind that this can express.
    """
    attentions = [node for node in model.get_ordered_ops() if node.get_type_name() == FUSED]
    if not attentions:
        raise InvalidModel("the graph has no grouped-query attention; OpenVINO runs fused graphs only")
    shared = {name: _parameter(name, [-1]) for name in (*INPUTS, "position_ids", "rows")}
    shared["max_context_len"] = _parameter("max_context_len", [])
    rotation = [
        ops.unsqueeze(ops.gather(attentions[0].input_value(place), shared["position_ids"], _ints(0)), _ints([0, 1]))
        for place in (7, 8)
    ]
    caches = []
    for number, node in enumerate(attentions):
        cache = [_cache(f"{kind}_cache.{number}") for kind in ("key", "value")]
        attended = ops.unsqueeze(_attention(node, rotation, cache, shared), _ints(0))
        for taker in node.output(0).get_target_inputs():
            taker.replace_source_output(attended.output(0))
        caches += cache
    (logits,) = (result for result in model.get_results() if "logits" in result.input_value(0).get_names())
    _take_rows(logits, shared["rows"])
    (input_ids,) = (each for each in model.get_parameters() if each.get_friendly_name() == "input_ids")
    return ov.Model([logits], [input_ids, *shared.values(), *caches], "paged")


def _attention(node: Any, rotation: Sequence[Any], cache: Sequence[Any], shared: dict[str, Any]) -> Any:
    """Paged attention in the place of `node`: (n, heads * size)."""
    told = node.get_attributes()
    if any(told.get(name) != value for name, value in WANTED.items()) or told.get("smooth_softmax"):
        raise InvalidModel("the graph's attention has a window or positions that OpenVINO's cannot express")
    num_heads, num_kv_heads = told["num_heads"], told["kv_num_heads"]
    query, key, value = (node.input_value(place) for place in range(3))
    head_size = query.get_partial_shape()[3].get_length()
    none_f32, none_i32, zero = _constant([], np.float32), _constant([], np.int32), _ints(0)
    inputs = [
        _flat(_rotated(query, rotation), num_heads * head_size),
        _flat(_rotated(key, rotation), num_kv_heads * head_size),
        _flat(value, num_kv_heads * head_size),
        *cache,
        *(shared[name] for name in INPUTS),
        _constant(told["scale"] or head_size**-0.5, np.float32),
        zero,  # no sliding window
        none_f32,  # no slopes
        shared["max_context_len"],
        none_i32,  # scores are not wanted
        *(none_i32, none_i32, none_f32),  # nothing in the cache is turned again
        *(none_f32, zero, zero),  # no blocks are left out
        none_f32,  # no sinks
        *(zero, none_i32, none_i32, none_i32),  # nothing is evicted
        none_i32,  # tokens are all of one type
        *(_constant([], np.uint8), none_i32),  # no trees
    ]
    attention = PagedAttention([each.output(0) for each in inputs])
    told_shapes = attention.get_rt_info()
    for name in ("k", "v"):
        told_shapes[f"num_{name}_heads"], told_shapes[f"{name}_head_size"] = num_kv_heads, head_size
    return attention.output(0)


def _rotated(heads: Any, rotation: Sequence[Any]) -> Any:
    """Rotary positions (Su et al. 2021), by halves: heads (1, heads, n, size), cosine and sine (1, 1, n, size / 2)."""
    cosine, sine = rotation
    first, second = ops.split(heads, _ints(3), 2).outputs()
    turned = [
        ops.subtract(ops.multiply(first, cosine), ops.multiply(second, sine)),
        ops.add(ops.multiply(second, cosine), ops.multiply(first, sine)),
    ]
    return ops.concat(turned, 3)


def _flat(heads: Any, width: int) -> Any:
    """(1, heads, n, size) as (n, heads * size)."""
    return ops.reshape(ops.transpose(heads, _ints([0, 2, 1, 3])), _ints([-1, width]), False)


def _take_rows(logits: Any, rows: Any) -> None:
    """Only these rows go through the output layer, which is the widest of all: they are picked before it."""
    layer = logits.input_value(0).get_node()
    while layer.get_type_name() != "MatMul":
        layer = layer.input_value(0).get_node()
    hidden = layer.input_value(0)
    layer.input(0).replace_source_output(ops.gather(hidden, rows, _ints(1)).output(0))


def _parameter(name: str, shape: list[int], dtype: Any = ov.Type.i32) -> Any:
    return _named(ops.parameter(ov.PartialShape(shape), dtype, name=name), name)


def _cache(name: str) -> Any:
    """Its shape and type are the device's to choose."""
    return _named(ops.parameter(ov.PartialShape.dynamic(4), ov.Type.dynamic, name=name), name)


def _named(parameter: Any, name: str) -> Any:
    parameter.output(0).get_tensor().set_names({name})
    return parameter


def _constant(value: Any, dtype: Any) -> Any:
    return ops.constant(np.array(value, dtype))


def _ints(value: Any) -> Any:
    return _constant(value, np.int32)
