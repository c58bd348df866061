"""From a recipe to a finished model folder: source, conversion, trimming, manifest, report and profile.

The folder appears under its name when all its files are there, in one step. A source that is itself a recipe's result
is built first. Knows the order of the steps; each step lives in a module of its own.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from export.gguf import build_gguf
from export.onnx import MODEL_FILE, build_onnx
from export.recipe import Recipe, load_recipe
from export.report import make_report
from export.trim import EMBEDDINGS, ID_MAP, check_trim, trim
from outrider import catalog
from outrider.engines import EngineSettings, open_engine
from outrider.engines.profile import load_or_measure
from outrider.errors import DiskFull, InvalidModel, NotHere, UnknownModel, UsageError
from outrider.lock import one_process
from outrider.manifest import Manifest, ModelFolder, Source, file_sha256, load_folder, write_manifest
from outrider.progress import Progress

__all__ = ["build", "present"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def build(
    name: str,
    recipe: Recipe,
    destination: Path,
    progress: Progress,
    *,
    is_forced: bool = False,
    has_report: bool = True,
) -> ModelFolder:
    """The model folder `destination` as `recipe` says, built unless it is there already.

    Raises UsageError when something else lies at `destination`, and what the steps raise; then nothing has changed.
    """
    folder = None if is_forced else present(destination, recipe)
    if folder is None:
        refuse_foreign(destination)
        source = source_folder(recipe.source, progress, has_report=has_report)
        folder = make(name, recipe, source, destination, progress)
    if has_report and folder.manifest.report is None:
        report = make_report(folder, recipe.source, recipe.target, progress)
        folder = write_manifest(folder.path, msgspec.structs.replace(folder.manifest, report=report))
        settings = EngineSettings()
        with contextlib.closing(open_engine(folder, settings)) as engine:
            load_or_measure(folder, engine, settings, progress)
        folder = load_folder(folder.path)
    return folder


def present(destination: Path, recipe: Recipe) -> ModelFolder | None:
    """The result if it is there and was made by this recipe, of the source as it is now."""
    try:
        folder = load_folder(destination)
    except InvalidModel:
        return None
    manifest = folder.manifest
    is_complete = all((destination / file).is_file() for file in manifest.files)
    is_of_recipe = manifest.recipe == msgspec.to_builtins(recipe)
    return folder if is_complete and is_of_recipe and not source_changed(manifest, recipe) else None


def source_changed(manifest: Manifest, recipe: Recipe) -> bool:
    """Whether the source that lies on this disk is another than the one the result was made from."""
    try:
        return catalog.find(recipe.source).manifest.fingerprint != manifest.source.sha256
    except UsageError:  # not here any more, or not whole: the result stands without it
        return False


def refuse_foreign(destination: Path) -> None:
    """Only an earlier export, or an empty folder, may be replaced."""
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    try:
        is_export = load_folder(destination).manifest.recipe is not None
    except InvalidModel:
        is_export = False
    if not is_export:
        raise UsageError(f"{destination} holds something that is not an export; name another place with --output")


def source_folder(name: str, progress: Progress, *, has_report: bool) -> ModelFolder:
    """The source on this disk: another recipe's result is built if it is missing, a known model is fetched."""
    file = catalog.recipes().get(name)
    if file is not None:
        return build(name, load_recipe(file), catalog.home() / name, progress, has_report=has_report)
    try:
        return catalog.find(name)
    except NotHere:
        return catalog.pull(name, progress)
    except UnknownModel:
        if "/" not in name:  # not of the form that the hub names models by
            raise
        return catalog.pull(name, progress)


def make(name: str, recipe: Recipe, source: ModelFolder, destination: Path, progress: Progress) -> ModelFolder:
    """Build beside `destination`, then put it in place. What a run that was killed left there goes first."""
    temporary = destination.with_name(f".{destination.name}.building")
    taken = UsageError(f"another process makes {destination}; wait for its end, then run this again")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with one_process(temporary.with_suffix(".lock"), taken), emptied(temporary):
            result = convert(name, recipe, source, temporary, progress)
            if destination.exists():
                os.replace(destination, temporary / "replaced")
            os.replace(result.path, destination)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"no space is left beside {destination}; free some and run the same command again") from None
        raise UsageError(
            f"{destination} cannot be written ({error.strerror}); name another place with --output"
        ) from None
    return load_folder(destination)


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """`folder`, new and empty while this lasts."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def convert(name: str, recipe: Recipe, source: ModelFolder, temporary: Path, progress: Progress) -> ModelFolder:
    """The finished folder, still under `temporary`."""
    if recipe.quantization is None and source.manifest.format != recipe.format:
        raise UsageError(f"{source.name} is {source.manifest.format}, not {recipe.format}; give a quantization as well")
    if recipe.trim is not None:
        check_trim(source, recipe.trim.num_tokens, recipe.trim.corpus)
    full = temporary / "full"
    full.mkdir()
    file = MODEL_FILE if recipe.format == "onnx" else f"{name}.gguf"
    if recipe.quantization is None:
        model = source
    else:
        if recipe.format == "onnx":
            build_onnx(
                source, full, temporary / "work", recipe.quantization, recipe.builder, recipe.block_size, progress
            )
        else:
            build_gguf(source, full / file, temporary / "work", recipe.quantization, progress)
        copy_tokenizer(source.path, full)
        model = ModelFolder(full, describe(name, recipe, source, full, file, is_trimmed=False))
    if recipe.trim is None:
        return write_manifest(full, hashed(model.manifest, full, progress))
    trimmed = temporary / "trimmed"
    trimmed.mkdir()
    trim(model, trimmed, recipe.trim.num_tokens, recipe.trim.corpus, progress)
    copy_tokenizer(source.path, trimmed)
    manifest = describe(name, recipe, source, trimmed, model.manifest.file, is_trimmed=True)
    return write_manifest(trimmed, hashed(manifest, trimmed, progress))


def copy_tokenizer(source: Path, destination: Path) -> None:
    for file in TOKENIZER_FILES:
        if (source / file).is_file():
            shutil.copyfile(source / file, destination / file)


def describe(name: str, recipe: Recipe, source: ModelFolder, folder: Path, file: str, *, is_trimmed: bool) -> Manifest:
    """The source's manifest with what the export changed; the hashes come when all files are there."""
    return msgspec.structs.replace(
        source.manifest,
        name=name,
        format=recipe.format,
        file=file,
        files={},
        source=Source(source.name, source.manifest.fingerprint),
        id_map=ID_MAP if is_trimmed else None,
        embeddings=EMBEDDINGS if is_trimmed and recipe.format == "gguf" else None,
        recipe=msgspec.to_builtins(recipe),
        report=None,
        profiles={},
        timings={},
    )


def hashed(manifest: Manifest, folder: Path, progress: Progress) -> Manifest:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    hashes = {}
    for done, path in enumerate(files):
        progress("hash the files", done, len(files))
        hashes[path.name] = file_sha256(path)
    progress("hash the files", len(files), len(files))
    return msgspec.structs.replace(manifest, files=hashes)
