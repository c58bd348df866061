"""The option `--tuned` of every command that answers, and what it comes to. See `outrider tune`."""

from typing import Annotated

import typer

from edge_runtime.cli.output import console
from edge_runtime.tuning.stored import Tuned, choose_for

__all__ = ["TunedOption", "find_tuned"]

TunedOption = Annotated[str, typer.Option(help="A setting that `tune` kept: its name, auto for one that fits, or off.")]


def find_tuned(how: str, *, target: str | None, verifier: str | None, drafter: str, threads: int) -> Tuned | None:
    """The setting to use, told in a line, or why one is not. Raises what `choose_for` does."""
    tuned, notice = choose_for(how, target=target, verifier=verifier, drafter=drafter, threads=threads)
    if notice:
        console.print(f"outrider: {notice}")
    elif tuned is not None:
        console.print(f"tuned: {tuned.name}", style="dim")
    return tuned
