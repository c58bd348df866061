"""The option `--tuned` of every command that answers, and what it comes to. See `outrider tune`."""

from typing import Annotated

import typer

from edge_runtime.cli.output import console
from edge_runtime.parts import DEFAULT_TARGET
from edge_runtime.tuning.stored import AUTO, OFF, Tuned, choose
from outrider import catalog

__all__ = ["TunedOption", "find_tuned"]

TunedOption = Annotated[str, typer.Option(help="A setting that `tune` kept: its name, auto for one that fits, or off.")]


def find_tuned(how: str, *, target: str | None, verifier: str | None, drafter: str, threads: int) -> Tuned | None:
    """The setting to use, told in a line, or why a named one is not. A drafter or threads that were chosen by hand
    leave it out. Raises what `find` does for the target."""
    if drafter != "auto" or threads:
        if how not in (AUTO, OFF):
            console.print(f"outrider: {how} is not used beside --drafter or --threads", markup=False)
        return None
    is_here = verifier is None or target is not None
    fingerprint = catalog.find(target or DEFAULT_TARGET).manifest.fingerprint if is_here else ""
    tuned, notice = choose(how, target=fingerprint, verifier=verifier or "")
    if notice:
        console.print(f"outrider: {notice}", markup=False)
    elif tuned is not None:
        console.print(f"tuned: {tuned.name}", markup=False, style="dim")
    return tuned
