"""The options of every command that answers: who answers, who guesses ahead, how words are chosen, and with what."""

from typing import Annotated

import typer

from edge_runtime.cli.completion import drafter_names, model_names
from edge_runtime.parts import DEFAULT_TARGET

__all__ = ["DrafterName", "Past", "TargetName", "Temperature", "Threads", "TopK", "TopP", "VerifierUrl"]

TargetName = Annotated[
    str | None,
    typer.Option(
        help="The model whose answers you want: a name or a path.",
        show_default=f"{DEFAULT_TARGET}, or the verifier's",
        autocompletion=model_names,
    ),
]
VerifierUrl = Annotated[str | None, typer.Option(help="Address of a verifier that runs the target.")]
DrafterName = Annotated[
    str,
    typer.Option(help="Who guesses ahead: auto, none, lookup, a model, or lookup+MODEL.", autocompletion=drafter_names),
]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
TopK = Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")]
TopP = Annotated[float, typer.Option(help="Keep the likeliest tokens that make up p.")]
Threads = Annotated[int, typer.Option(help="Threads of each model; 0 uses the physical cores.")]
Past = Annotated[bool, typer.Option("--past", help="Draft from what you asked and read before, as well.")]
