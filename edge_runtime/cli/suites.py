"""What suites of `outrider bench` have in common: the options that many take, and what becomes of a result.

Knows no suite. Options have the names and the defaults of the suite's own (`benchmarks/options.py`).
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from benchmarks.options import SuiteOptions
from benchmarks.prompts import Selection
from edge_runtime.cli.completion import model_names
from edge_runtime.cli.output import console, show_progress
from outrider.errors import InvalidParameter, MissingExtra

if TYPE_CHECKING:
    from benchmarks.record import Result

__all__ = ["Asked", "Plots", "Prepared", "numbers", "print_result", "suite", "words"]

MOST = 1e6  # of any number in a list
Options = TypeVar("Options", bound=SuiteOptions)
Number = TypeVar("Number", int, float)

Plots = Annotated[Path | None, typer.Option(help="Draw the figures into this folder, PNG and SVG.")]
# Of suites whose options have a field of this name,
BY_FIELD: dict[str, Any] = {
    "target": Annotated[str, typer.Option(help="The model whose answers you want.", autocompletion=model_names)],
    "max_tokens": Annotated[int, typer.Option(min=2, help="Tokens of an answer at most.")],
    "threads": Annotated[int, typer.Option(help="Threads of each model; 0 leaves the number to the machine.")],
}
# of those that ask a selection of prompts,
OF_PROMPTS: dict[str, Any] = {
    "kinds": Annotated[str, typer.Option(help="Kinds of prompts: code, chat, translation, summary, edit.")],
    "count": Annotated[int, typer.Option(min=1, help="Prompts of each kind.")],
    "prompts": Annotated[
        Path | None, typer.Option(help="Prompts of your own: a JSON object a line, `prompt` and, if you like, `kind`.")
    ],
}
# and of all.
OF_ALL: dict[str, Any] = {
    "quick": Annotated[bool, typer.Option("--quick", help="As little as there can be: does it run?")],
    "json": Annotated[Path | None, typer.Option("--json", help="Keep every single run in this file.")],
    "plots": Plots,
}


@dataclass(frozen=True)
class Asked(Generic[Options]):
    """What a suite was asked for by the options that it shares with others; the rest of `options` are defaults."""

    options: Options
    json: Path | None

    def keep(self, result: "Result") -> None:
        if self.json is not None:
            from benchmarks.record import save

            save(result, self.json)


# What measures, given options, the command line and `progress`; and which options.
Prepared = tuple[Callable[..., "Result"], SuiteOptions]


def suite(options: type[SuiteOptions]) -> Callable[[Callable[..., Prepared]], Callable[..., None]]:
    """Makes a command that measures of what `prepare` says: what measures, and with which options.

    `prepare` is given `Asked` and the options that are the suite's own. The command ends with status 1 where tokens of
    ours were not as they must be.
    """
    shared = _shared(options)

    def command_of(prepare: Callable[..., Prepared]) -> Callable[..., None]:
        @functools.wraps(prepare)
        def command(*, quick: bool, json: Path | None, plots: Path | None, **given: Any) -> None:
            if json is not None and not json.parent.is_dir():  # said now, not when it is done
                raise InvalidParameter(f"there is no folder {json.parent}; make it, or give another file")
            common = {name: given.pop(name) for name in BY_FIELD if name in shared}
            if "prompts" in shared:
                kinds, count, file = (given.pop(name) for name in OF_PROMPTS)
                common["prompts"] = Selection(words(kinds, "--kinds"), count, file)
            asked = Asked(options(**common), json)
            with _needing_more():
                measure, wanted = prepare(asked, **given)
            with show_progress() as progress:
                result = measure(wanted.quick() if quick else wanted, ["outrider", *sys.argv[1:]], progress=progress)
            asked.keep(result)
            print_result(result, plots)

        _, *own = inspect.signature(prepare).parameters.values()
        named = shared | {each.name: each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own}
        in_order = sorted(named.values(), key=lambda each: (each.name != "target", each.name in shared))
        command.__signature__ = inspect.Signature(in_order)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in in_order}
        return command

    return command_of


def _shared(options: type[SuiteOptions]) -> dict[str, inspect.Parameter]:
    """By name, in the order of the help. Defaults are the suite's."""
    found: dict[str, tuple[Any, Any]] = {}
    if isinstance(selection := getattr(options, "prompts", None), Selection):
        told = (",".join(selection.kinds), selection.count, selection.file)
        found |= {name: (OF_PROMPTS[name], value) for name, value in zip(OF_PROMPTS, told, strict=True)}
    found |= {name: (each, getattr(options, name)) for name, each in BY_FIELD.items() if hasattr(options, name)}
    found |= {name: (each, False if name == "quick" else None) for name, each in OF_ALL.items()}
    return {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in found.items()
    }


@contextmanager
def _needing_more() -> Iterator[None]:
    """Names the extra, where a suite needs what the base does not bring."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(f'this suite needs {error.name}; run: pip install "outrider[bench]"') from None


def print_result(result: "Result", plots: Path | None) -> None:
    from benchmarks.tables import lines

    sys.stdout.write("\n".join(lines(result)) + "\n")
    if plots is not None:
        from benchmarks.plots import draw

        for path in draw(result, plots):
            console.print(f"drawn: {path}")
    if not result.is_exact:
        raise typer.Exit(1)


def words(text: str, option: str) -> tuple[str, ...]:
    """Words with commas, one at least, each once. Raises InvalidParameter."""
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found:
        raise InvalidParameter(f"{option} names none; give one or more, with commas")
    return found


def numbers(text: str, option: str, kind: type[Number], *, least: float, most: float = MOST) -> tuple[Number, ...]:
    """Numbers with commas, whole ones for `int`, each once. Raises InvalidParameter."""
    try:
        found = tuple(dict.fromkeys(kind(word) for word in text.split(",")))
    except ValueError:
        found = ()
    if not all(least <= number <= most for number in found) or not found:
        what = "whole numbers" if kind is int else "numbers"
        raise InvalidParameter(
            f"{option} {text!r} is no list of {what} from {least:g} to {most:g}; give some, with commas"
        )
    return found
