"""Fetches a model and makes it a folder of the store: a card's model, a hub repository, one GGUF file of a repository.

Of a repository only configuration, tokenizer and safetensors weights are taken: nothing pickled, no code. Knows the
folder it is given, not where the store is.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from outrider.card import Card
from outrider.download import fetch_card
from outrider.errors import FetchError, InvalidModel, UnknownModel
from outrider.hub import RemoteFile, Repository, fetch_file, read_repository
from outrider.install import HF_FILES, install_gguf, install_hf
from outrider.lock import one_process
from outrider.manifest import ModelFolder, Source, file_sha256
from outrider.part_file import disk_errors
from outrider.progress import Progress

__all__ = ["pull_card", "pull_hub"]


def pull_card(card: Card, folder: Path, progress: Progress) -> ModelFolder:
    """The card's model in `folder`. Raises FetchError and its leaves, MissingExtra or InvalidModel."""
    with _alone(folder):
        return _pull_card(card, folder, progress)


def pull_hub(name: str, folder: Path, progress: Progress) -> ModelFolder:
    """`owner/repo` or `owner/repo/path/file.gguf` in `folder`. Raises FetchError, UnknownModel or InvalidModel."""
    with _alone(folder):
        return _pull_hub(name, folder, progress)


def _pull_card(card: Card, folder: Path, progress: Progress) -> ModelFolder:
    target = folder / card.file
    if not target.is_file() or file_sha256(target) != card.sha256:
        fetch_card(card, target, _partial(folder), progress)
    stage = f"read the vocabulary of {card.name}"
    progress(stage, 0, 1)
    source = Source(card.name, card.sha256)
    installed = install_gguf(target, folder, name=card.name, licence=card.licence, source=source)
    progress(stage, 1, 1)
    return installed


def _pull_hub(name: str, folder: Path, progress: Progress) -> ModelFolder:
    owner, repo, *rest = name.split("/")
    repository = read_repository(f"{owner}/{repo}")
    files = _one_file(repository, "/".join(rest)) if rest else _model_files(repository)
    partial = _partial(folder)
    targets = [folder / Path(file.path).name for file in files]
    hashes = [
        fetch_file(
            repository.name, repository.revision, file, target, partial, progress, stage=f"download {target.name}"
        )
        for file, target in zip(files, targets, strict=True)
        if not target.is_file() or file.sha256 != file_sha256(target)
    ]
    shutil.rmtree(partial, ignore_errors=True)
    where = f"{name}@{repository.revision}"
    if rest:
        source = Source(where, hashes[0] if hashes else file_sha256(targets[0]))
        return install_gguf(targets[0], folder, name=name, licence=repository.licence, source=source)
    return install_hf(targets, folder, name=name, licence=repository.licence, source_name=where)


def _one_file(repository: Repository, path: str) -> list[RemoteFile]:
    found = [file for file in repository.files if file.path == path]
    if not found or not path.endswith(".gguf"):
        raise UnknownModel(f"{repository.name} has no GGUF file {path}; it has: {_gguf_names(repository)}")
    return found


def _model_files(repository: Repository) -> list[RemoteFile]:
    files = [file for file in repository.files if HF_FILES.fullmatch(file.path)]
    names = {file.path for file in files}
    if not any(name.endswith(".safetensors") for name in names):
        raise InvalidModel(
            f"{repository.name} has no safetensors weights, and other kinds are not loaded; "
            f"name one of its GGUF files as {repository.name}/FILE: {_gguf_names(repository)}"
        )
    if not {"config.json", "tokenizer.json"} <= names:
        raise InvalidModel(f"{repository.name} lacks config.json or tokenizer.json; pull another model")
    return files


def _gguf_names(repository: Repository) -> str:
    return ", ".join(file.path for file in repository.files if file.path.endswith(".gguf")) or "none"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of several processes that fetch the same one goes on: they would write one file. Raises FetchError."""
    path = _partial(folder).with_name(f"{folder.name}.lock")
    taken = FetchError(f"another process fetches {folder.name}; wait for its end, then run this again")
    with contextlib.ExitStack() as held:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(one_process(path, taken))
        yield


def _partial(folder: Path) -> Path:
    return folder.parent / "partial" / folder.name
