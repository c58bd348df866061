import random
import struct
import tracemalloc
from pathlib import Path

import pytest

from outrider.errors import InvalidModel
from outrider.gguf_header import TENSOR_TYPES, is_gguf, read_header
from tests.toy_gguf import F32, gguf, tensor, text, toy_metadata, toy_model, value

SMALL = {"general.architecture": "llama", "llama.block_count": 2, "some.list": [1, 2, 3], "some.words": ["a", "é"]}


def counts(num_tensors: int, num_metadata: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_metadata)


def one_entry(content: bytes) -> bytes:
    return counts(0, 1) + text("k") + content


def test_reads_metadata_and_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(SMALL, [("a", (4, 2), F32, 0), ("b", (32,), 2, 32)], 50))
    header = read_header(path)
    assert header.metadata == SMALL
    assert [(info.name, info.shape, info.type) for info in header.tensors.values()] == [
        ("a", (4, 2), "F32"),
        ("b", (32,), "Q4_0"),
    ]
    assert header.tensors["b"].offset == header.tensors["a"].offset + 32
    assert header.tensors["a"].offset % 32 == 0


def test_tensor_types_agree_with_the_reference_library() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    known = {kind.value: (kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType}
    assert {type_id: known[type_id] for type_id in TENSOR_TYPES} == TENSOR_TYPES


def test_truncated_at_every_byte(tmp_path: Path) -> None:
    whole = gguf(SMALL, [("a", (4, 2), F32, 0)], 32)
    path = tmp_path / "m.gguf"
    path.write_bytes(whole)
    read_header(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidModel):
            read_header(path)


HUGE = 1 << 63
BROKEN = {
    "other magic": b"GGML" + bytes(64),
    "version 1": counts(0, 0, version=1),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "many tensors": counts(HUGE, 0),
    "many tensors within the limit": counts(60_000, 0),
    "many metadata": counts(0, HUGE),
    "long key": counts(0, 1) + struct.pack("<Q", HUGE) + bytes(64),
    "long string": one_entry(struct.pack("<IQ", 8, HUGE)),
    "string past the end": one_entry(struct.pack("<IQ", 8, 1000)),
    "not UTF-8": one_entry(struct.pack("<IQ", 8, 1) + b"\xff"),
    "unknown type": one_entry(struct.pack("<I", 13) + bytes(8)),
    "long number list": one_entry(struct.pack("<IIQ", 9, 4, HUGE)),
    "long text list": one_entry(struct.pack("<IIQ", 9, 8, HUGE)),
    "list of lists": one_entry(struct.pack("<IIQ", 9, 9, 1) + bytes(64)),
    "key twice": counts(0, 2) + (text("k") + value(1)) * 2,
    "alignment 0": gguf({"general.alignment": 0}, [], 0),
    "alignment 3": gguf({"general.alignment": 3}, [], 0),
    "alignment 2 MiB": gguf({"general.alignment": 2 << 20}, [], 0),
    "alignment a text": gguf({"general.alignment": "32"}, [], 0),
    "513 layers": gguf({"general.architecture": "llama", "llama.block_count": 513}, [], 0),
    "0 layers": gguf({"general.architecture": "llama", "llama.block_count": 0}, [], 0),
    "layers a text": gguf({"general.architecture": "llama", "llama.block_count": "1"}, [], 0),
    "no dimensions": gguf({}, [("a", (), F32, 0)], 64),
    "5 dimensions": gguf({}, [("a", (1, 1, 1, 1, 1), F32, 0)], 64),
    "a dimension of 0": gguf({}, [("a", (4, 0), F32, 0)], 64),
    "dimensions that overflow": gguf({}, [("a", (1 << 62, 1 << 62), F32, 0)], 64),
    "half a block": gguf({}, [("a", (33,), 2, 0)], 64),
    "unknown tensor type": gguf({}, [("a", (4,), 4, 0)], 64),
    "offset outside": gguf({}, [("a", (4,), F32, HUGE)], 64),
    "offset not aligned": gguf({}, [("a", (4,), F32, 1)], 64),
    "tensors overlap": gguf({}, [("a", (16,), F32, 0), ("b", (16,), F32, 32)], 128),
    "tensor twice": gguf({}, [("a", (8,), F32, 0), ("a", (8,), F32, 32)], 128),
    "tensor longer than the file": gguf({}, [("a", (17,), F32, 0)], 64),
    "long tensor name": counts(1, 0) + tensor("n" * 128, (4,), F32, 0) + bytes(64),
    "empty": b"",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers_are_refused_without_large_allocations(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(BROKEN[name])
    tracemalloc.start()
    try:
        with pytest.raises(InvalidModel) as caught:
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_flipped_bytes_give_a_header_or_invalid_model(tmp_path: Path) -> None:
    whole = toy_model(toy_metadata())
    path = tmp_path / "m.gguf"
    chance = random.Random(0)
    num_refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(3):
            data[chance.randrange(2000)] = chance.randrange(256)
        path.write_bytes(data)
        try:
            read_header(path)
        except InvalidModel:
            num_refused += 1
    assert num_refused > 50


def test_is_gguf(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GG")
    assert not is_gguf(path)
    path.write_bytes(toy_model())
    assert is_gguf(path)
    with pytest.raises(InvalidModel, match="cannot be read"):
        is_gguf(tmp_path)
