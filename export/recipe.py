"""What to make of a model: a recipe, from a TOML file in `models/` or from a command's options.

Two equal recipes on equal sources give equal models; a trim, which counts the standard library, under one Python. Holds
and checks the words; builds nothing.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from export import gguf, onnx
from export.corpus import STDLIB
from outrider.errors import InvalidParameter
from outrider.user_path import user_path

__all__ = ["Recipe", "Trim", "load_recipe", "make_recipe"]

KIND = "recipe"
Format = Literal["onnx", "gguf"]
Builder = Literal["fused", "general"]
QUANTIZATIONS = {"onnx": sorted(onnx.QUANTIZATIONS), "gguf": sorted(gguf.QUANTIZATIONS)}
DEFAULT_QUANTIZATION = {"onnx": "int4", "gguf": "q4_0"}


class Trim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep the `num_tokens` most frequent tokens of the corpus: files, folders, or "stdlib"."""

    num_tokens: int
    corpus: list[str] = msgspec.field(default_factory=lambda: [STDLIB])


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`source` is anything the catalog finds, another recipe's name included.

    `quantization=None` leaves the numbers as they are in the source, which then has the format already.
    `builder` is for ONNX; None takes the fused one where it knows the architecture.
    `block_size`, for ONNX too, is how many weights share a scale and a zero point; None is 128. Fewer are closer to the
    source, and slower.
    `target` is the model that the report compares with, beside the source.
    """

    source: str
    format: Format = "onnx"
    quantization: str | None = None
    builder: Builder | None = None
    block_size: int | None = None
    trim: Trim | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        known = QUANTIZATIONS[self.format]
        if self.quantization is not None and self.quantization not in known:
            raise InvalidParameter(
                f"quantization {self.quantization!r} is not one of {self.format}'s; use one of {', '.join(known)}"
            )
        for key, value in (("builder", self.builder), ("block_size", self.block_size)):
            if value is not None and (self.format != "onnx" or self.quantization is None):
                raise InvalidParameter(f"{key} {value!r} is only for ONNX with a quantization; leave it out")
        if self.block_size is not None and self.block_size not in onnx.BLOCK_SIZES:
            sizes = ", ".join(map(str, onnx.BLOCK_SIZES))
            raise InvalidParameter(f"block_size {self.block_size} is not one that kernels know; use one of {sizes}")
        if self.quantization is None and self.trim is None:
            raise InvalidParameter(f"nothing to do for {self.source}; give a quantization or a trimmed vocabulary")
        if self.trim is not None and (self.trim.num_tokens < 1 or not self.trim.corpus):
            raise InvalidParameter(
                "a trimmed vocabulary needs at least one token and one corpus; raise num_tokens or add one"
            )


def load_recipe(file: Path) -> Recipe:
    """The recipe of a TOML file. Raises InvalidParameter that names the file, the key and its value."""
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidParameter(f"{file.name} cannot be read as TOML ({error}); correct it") from None
    entries.pop("summary", None)
    kind = entries.pop("kind", None)
    if kind != KIND:
        raise InvalidParameter(f"{file.name} is not a recipe: kind = {kind!r}; a recipe says kind = {KIND!r}")
    reject_unknown(file.name, entries, Recipe)
    if isinstance(entries.get("trim"), dict):
        reject_unknown(file.name, entries["trim"], Trim, "trim.")
    return _made(entries, file.name)


def make_recipe(
    source: str,
    *,
    format: str | None = None,
    quantization: str | None = None,
    builder: str | None = None,
    block_size: int | None = None,
    trim: int | None = None,
    corpus: list[str] | None = None,
    target: str | None = None,
) -> Recipe:
    """A recipe from a command's options. ONNX int4 and GGUF q4_0 unless said, or as the source is if only trimmed.

    Files and folders are made absolute, so that the recipe means the same elsewhere on this machine.
    """
    if corpus and trim is None:
        raise InvalidParameter("--corpus says what a trimmed vocabulary keeps; add --trim with a number of tokens")
    entries: dict[str, Any] = {"source": whole_path(source), "format": format or "onnx", "builder": builder}
    entries |= {"quantization": quantization, "block_size": block_size}
    if trim is not None:
        entries["trim"] = {"num_tokens": trim, "corpus": [whole_path(name) for name in corpus or [STDLIB]]}
    elif quantization is None:
        entries["quantization"] = DEFAULT_QUANTIZATION.get(entries["format"])
    entries["target"] = target and whole_path(target)
    return _made(entries, "the options")


def _made(entries: dict[str, Any], where: str) -> Recipe:
    for key, words in (("format", Format), ("builder", Builder)):
        if entries.get(key) not in (None, *get_args(words)):
            raise InvalidParameter(f"{key} {entries[key]!r} is none; use one of {', '.join(get_args(words))}")
    try:
        return msgspec.convert(entries, Recipe)
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"{where}: {error}; correct that") from None


def whole_path(name: str) -> str:
    path = user_path(name)
    return str(path.resolve()) if path.exists() else name


def reject_unknown(file_name: str, entries: dict[str, Any], struct: type[msgspec.Struct], prefix: str = "") -> None:
    for key, value in entries.items():
        if key not in struct.__struct_fields__:
            known = ", ".join(struct.__struct_fields__)
            raise InvalidParameter(f"{file_name} has an unknown key {prefix}{key} = {value!r}; known here: {known}")
