"""From a model's name to a verified folder on this disk.

Names come from cards and recipes that ship with the program, from what is in the store, and from paths. `find` looks
at this disk only; `pull` is what fetches. Knows the store's layout; knows neither how bytes travel (`download.py`,
`hub.py`) nor how a model is loaded.

    home()/
      NAME/              a pulled card or an exported recipe: manifest.json beside the model's files
      OWNER--REPO/       a pulled hub folder;  OWNER--REPO--FILE/ a single pulled GGUF file
      local/ID/          links to a model file or folder elsewhere, with a manifest of our own
"""

import difflib
import hashlib
import os
import re
from pathlib import Path

import platformdirs

from outrider.card import PLAIN_NAME, Card, card_files, checkout, load_card, toml_kind
from outrider.describe import describe_gguf
from outrider.errors import InvalidModel, NotHere, UnknownModel
from outrider.gguf_header import is_gguf
from outrider.install import HF_FILES, install_gguf, install_hf
from outrider.manifest import MANIFEST, ModelFolder, Source, file_sha256, load_folder
from outrider.progress import Progress, silent
from outrider.user_path import user_path

__all__ = [
    "cards",
    "describe_gguf",
    "find",
    "home",
    "install_gguf",
    "install_hf",
    "pull",
    "recipes",
    "store_folder",
    "stored",
]

HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95}){1,7}", re.ASCII)


def home() -> Path:
    """The store: OUTRIDER_HOME, else that of the checkout this runs from, else the user's data folder."""
    if chosen := os.environ.get("OUTRIDER_HOME"):
        return user_path(chosen)
    if (source := checkout()) is not None:
        return source / "models" / "store"
    return Path(platformdirs.user_data_dir("outrider", appauthor=False))


def cards() -> dict[str, Card]:
    """The models that `pull` knows by name."""
    loaded = [load_card(path) for path in card_files() if toml_kind(path) == "card"]
    return {card.name: card for card in loaded}


def recipes() -> dict[str, Path]:
    """The recipes that `export` knows, by name: the files' stems."""
    return {path.stem: path for path in card_files() if toml_kind(path) == "recipe"}


def store_folder(name: str) -> Path:
    """Where the model of that name lies, or would lie, in the store. Raises UnknownModel for no such name."""
    if not re.fullmatch(PLAIN_NAME, name) and not HUB_ID.fullmatch(name):
        raise UnknownModel(f"{name!r} is no model name; see `outrider models`")
    return home() / name.replace("/", "--")


def stored() -> dict[str, Path]:
    """The folders of the store by model name. A folder without a manifest is a fetch that was not finished."""
    return {path.parent.name.replace("--", "/"): path.parent for path in sorted(home().glob(f"*/{MANIFEST}"))}


def find(name: str) -> ModelFolder:
    """The model folder for a name or a path, looking at this disk alone.

    Raises UnknownModel, NotHere (known, with the command that brings it) or InvalidModel.
    """
    is_name = re.fullmatch(PLAIN_NAME, name) or HUB_ID.fullmatch(name)
    if is_name and (store_folder(name) / MANIFEST).exists():
        return _complete(load_folder(store_folder(name)))
    if is_name and name in cards():
        raise NotHere(f"{name} is not on this machine yet; run: outrider pull {name}")
    if is_name and name in recipes():
        raise NotHere(f"{name} has not been made on this machine yet; run: outrider export {name}")
    path = _existing_path(name)
    if path is not None:
        return _find_path(path)
    known = sorted({*cards(), *recipes(), *stored()})
    longer = [other for other in known if name and other.startswith(name)]
    near = list(dict.fromkeys([*longer, *difflib.get_close_matches(name, known, n=3, cutoff=0.4)]))[:4]
    hint = f"nearest: {', '.join(near)}" if near else "see `outrider models`"
    fetch = f"; a model of the hub is fetched with: outrider pull {name}" if HUB_ID.fullmatch(name) else ""
    raise UnknownModel(f"no model, recipe or path is called {name!r}; {hint}{fetch}")


def pull(name: str, progress: Progress = silent) -> ModelFolder:
    """Fetch a card's model, `owner/repo` or `owner/repo/file.gguf` of the hub; at once when it is here already.

    Raises UnknownModel, FetchError and its leaves, MissingExtra or InvalidModel.
    """
    from outrider.pull import pull_card, pull_hub  # pulls in the hub's library, which `find` can do without

    folder = store_folder(name)
    if (folder / MANIFEST).exists():
        return _complete(load_folder(folder))
    if name in cards():
        return pull_card(cards()[name], folder, progress)
    if name in recipes():
        raise NotHere(f"{name} is made on this machine, not fetched; run: outrider export {name}")
    if "/" in name:
        return pull_hub(name, folder, progress)
    return find(name)


def _complete(folder: ModelFolder) -> ModelFolder:
    for file in folder.manifest.files:
        if not (folder.path / file).is_file():
            raise InvalidModel(f"{folder.path} lacks {file}; remove the folder and pull or export {folder.name} again")
    return folder


def _existing_path(name: str) -> Path | None:
    try:
        path = user_path(name)
        return path if name and path.exists() else None
    except (OSError, ValueError):  # too long, a zero byte: no path of this disk
        return None


def _find_path(path: Path) -> ModelFolder:
    if (path / MANIFEST).exists():
        return _complete(load_folder(path))
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.is_file() and HF_FILES.fullmatch(file.name)]
        names = {file.name for file in files}
        weights = [file for file in names if file.endswith(".safetensors")]
        if not weights or not {"config.json", "tokenizer.json"} <= names:
            raise InvalidModel(
                f"{path} is no model folder: it has no {MANIFEST}, nor config.json, tokenizer.json and safetensors"
            )
        folder = _local_folder(files)
        if (folder / MANIFEST).exists():
            return _complete(load_folder(folder))
        return install_hf(files, folder, name=path.resolve().name, licence="unknown", source_name=str(path.resolve()))
    if not path.is_file() or not is_gguf(path):  # a pipe would be waited for
        raise InvalidModel(
            f"{path} is not a GGUF file; give a GGUF file, a model folder or a name of `outrider models`"
        )
    folder = _local_folder([path])
    if (folder / MANIFEST).exists():
        return _complete(load_folder(folder))
    source = Source(str(path.resolve()), file_sha256(path))
    return install_gguf(path, folder, name=path.stem, licence="unknown", source=source)


def _local_folder(files: list[Path]) -> Path:
    """Where links to `files` go; named by path, size and time, so that a file is hashed again only when it changed."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(f"{file.resolve()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return home() / "local" / digest.hexdigest()[:12]
