"""The models of the store, and whether the engines run them: the smallest of each format makes one pass."""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge_runtime.checkup.child import run_child
from edge_runtime.checkup.finding import Finding
from edge_runtime.parts import DEFAULT_DRAFTER
from outrider import catalog
from outrider.engines import BACKENDS, Chunk, EngineSettings, open_engine
from outrider.errors import InvalidModel, OutriderError
from outrider.manifest import ModelFolder, load_folder

__all__ = ["check_engines", "check_models", "how", "main", "num_bytes"]

TRIED = 4  # tokens in the pass


class Tried(msgspec.Struct):
    engine: str = ""
    error: str = ""
    is_model_s: bool = False  # the files' fault, not the engine's


def check_models() -> Iterator[Finding]:
    whole, num = _whole(), 0
    for name, found in whole.items():
        if isinstance(found, ModelFolder):
            num += 1
        else:
            yield Finding("models", "broken", f"{name}: {found}", _remake(name))
    if num:
        names = ", ".join(name for name, found in whole.items() if isinstance(found, ModelFolder))
        yield Finding("models", "ok", f"{num} here: {names}")
    else:
        yield Finding("models", "note", "none is on this machine yet", "outrider models")
    if num and not isinstance(whole.get(DEFAULT_DRAFTER), ModelFolder):
        detail = f"the default drafter {DEFAULT_DRAFTER} is not here; drafts come from the text alone"
        yield Finding("models", "note", detail, how(DEFAULT_DRAFTER))


def check_engines() -> Iterator[Finding]:
    """One for each format that a stored model has."""
    found = [folder for folder in _whole().values() if isinstance(folder, ModelFolder)]
    for kind in sorted({folder.manifest.format for folder in found}):
        folder = min((one for one in found if one.manifest.format == kind), key=num_bytes)
        lines, end = run_child(__name__, str(folder.path))
        tried = msgspec.json.decode(lines[-1], type=Tried) if lines and not end else Tried(error=end or "said nothing")
        if tried.error:
            again = f'pip install --force-reinstall "outrider[{BACKENDS[kind][2]}]"'
            fix = _remake(folder.name) if tried.is_model_s else again
            yield Finding(f"engine {kind}", "broken", f"{folder.name} does not run: {tried.error}", fix)
        else:
            yield Finding(f"engine {kind}", "ok", f"{tried.engine} runs {folder.name}")


def num_bytes(folder: ModelFolder) -> int:
    """Of the model's files; what it takes in memory is about that."""
    return sum((folder.path / file).stat().st_size for file in folder.manifest.files)


def _whole() -> dict[str, ModelFolder | OutriderError]:
    found: dict[str, ModelFolder | OutriderError] = {}
    for name in catalog.stored():
        try:
            found[name] = catalog.find(name)
        except OutriderError as error:
            found[name] = error
    return found


def how(name: str) -> str:
    """The command that brings it."""
    if name in catalog.recipes():
        return f"outrider export {name}"
    return f"outrider pull {name}" if name in catalog.cards() or "/" in name else ""


def _remake(name: str) -> str:
    """The command that makes it anew; "" where nobody knows how."""
    path, again = catalog.stored().get(name), how(name)
    return f"rm -r '{path}' && {again}" if path and again else ""


def _try(path: Path) -> Tried:
    try:
        engine = open_engine(load_folder(path), EngineSettings(max_context=64))
        try:
            engine.extend([Chunk(engine.allocate(), [0] * TRIED)])
            return Tried(engine=engine.name)
        finally:
            engine.close()
    except OutriderError as error:
        return Tried(error=str(error), is_model_s=isinstance(error, InvalidModel))


def main() -> None:
    """In a process of its own: run the model in the folder named on the command line."""
    print(msgspec.json.encode(_try(Path(sys.argv[1]))).decode(), flush=True)
