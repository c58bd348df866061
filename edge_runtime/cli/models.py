"""`outrider models`: what can be pulled, what can be exported and what is here. Changes nothing."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edge_runtime.cli.output import print_json
from outrider import catalog
from outrider.errors import InvalidModel
from outrider.manifest import load_folder

__all__ = ["models"]


class Row(msgspec.Struct):
    name: str
    kind: str  # "card", "recipe" or "other": pulled from the hub or put there by hand
    state: str  # "here", "not here" or "broken"
    bytes: int | None = None
    licence: str | None = None
    path: str | None = None
    how: str | None = None  # the command that brings it


def models(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """List the models by name: what `pull` fetches, what `export` makes, and what is on this machine.

    Example: outrider models --json
    """
    rows = _rows()
    if json:
        print_json({"home": str(catalog.home()), "models": rows})
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("name", "kind", "size", "licence", "state"):
        table.add_column(column, justify="right" if column == "size" else "left", no_wrap=True)
    for row in rows:
        size = "" if row.bytes is None else f"{row.bytes / 1e6:,.0f} MB"
        table.add_row(row.name, row.kind, size, row.licence or "", row.state if row.how is None else row.how)
    output = Console(highlight=False, markup=False)
    if not output.is_terminal:
        output.width = 160
    output.print(table)
    output.print(f"\nmodels are kept in {catalog.home()}", soft_wrap=True)


def _rows() -> list[Row]:
    rows = {
        name: Row(name, "card", "not here", card.bytes, card.licence, how=f"outrider pull {name}")
        for name, card in catalog.cards().items()
    }
    rows |= {name: Row(name, "recipe", "not here", how=f"outrider export {name}") for name in catalog.recipes()}
    for name, folder in catalog.stored().items():
        row = rows.setdefault(name, Row(name, "other", "here"))
        _fill_in(row, folder)
    return list(rows.values())


def _fill_in(row: Row, folder: Path) -> None:
    row.path, row.how = str(folder), None
    try:
        manifest = load_folder(folder).manifest
        row.bytes = sum((folder / file).stat().st_size for file in manifest.files)
        row.licence, row.state = manifest.licence, "here"
    except (InvalidModel, OSError):
        row.state = "broken"
        row.how = f"broken; remove {folder} and make it again"
