"""`outrider export`: make a drafter or a target by recipe, or from any model with options. Converts nothing itself."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_runtime.cli.completion import model_names
from edge_runtime.cli.output import console, print_json, show_progress
from export.build import build, present
from export.recipe import Recipe, load_recipe, make_recipe
from outrider import catalog
from outrider.errors import InvalidParameter
from outrider.manifest import ModelFolder
from outrider.user_path import user_path

__all__ = ["export"]


def export(
    name: Annotated[
        str,
        typer.Argument(
            help="A recipe, or a model: a name, OWNER/REPO of the hub, a GGUF file or a folder.",
            autocompletion=model_names,
        ),
    ],
    format: Annotated[str | None, typer.Option(help="onnx or gguf.", show_default="onnx")] = None,
    quantization: Annotated[
        str | None, typer.Option(help="onnx: int4, int8. gguf: q4_0, q4_1, q4_k_m, q5_k_m, q6_k, q8_0, f16.")
    ] = None,
    builder: Annotated[
        str | None, typer.Option(help="onnx: fused (faster) or general.", show_default="fused where it can")
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(
            help="onnx: weights that share a scale; fewer are closer to the source, and slower.", show_default="128"
        ),
    ] = None,
    trim: Annotated[int | None, typer.Option(help="Keep only so many tokens in the output, for a drafter.")] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="Text that says which tokens to keep; may be repeated.", show_default="stdlib"),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The model to compare with in the report.")] = None,
    output: Annotated[Path | None, typer.Option(help="The folder to make.", show_default="in the store")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Measure nothing: no report, no profile.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Build again although the result is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of sentences.")] = False,
) -> None:
    """Make a model folder: GGUF or ONNX, quantized, with a trimmed vocabulary if wanted, and a quality report.

    Example: outrider export qwen2.5-coder-0.5b-onnx-trim
    """
    options = {
        "format": format,
        "quantization": quantization,
        "builder": builder,
        "block_size": block_size,
        "trim": trim,
        "corpus": corpus,
        "target": target,
    }
    result_name, recipe = named_recipe(name, options) or from_options(name, options)
    destination = user_path(output or catalog.home() / result_name)
    is_here = not force and present(destination, recipe) is not None
    with show_progress() as progress:
        folder = build(result_name, recipe, destination, progress, is_forced=force, has_report=not no_report)
    if json:
        print_json(facts(folder, is_here=is_here))
        return
    console.print(f"{folder.name} {'was here already' if is_here else 'is made'}: {folder.path}")
    for line in report_lines(folder.manifest.report or {}):
        console.print(f"  {line}")


def named_recipe(name: str, options: dict[str, Any]) -> tuple[str, Recipe] | None:
    """The recipe of that name or file, if there is one. Its words are complete: options beside it are refused."""
    is_file = name.endswith(".toml")
    file = Path(name) if is_file else catalog.recipes().get(name)
    if file is None:
        return None
    given = [f"--{key.replace('_', '-')}" for key, value in options.items() if value not in (None, [])]
    if given:
        raise InvalidParameter(f"{name} is a recipe and says all of that itself; leave out {', '.join(given)}")
    return file.stem, load_recipe(file)


def from_options(name: str, options: dict[str, Any]) -> tuple[str, Recipe]:
    """A recipe from the options, and a name for its result that tells results apart."""
    recipe = make_recipe(name, **options)
    base = user_path(name)
    stem = base.stem if base.suffix == ".gguf" else base.name if base.exists() else name
    trimmed = f"trim{recipe.trim.num_tokens}" if recipe.trim else None
    blocks = f"block{recipe.block_size}" if recipe.block_size else None
    words = [stem, recipe.format, recipe.quantization, recipe.builder, blocks, trimmed]
    return re.sub(r"[^\w.-]+", "--", "-".join(word for word in words if word)).lstrip("-."), recipe


def facts(folder: ModelFolder, *, is_here: bool) -> dict[str, Any]:
    manifest = folder.manifest
    return {
        "name": folder.name,
        "path": str(folder.path),
        "built": not is_here,
        "format": manifest.format,
        "fingerprint": manifest.fingerprint,
        "recipe": manifest.recipe,
        "report": manifest.report,
    }


def report_lines(report: dict[str, Any]) -> list[str]:
    """The report in words, a line a comparison."""
    lines = []
    if report:
        lines.append(f"{report['size_bytes'] / 1e6:,.0f} MB, {report['ms_per_token']} ms a token")
    for role in ("source", "target"):
        part = report.get(role)
        if part and "skipped" in part:
            lines.append(f"{role} {part['name']}: not compared: {part['skipped']}")
        elif part:
            passes = ", ".join(f"{value} with {drafts} drafts" for drafts, value in part["tokens_per_pass"].items())
            lines.append(
                f"{role} {part['name']}: agreement {part['agreement']:.3f}, KL {part['kl']:.4f}, tokens a pass {passes}"
            )
    return lines
