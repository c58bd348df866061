"""The command line's frame: registers the commands and turns every error into one line and an exit status.

Exit status: 0 done, 1 failed, 2 asked wrongly, 130 interrupted.
"""

import functools
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edge_runtime.cli.config_file import OPTIONS, defaults
from edge_runtime.cli.output import console
from outrider.errors import OutriderError

__all__ = ["app", "run"]

# Each is a function in the module of its name, imported when it is asked for: `outrider pull` loads no engine.
COMMANDS = ("generate", "chat", "serve", "sync", "verifier", "pull", "models", "export", "profile", "tune", "doctor")
OF_VERIFIERS = ("token_file", "ca_file", "client_cert")  # options
# Each is a group of functions, `COMMANDS` of its module. Of two words the first alone is a command too.
GROUPS = {
    "bench": "Measure what this program gives on this machine, beside what others give.",
    "config": "Set defaults of your own for the options that commands share.",
    "receipt": "Check what a verifier signed.",
    "verifier token": "Add, list and revoke the tokens that let devices use a verifier.",
}


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every error that a person can meet told in one line."""

    @functools.wraps(command)
    def told(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except OutriderError as error:
            console.print(f"outrider: {error} [{error.code}]")
            raise typer.Exit(error.exit_status) from None
        except OSError as error:
            tell_refused(error)
            raise typer.Exit(1) from None

    return told


@functools.cache
def built(name: str) -> Any:
    """The command or group of a name, from its module."""
    module = importlib.import_module(f"edge_runtime.cli.{name.replace(' ', '_')}")
    options: Any = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": "rich"}
    if name in GROUPS:
        found = typer.Typer(name=name, help=GROUPS[name], no_args_is_help=True, **options)
        for each, command in module.COMMANDS.items():
            found.command(each)(guarded(command))
        return typer.main.get_group(found)  # a group even of one
    found = typer.Typer(**options)
    found.command(name, cls=ConfiguredCommand)(guarded(getattr(module, name)))
    return typer.main.get_command(found)


def tell_refused(error: OSError) -> None:
    """What the system would not do, most often write the output. What was not written then is thrown away."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        console.print("outrider: the output was closed [closed_pipe]")
        return
    what = error.filename or "a file or the output"
    console.print(
        f"outrider: {what} cannot be used ({error.strerror or error}); mend that and ask again [system_error]",
    )


class LazyGroup(TyperGroup):
    """Imports a command's module only when the command is named (or the list of commands is shown)."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in (*COMMANDS, *GROUPS):
            return None
        return built(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Two words that name a group are one name: `outrider verifier token` is not the verifier of a model."""
        if " ".join(args[:2]) in GROUPS:
            args = [" ".join(args[:2]), *args[2:]]
        return super().resolve_command(ctx, args)


class ConfiguredCommand(TyperCommand):
    """A command whose options may have defaults of the user's own."""

    def invoke(self, ctx: Any) -> Any:
        """What was kept for verifiers is nothing where none is asked, and one's token is not shown to another."""
        sources = {name: ctx.get_parameter_source(name) for name in ("verifier", *OF_VERIFIERS)}
        kept = {name for name, source in sources.items() if source is not None and source.name == "DEFAULT_MAP"}
        for name in kept.intersection(OF_VERIFIERS):
            if ctx.params.get("verifier") is None or (name == "token_file" and "verifier" not in kept):
                ctx.params[name] = None
        return super().invoke(ctx)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")


def show_version(is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"outrider {importlib.metadata.version('outrider')}\n")
        raise typer.Exit


@app.callback()
@guarded
def outrider(
    ctx: typer.Context,
    no_config: Annotated[bool, typer.Option("--no-config", help="Leave the defaults of `config` out.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run a language model split over this device and a verifier: the target's exact output, sooner.

    The target is the big model whose answers you want, here or at a verifier.
    The drafter is a small one on this device that guesses ahead of it.

    Begin with: outrider doctor
    """
    name = ctx.invoked_subcommand
    if no_config or not any(name in option.commands for option in OPTIONS.values()):
        return
    try:
        ctx.default_map = defaults()
    except OutriderError:
        if name != "doctor" and "--help" not in sys.argv:  # the doctor tells it in its own words
            raise


def run() -> None:
    """What was asked for on the command line, until it ends in an exit status."""
    try:
        app()
    except OSError as error:  # outside of commands: a page of help that found no room
        tell_refused(error)
        sys.exit(1)
