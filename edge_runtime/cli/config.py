"""`outrider config`: the user's own defaults. Shows and changes the file; what it means is in `config_file.py`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.cli.config_file import OPTIONS, Value, change, config_path, load, parse
from edge_runtime.cli.output import console, print_json
from outrider.user_path import user_path

__all__ = ["COMMANDS"]

Key = Annotated[
    str,
    typer.Argument(
        help=f"One of {', '.join(OPTIONS)}.",
        autocompletion=lambda incomplete: [key for key in OPTIONS if key.startswith(incomplete)],
    ),
]


def show(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Show what the file sets, and what may be set.

    Example: outrider config show
    """
    values = load()
    if json:
        print_json({"file": str(config_path()), "values": values})
        return
    for key, value in values.items():
        sys.stdout.write(f"{key} = {_told(value)}\n")
    head = f"in {config_path()}; also" if values else f"nothing is set in {config_path()};"
    console.print(f"{head} to be set:", style="dim")
    for key, option in OPTIONS.items():
        if key not in values:
            console.print(f"  {key:<12} {option.meaning}", style="dim")


def path() -> None:
    """Say where the file is, or would be.

    Example: outrider config path
    """
    sys.stdout.write(f"{config_path()}\n")


def set_value(key: Key, value: Annotated[str, typer.Argument(help="Its value; a path is kept whole.")]) -> None:
    """Set a default for every command that has such an option.

    Example: outrider config set verifier https://verifier.example:8700
    """
    parsed = parse(key, value)
    _check(key, parsed)
    if OPTIONS[key].kind is Path:
        parsed = str(user_path(value).absolute())
    change(key, parsed)
    console.print(f"{key} is {_told(parsed)} from now on, in {config_path()}")


def unset(key: Key) -> None:
    """Forget a default. Safe for one that is not set.

    Example: outrider config unset verifier
    """
    change(key, None)
    console.print(f"{key} is not set in {config_path()}")


def _told(value: Value) -> str:
    """As it is given on a command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check(key: str, value: Value) -> None:
    """Raises InvalidParameter for what no command would take. Imports what knows it, and that alone."""
    if key == "verifier":
        from edge_runtime.links import WebSocketLink

        WebSocketLink(str(value))
    elif key in ("threads", "context"):
        from outrider.engines import EngineSettings

        EngineSettings(num_threads=int(value)) if key == "threads" else EngineSettings(max_context=int(value))
    elif key == "max_tokens":
        from edge_runtime.options import check_request

        check_request("-", max_tokens=int(value))
    elif key == "temperature":
        from outrider.choice import SamplingParams

        SamplingParams(temperature=float(value))


COMMANDS = {"show": show, "path": path, "set": set_value, "unset": unset}
