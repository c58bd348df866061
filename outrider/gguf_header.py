"""Reads the header of a GGUF file: metadata and tensor infos. Every count, length and offset is checked first.

Native loaders trust what a file declares; this reader does not, so a file that passes here declares nothing that its
own size could not hold. It allocates in proportion to bytes really present, reads no tensor data, runs no native code
and knows neither what the metadata means (beyond the layer count) nor what a tensor is for.
"""

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from outrider.errors import InvalidModel

__all__ = ["GgufHeader", "TensorInfo", "is_gguf", "read_header"]

MAGIC = b"GGUF"
MAX_METADATA = 4096  # key/value pairs
MAX_TENSORS = 65_536
MAX_KEY = 256  # bytes
MAX_NAME = 127  # bytes
MAX_STRING = 1 << 20  # bytes
MAX_HEADER = 64 << 20  # bytes of all metadata and tensor infos together
MAX_ALIGNMENT = 1 << 20
MAX_LAYERS = 512
STRING, ARRAY, BOOL = 8, 9, 7

# value type -> struct letter
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}

# tensor type -> (name, elements a block, bytes a block)
TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}


class TensorInfo(msgspec.Struct, frozen=True):
    name: str
    shape: tuple[int, ...]  # fastest-varying dimension first, as the file has it
    type: str
    offset: int  # bytes from the start of the file


class GgufHeader(msgspec.Struct, frozen=True):
    """What a file says of itself, and at which of its bytes: from the first of these to before the second."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    entries: dict[str, tuple[int, int]]  # of the metadata
    infos: tuple[int, int]  # all that is said of tensors
    data: int  # where the tensors begin


def is_gguf(path: Path) -> bool:
    """Whether the file begins as a GGUF file does. Raises InvalidModel when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read ({error.strerror})") from None


def read_header(path: Path) -> GgufHeader:
    """The file's metadata and tensors. Raises InvalidModel for anything that is not a whole, sane GGUF file."""
    try:
        with path.open("rb") as file:
            return _Reader(file, path).header()
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read ({error.strerror})") from None


class _Reader:
    """One pass over the header; `remaining` is what the file, or the limit on headers, still allows to be read."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.size = path.stat().st_size
        self.remaining = min(self.size, MAX_HEADER)

    def fail(self, what: str) -> InvalidModel:
        return InvalidModel(f"{self.path} is not a usable GGUF file: {what}; download it again or pick another")

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > self.remaining:
            raise self.fail("it ends in the middle of its header")
        self.remaining -= num_bytes
        data = self.file.read(num_bytes)
        if len(data) != num_bytes:
            raise self.fail("it became shorter while it was read")
        return data

    def number(self, letter: str) -> Any:
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0]

    def string(self, limit: int = MAX_STRING) -> str:
        length = int.from_bytes(self.take(8), "little")
        if length > limit:
            raise self.fail(f"a text of {length} bytes where at most {limit} may stand")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise self.fail("a text that is not UTF-8") from None

    def value(self, type_id: int) -> Any:
        if type_id == STRING:
            return self.string()
        if type_id != ARRAY:
            if type_id not in NUMBERS:
                raise self.fail(f"metadata of the unknown type {type_id}")
            return self.number(NUMBERS[type_id])
        item_type, count = self.number("I"), self.number("Q")
        if item_type == STRING:
            if count * 8 > self.remaining:
                raise self.fail(f"a list of {count} texts, more than the file can hold")
            return [self.string() for _ in range(count)]
        if item_type not in NUMBERS:
            raise self.fail(f"a list of the unknown type {item_type}")
        letter = NUMBERS[item_type]
        if count * struct.calcsize("<" + letter) > self.remaining:
            raise self.fail(f"a list of {count} numbers, more than the file can hold")
        return list(struct.unpack(f"<{count}{letter}", self.take(count * struct.calcsize("<" + letter))))

    def header(self) -> GgufHeader:
        if self.take(4) != MAGIC:
            raise InvalidModel(f"{self.path} is not a GGUF file")
        version = self.number("I")
        if version not in (2, 3):
            raise self.fail(f"version {version}, where 2 and 3 are known")
        num_tensors, num_metadata = self.number("Q"), self.number("Q")
        if num_tensors > MAX_TENSORS or num_metadata > MAX_METADATA:
            raise self.fail(f"it declares {num_tensors} tensors and {num_metadata} metadata entries")
        metadata, entries = self.metadata(num_metadata)
        alignment = self.check_metadata(metadata)
        begin = self.file.tell()
        tensors, data = self.tensors(num_tensors, alignment)
        return GgufHeader(metadata, tensors, entries, (begin, self.file.tell()), data)

    def metadata(self, count: int) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
        found: dict[str, Any] = {}
        entries: dict[str, tuple[int, int]] = {}
        for _ in range(count):
            begin = self.file.tell()
            key = self.string(MAX_KEY)
            if key in found:
                raise self.fail(f"{key!r} stands twice in its metadata")
            found[key] = self.value(self.number("I"))
            entries[key] = (begin, self.file.tell())
        return found, entries

    def check_metadata(self, metadata: dict[str, Any]) -> int:
        """The alignment; the two figures that native loaders size memory by are checked here."""
        alignment = metadata.get("general.alignment", 32)
        is_int = type(alignment) is int
        if not is_int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise self.fail(f"an alignment of {alignment!r}, where a power of two up to {MAX_ALIGNMENT} may stand")
        layers = metadata.get(f"{metadata.get('general.architecture')}.block_count", 1)
        if type(layers) is not int or not 0 < layers <= MAX_LAYERS:
            raise self.fail(f"{layers!r} layers, where 1 to {MAX_LAYERS} may stand")
        return int(alignment)

    def tensors(self, count: int, alignment: int) -> tuple[dict[str, TensorInfo], int]:
        # a tensor info takes at least 32 bytes
        if count * 32 > self.remaining:
            raise self.fail(f"{count} tensors, more than the file can hold")
        found: dict[str, TensorInfo] = {}
        ends: list[int] = []
        end = 0  # of the tensor before, from the start of the data: tensors follow one another without gap or overlap
        for _ in range(count):
            name, num_dims = self.string(MAX_NAME), self.number("I")
            if name in found:
                raise self.fail(f"the tensor {name!r} stands twice")
            if not 1 <= num_dims <= 4:
                raise self.fail(f"the tensor {name!r} has {num_dims} dimensions")
            shape = struct.unpack(f"<{num_dims}Q", self.take(8 * num_dims))
            type_id, offset = self.number("I"), self.number("Q")
            if type_id not in TENSOR_TYPES:
                raise self.fail(f"the tensor {name!r} is of the unknown type {type_id}")
            type_name, block, block_bytes = TENSOR_TYPES[type_id]
            if min(shape) == 0 or shape[0] % block:
                raise self.fail(f"the tensor {name!r} has a shape that its type {type_name} cannot hold")
            if offset != end:
                raise self.fail(f"the tensor {name!r} does not follow the one before it")
            ends.append(offset + math.prod(shape) // block * block_bytes)
            end = _round_up(ends[-1], alignment)
            found[name] = TensorInfo(name, shape, type_name, offset)
        start = _round_up(self.file.tell(), alignment)
        if ends and start + ends[-1] > self.size:
            raise self.fail(f"it has {self.size} bytes where its tensors need {start + ends[-1]}, so it was cut off")
        found = {name: msgspec.structs.replace(info, offset=start + info.offset) for name, info in found.items()}
        return found, start


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
