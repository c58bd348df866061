"""What a model folder says about itself: `manifest.json`, beside the model's files.

Written once by a download or an export; `profile` adds measurements of this machine later. Holds facts only: it opens
no model and fetches nothing.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

from outrider.errors import InvalidModel
from outrider.whole_file import write_whole

__all__ = ["Manifest", "ModelFolder", "Profile", "Source", "file_sha256", "load_folder", "write_manifest"]

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the weights came from, and the hash of the file (or of the folder's files) they came from."""

    name: str
    sha256: str


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured of one engine on one machine. See `outrider.engines.profile`."""

    engine: str
    machine: str
    num_threads: int
    context: int  # positions in the cache while measuring
    cost_ms: dict[int, float]  # tokens in a pass -> milliseconds, median
    classes: list[list[int]]  # chunk sizes whose logits and cache agree in every bit
    batch_exact: bool  # a sequence's bits do not depend on the others in its pass


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    format: Literal["gguf", "onnx", "hf"]
    architecture: str  # as the source names it: "qwen2", "llama", ...
    file: str  # the model file, relative to the folder; for "hf" the folder itself, "."
    files: dict[str, str]  # every file the model needs -> sha256
    source: Source
    licence: str
    n_vocab: int  # width of the source's logits: ids below it may be fed
    max_context: int
    stop_ids: list[int]
    tokenizer_fingerprint: str  # equal fingerprints: equal text for every id
    id_map: str | None = None  # trimmed vocabulary: an .npy of int32, logits column -> token id
    embeddings: str | None = None  # trimmed GGUF: an .npy of float16, the full input embeddings
    recipe: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
    profiles: dict[str, Profile] = {}
    timings: dict[str, dict[int, float]] = {}  # by machine: milliseconds of passes, where no profile was wanted

    @property
    def fingerprint(self) -> str:
        """Names the weights: the hash of all file hashes. Two folders with equal files have equal fingerprints."""
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


class ModelFolder(msgspec.Struct, frozen=True):
    """A folder on this disk and what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def model_file(self) -> Path:
        return self.path / self.manifest.file


def load_folder(path: Path) -> ModelFolder:
    """The model folder at `path`. Raises InvalidModel when there is no readable manifest, or it names what lies
    elsewhere."""
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise InvalidModel(f"{path} holds no {MANIFEST}; pull or export the model again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidModel(f"{path / MANIFEST} cannot be read ({error}); pull or export the model again") from None
    for name in (manifest.file, manifest.id_map or ".", manifest.embeddings or ".", *manifest.files):
        if name == ".." or any(sign in name for sign in "/\\\0"):
            raise InvalidModel(
                f"{path / MANIFEST} names {name!r}, no file of its folder; pull or export the model again"
            )
    return ModelFolder(path, manifest)


def write_manifest(path: Path, manifest: Manifest) -> ModelFolder:
    """Write `manifest.json` in one step: readers see the old one or the new one, never half."""
    write_whole(path / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2), 0o644)
    return ModelFolder(path, manifest)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
