"""`outrider profile`: what passes of a model cost on this machine, and which sizes agree in every bit."""

from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edge_runtime.cli.completion import model_names
from edge_runtime.cli.output import print_json, show_progress
from outrider import catalog
from outrider.engines import EngineSettings, open_engine
from outrider.engines.base import PROVIDERS
from outrider.engines.fastest import fastest
from outrider.engines.profile import choose_class, load_or_measure
from outrider.manifest import Profile

__all__ = ["profile"]

SHOWN = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32)


def profile(
    name: Annotated[str, typer.Argument(help="A model's name or path.", autocompletion=model_names)],
    threads: Annotated[int, typer.Option(help="Threads; 0 leaves the number to the machine.")] = 0,
    provider: Annotated[str, typer.Option(help=f"{', '.join(PROVIDERS)}; auto is what a target takes.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Measure anew, even if a profile is stored.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Measure a model on this machine: the cost of a pass, and the sizes whose logits agree in every bit.

    The result is kept with the model and shown again at once.

    Example: outrider profile smollm2-135m-instruct
    """
    folder = catalog.find(name)
    with show_progress() as progress:
        settings = fastest(folder, EngineSettings(num_threads=threads, provider=provider), progress)
        with closing(open_engine(folder, settings)) as engine:
            found = load_or_measure(folder, engine, settings, progress, force=force)
    if json:
        print_json({"name": folder.name, "profile": found, "exact_sizes": choose_class(found)})
        return
    _show(folder.name, found)


def _show(name: str, found: Profile) -> None:
    output = Console(highlight=False, markup=False)
    output.print(f"{name}: {found.machine}; {found.context} tokens of context", soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("tokens in a pass", "ms", "ms a token", "of one"):
        table.add_column(column, justify="right")
    for size in SHOWN:
        if size in found.cost_ms:
            cost = found.cost_ms[size]
            table.add_row(str(size), f"{cost:.1f}", f"{cost / size:.1f}", f"{cost / found.cost_ms[1]:.2f}x")
    output.print(table)
    chosen = choose_class(found)
    output.print("sizes that agree in every bit:")
    for sizes in found.classes:
        mark = "  <- used for exact output" if sorted(sizes) == chosen else ""
        output.print(f"  {{{', '.join(map(str, sizes))}}}{mark}", soft_wrap=True)
    if not found.classes:
        output.print("  none")
