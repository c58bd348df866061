"""Makes a folder a model folder: links what lies elsewhere, describes it, writes the manifest. Fetches nothing."""

import hashlib
import re
from pathlib import Path

from outrider.describe import describe_gguf, describe_hf
from outrider.manifest import ModelFolder, Source, file_sha256, write_manifest

__all__ = ["HF_FILES", "install_gguf", "install_hf"]

# what belongs to a Hugging Face model here: weights as safetensors only, no code, nothing pickled
HF_FILES = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|model\.safetensors\.index)\.json"
    r"|chat_template\.jinja|model[\w.-]*\.safetensors"
)


def install_gguf(file: Path, folder: Path, *, name: str, licence: str, source: Source) -> ModelFolder:
    """Make `folder` a model folder around the GGUF `file`, which lies in it or is linked from it.

    `source.sha256` is the file's own hash. Raises InvalidModel, and writes nothing, when it is no usable model.
    """
    manifest = describe_gguf(file, folder, name=name, licence=licence, source=source, sha256=source.sha256)
    _link(file, folder / file.name)
    return write_manifest(folder, manifest)


def install_hf(files: list[Path], folder: Path, *, name: str, licence: str, source_name: str) -> ModelFolder:
    """Make `folder` a model folder of Hugging Face `files`, of one folder: itself, or one that it links to.

    Raises InvalidModel, and writes nothing, when they are no usable model.
    """
    hashes = {file.name: file_sha256(file) for file in sorted(files)}
    together = hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in hashes.items()).encode()).hexdigest()
    source = Source(source_name, together)
    manifest = describe_hf(files[0].parent, folder, name=name, licence=licence, source=source, files=hashes)
    for file in files:
        _link(file, folder / file.name)
    return write_manifest(folder, manifest)


def _link(file: Path, place: Path) -> None:
    if place.resolve() != file.resolve():
        place.unlink(missing_ok=True)
        place.symlink_to(file.resolve())
