"""The command line's frame: registers the commands and turns every error into one line and an exit status."""

import importlib
import sys

import click
import typer
from typer.core import TyperGroup

from edge_runtime.cli.output import console
from outrider.errors import OutriderError

__all__ = ["app", "main"]

# Command -> module that holds a function of the same name. Imported when asked for: `outrider pull` loads no engine.
COMMANDS = ("generate", "verifier", "pull", "models", "export", "profile")


class LazyGroup(TyperGroup):
    """Imports a command's module only when the command is named (or the list of commands is shown)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"edge_runtime.cli.{cmd_name}")
        single = typer.Typer(add_completion=False)
        single.command(cmd_name)(getattr(module, cmd_name))
        command = typer.main.get_command(single)
        command.name = cmd_name
        return command


app = typer.Typer(cls=LazyGroup, add_completion=True, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def outrider() -> None:
    """Run a language model split over this device and a verifier: the target's exact output, sooner."""


def main() -> None:
    """Entry point of `outrider`. Exit status: 0 done, 1 failed, 2 asked wrongly, 130 interrupted."""
    try:
        app(standalone_mode=False)
    except OutriderError as error:
        console.print(f"outrider: {error} [{error.code}]", markup=False)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        console.print("outrider: interrupted [interrupted]", markup=False)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
