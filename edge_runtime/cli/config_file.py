"""Defaults of the user's own for options that many commands share: from a TOML file, and from the environment.

What is said on the command line wins over OUTRIDER_VERIFIER and its like, those win over the file, that over what the
commands have themselves. Knows the options' names and kinds; what values mean, the commands know.
"""

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edge_runtime.cli.access import TOKEN_VARIABLE
from outrider.errors import InvalidParameter
from outrider.user_path import user_path
from outrider.whole_file import write_whole

__all__ = ["FILE_VARIABLE", "OPTIONS", "Option", "Value", "change", "config_path", "defaults", "load", "parse"]

Value = str | int | float | bool
FILE_VARIABLE = "OUTRIDER_CONFIG"
ANSWERING = ("generate", "chat", "serve")
LINKED = (*ANSWERING, "sync", "tune", "doctor")


@dataclass(frozen=True, slots=True)
class Option:
    kind: type[str] | type[int] | type[float] | type[bool] | type[Path]
    meaning: str
    commands: tuple[str, ...]  # that take it


OPTIONS = {
    "verifier": Option(str, "address of a verifier", LINKED),
    "target": Option(str, "the model whose answers you want", (*ANSWERING, "tune", "doctor")),
    "drafter": Option(str, "who guesses ahead", (*ANSWERING, "doctor")),
    "tuned": Option(str, "a setting that tune kept: its name, auto or off", (*ANSWERING, "doctor")),
    "token_file": Option(Path, "file that holds the verifier's token", LINKED),
    "ca_file": Option(Path, "authority to trust, PEM", LINKED),
    "client_cert": Option(Path, "certificate and key to show the verifier, PEM", LINKED),
    "threads": Option(int, "threads of each model", (*ANSWERING, "verifier", "profile", "doctor")),
    "context": Option(int, "tokens that prompt and answer may have", (*ANSWERING, "verifier")),
    "max_tokens": Option(int, "tokens of an answer at most", ("generate", "chat")),
    "temperature": Option(float, "0 is greedy", ("generate", "chat")),
    "past": Option(bool, "draft from what you asked and read before", ("generate", "chat")),
}


def config_path() -> Path:
    """OUTRIDER_CONFIG, or config.toml in the user's configuration folder."""
    chosen = os.environ.get(FILE_VARIABLE)
    if chosen:
        return user_path(chosen)
    return Path(platformdirs.user_config_dir("outrider", appauthor=False)) / "config.toml"


def load() -> dict[str, Value]:
    """What the file says; nothing where there is none. Raises InvalidParameter. Paths are relative to the file."""
    path, found = config_path(), _raw()
    for key in found:
        if key not in OPTIONS:
            raise InvalidParameter(f"{path} sets {key!r}, which is no option; take it out: outrider config unset {key}")
    return {key: _checked(key, value, f"{key} in {path}") for key, value in found.items()}


def parse(key: str, text: str) -> Value:
    """A value as it is written on a command line. Raises InvalidParameter."""
    return _checked(key, _read(key, text), key)


def defaults() -> dict[str, dict[str, Value]]:
    """By command, then by option: what the file says, and the environment over it. Raises InvalidParameter."""
    folder = config_path().parent
    values = load()
    for key in OPTIONS:
        variable = f"OUTRIDER_{key.upper()}"
        if os.environ.get(variable):
            values[key] = _checked(key, _read(key, os.environ[variable]), variable)
            if OPTIONS[key].kind is Path:
                values[key] = str(user_path(str(values[key])).absolute())
    if os.environ.get(TOKEN_VARIABLE):
        values.pop("token_file", None)  # the environment's token wins over the file's
    found: dict[str, dict[str, Value]] = {}
    for key, value in values.items():
        if OPTIONS[key].kind is Path:
            value = str(folder / user_path(str(value)))
        for command in OPTIONS[key].commands:
            found.setdefault(command, {})[key] = value
    return found


def change(key: str, value: Value | None) -> None:
    """Set a value in the file, or, None, take it out. Other lines stay as they are. Raises InvalidParameter."""
    path, now = config_path(), _raw()
    if value is not None or key not in now:
        _option(key)
    wanted: dict[str, object] = {name: known for name, known in now.items() if name != key} | (
        {} if value is None else {key: value}
    )
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    at = next(
        (n for n, line in enumerate(lines) if re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line)), len(lines)
    )
    lines[at : at + 1] = [] if value is None else [_line(key, value)]
    text = "".join(f"{line}\n" for line in lines)
    if _loads(text) != wanted:  # a value that runs over lines
        raise InvalidParameter(f"{path} is written in a way that only you can change; edit it by hand")
    _write(path, text)


def _raw() -> dict[str, object]:
    path = config_path()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"{path} cannot be read as TOML ({error}); mend or remove it") from None


def _option(key: str) -> Option:
    if key not in OPTIONS:
        raise InvalidParameter(f"there is no option {key!r} to set; there are {', '.join(OPTIONS)}")
    return OPTIONS[key]


def _read(key: str, text: str) -> object:
    kind = _option(key).kind
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def _checked(key: str, value: object, where: str) -> Value:
    kind = _option(key).kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wanted = str if kind is Path else kind
    if not isinstance(value, wanted) or isinstance(value, bool) != (kind is bool):
        words = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "a text")
        raise InvalidParameter(f"{where} is {value!r}; give {words}")
    if isinstance(value, str) and not (value.strip() and value.isprintable()):
        raise InvalidParameter(f"{where} is {value!r}; give a text that can be printed")
    assert isinstance(value, Value)
    return value


def _line(key: str, value: Value) -> str:
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"


def _loads(text: str) -> dict[str, object] | None:
    try:
        return tomllib.loads(text)
    except ValueError:
        return None


def _write(path: Path, text: str) -> None:
    """In one step: readers see the old file or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise InvalidParameter(f"{path} cannot be written ({error.strerror}); set {FILE_VARIABLE}") from None
