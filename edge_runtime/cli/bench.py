"""`outrider bench`: what the program gives on this machine, measured. Suites measure, `show` draws again what was kept.

The measuring is in `benchmarks`; all of it but the options is imported when it is asked for.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.options import ExportOptions, LinkOptions, PairOptions, ServiceOptions, WireOptions
from benchmarks.prompts import Selection
from edge_runtime.cli.completion import model_names
from edge_runtime.cli.output import console, show_progress
from outrider.errors import InvalidParameter, MissingExtra
from outrider.progress import Progress

if TYPE_CHECKING:
    from benchmarks.record import Result

__all__ = ["COMMANDS"]

MOST = 1e6  # of any number in a list
MOST_DRAFTS = 256
RTTS = ",".join(f"{rtt_ms:g}" for rtt_ms in LinkOptions.rtts_ms)
SESSIONS = ",".join(map(str, ServiceOptions.sessions))
KINDS_OF = {
    "pair": ",".join(PairOptions.prompts.kinds),
    "link": ",".join(LinkOptions.prompts.kinds),
    "service": ",".join(ServiceOptions.prompts.kinds),
    "export": ",".join(ExportOptions.prompts.kinds),
}
LENGTHS = ",".join(map(str, WireOptions.lengths))

Json = Annotated[Path | None, typer.Option("--json", help="Keep every single run in this file.")]
Plots = Annotated[Path | None, typer.Option(help="Draw the figures into this folder, PNG and SVG.")]
Quick = Annotated[bool, typer.Option("--quick", help="One prompt of each kind, few tokens: does it run?")]
Prompts = Annotated[
    Path | None, typer.Option(help="Prompts of your own: a JSON object a line, `prompt` and, if you like, `kind`.")
]
Kinds = Annotated[str, typer.Option(help="Kinds of prompts: code, chat, translation, summary, edit.")]
Count = Annotated[int, typer.Option(min=1, help="Prompts of each kind.")]
MaxTokens = Annotated[int, typer.Option(min=2, help="Tokens of an answer at most.")]
Threads = Annotated[int, typer.Option(help="Threads of each model; 0 leaves the number to the machine.")]
Target = Annotated[str, typer.Option(help="The model whose answers you want.", autocompletion=model_names)]


def pair(
    target: Target = PairOptions.target,
    drafter: Annotated[
        list[str] | None,
        typer.Option(
            help="Who guesses ahead: lookup, auto or a model; repeatable.", show_default=", ".join(PairOptions.drafters)
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Another file of the target, run alone; repeatable.", show_default=", ".join(PairOptions.also)
        ),
    ] = None,
    peers: Annotated[
        str, typer.Option(help="Other programs: all, none, or beginnings of their names with commas.")
    ] = PairOptions.peers,
    kinds: Kinds = KINDS_OF["pair"],
    count: Count = PairOptions.prompts.count,
    prompts: Prompts = None,
    max_tokens: MaxTokens = PairOptions.max_tokens,
    threads: Threads = PairOptions.threads,
    quick: Quick = False,
    json: Json = None,
    plots: Plots = None,
) -> None:
    """Both models on this machine: the target alone, with each drafter, and other programs, on the same prompts.

    Example: outrider bench pair --count 4 --json pair.json
    """
    from benchmarks import pair as suite
    from benchmarks.peers import all_peers, published, this_machine

    is_default = target == PairOptions.target
    options = PairOptions(
        target=target,
        drafters=tuple(drafter) if drafter else PairOptions.drafters if is_default else ("lookup",),
        also=tuple(also) if also else PairOptions.also if is_default else (),
        prompts=chosen(kinds, count, prompts),
        max_tokens=max_tokens,
        threads=threads,
        peers=peers,
    )
    options = options.quick() if quick else options
    # They read the default target's weights: with another target they would answer in another vocabulary.
    others = all_peers(machine=this_machine(threads)) if is_default and peers != "none" else []
    tell(lambda progress: suite.run(options, command(), others, published() if others else (), progress), json, plots)


def link(
    target: Target = LinkOptions.target,
    drafter: Annotated[
        str, typer.Option(help="Who guesses ahead: auto, lookup or a model.", autocompletion=model_names)
    ] = LinkOptions.drafter,
    rtt: Annotated[str, typer.Option(help="Round trips in milliseconds, with commas.")] = RTTS,
    kbit: Annotated[float, typer.Option(min=0, help="Kilobits a second each way; 0 sets no limit.")] = (
        LinkOptions.kbit_per_s
    ),
    kinds: Kinds = KINDS_OF["link"],
    count: Count = LinkOptions.prompts.count,
    prompts: Prompts = None,
    max_tokens: MaxTokens = LinkOptions.max_tokens,
    threads: Threads = LinkOptions.threads,
    quick: Quick = False,
    json: Json = None,
    plots: Plots = None,
) -> None:
    """Device and verifier apart: four ways to the same tokens over a link of known round trip and bandwidth.

    With --target counting no model is loaded: does it run?

    Example: outrider bench link --rtt 0,50,300 --json link.json
    """
    with needing_more():
        from benchmarks import link as suite

    options = LinkOptions(
        target=target,
        drafter=drafter,
        rtts_ms=numbers(rtt, "--rtt", least=0.0),
        kbit_per_s=kbit,
        prompts=chosen(kinds, count, prompts),
        max_tokens=max_tokens,
        threads=threads,
    )
    tell(lambda progress: suite.run(options.quick() if quick else options, command(), progress), json, plots)


def service(
    target: Target = ServiceOptions.target,
    drafter: Annotated[
        str, typer.Option(help="Who guesses ahead on the devices.", autocompletion=model_names)
    ] = ServiceOptions.drafter,
    sessions: Annotated[str, typer.Option(help="Devices at once, with commas.")] = SESSIONS,
    streams: Annotated[int, typer.Option(min=1, help="Devices at once of the run without a model.")] = (
        ServiceOptions.num_streams
    ),
    kinds: Kinds = KINDS_OF["service"],
    count: Count = ServiceOptions.prompts.count,
    prompts: Prompts = None,
    max_tokens: MaxTokens = ServiceOptions.max_tokens,
    threads: Threads = ServiceOptions.threads,
    quick: Quick = False,
    json: Json = None,
    plots: Plots = None,
) -> None:
    """Many devices on one verifier: what drafts save it, how many it can serve, what the service itself costs.

    With --target counting no model is loaded: does it run?

    Example: outrider bench service --sessions 1,8 --json service.json
    """
    with needing_more():
        from benchmarks import service as suite

    options = ServiceOptions(
        target=target,
        drafter=drafter,
        sessions=tuple(int(number) for number in numbers(sessions, "--sessions", least=1.0)),
        num_streams=streams,
        prompts=chosen(kinds, count, prompts),
        max_tokens=max_tokens,
        threads=threads,
    )
    tell(lambda progress: suite.run(options.quick() if quick else options, command(), progress), json, plots)


def export(
    target: Target = ExportOptions.target,
    drafter: Annotated[
        list[str] | None, typer.Option(help="A drafter to compare; repeatable.", show_default="all that may do")
    ] = None,
    kinds: Kinds = KINDS_OF["export"],
    count: Count = ExportOptions.prompts.count,
    prompts: Prompts = None,
    max_tokens: MaxTokens = ExportOptions.max_tokens,
    threads: Threads = ExportOptions.threads,
    quick: Quick = False,
    json: Json = None,
    plots: Plots = None,
) -> None:
    """The drafters of the store side by side: how near to the target, how fast, how large.

    Example: outrider bench export --count 2
    """
    from benchmarks import export as suite

    options = ExportOptions(
        target=target,
        drafters=tuple(drafter or ()),
        prompts=chosen(kinds, count, prompts),
        max_tokens=max_tokens,
        threads=threads,
    )
    tell(lambda progress: suite.run(options.quick() if quick else options, command(), progress), json, plots)


def wire(
    lengths: Annotated[str, typer.Option(help="Drafts a turn, with commas.")] = LENGTHS,
    max_tokens: MaxTokens = WireOptions.num_tokens,
    quick: Quick = False,
    json: Json = None,
    plots: Plots = None,
) -> None:
    """Bytes of the real protocol over a real socket, by draft length, with padding and without. Needs no model.

    Example: outrider bench wire
    """
    with needing_more():
        from benchmarks import wire as suite

    chosen_lengths = tuple(int(number) for number in numbers(lengths, "--lengths", least=0.0, most=MOST_DRAFTS))
    options = WireOptions(num_tokens=max_tokens, lengths=chosen_lengths)
    tell(lambda progress: suite.run(options.quick() if quick else options, command(), progress), json, plots)


def show(
    file: Annotated[Path, typer.Argument(help="What `--json` kept.")],
    plots: Plots = None,
) -> None:
    """Make the tables, and the figures, of what was measured before. Measures nothing.

    Example: outrider bench show pair.json --plots figures
    """
    from benchmarks.record import load

    result = load(file)
    try:
        print_result(result, plots)
    except (LookupError, TypeError, ValueError) as error:  # a file that somebody changed
        raise InvalidParameter(f"{file} does not hold together ({error!r}); measure again") from None


@contextmanager
def needing_more() -> Iterator[None]:
    """Names the extra, where a suite needs what the base does not bring."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(f'this suite needs {error.name}; run: pip install "outrider[bench]"') from None


def tell(measure: "Callable[[Progress], Result]", json: Path | None, plots: Path | None) -> None:
    """Measure, keep, show. Ends with status 1 where tokens of ours were not as they must be."""
    if json is not None and not json.parent.is_dir():  # said now, not when it is done
        raise InvalidParameter(f"there is no folder {json.parent}; make it, or give another file")
    with show_progress() as progress:
        result = measure(progress)
    if json is not None:
        from benchmarks.record import save

        save(result, json)
    print_result(result, plots)


def print_result(result: "Result", plots: Path | None) -> None:
    from benchmarks.tables import lines

    sys.stdout.write("\n".join(lines(result)) + "\n")
    if plots is not None:
        from benchmarks.plots import draw

        for path in draw(result, plots):
            console.print(f"drawn: {path}", markup=False)
    if not result.is_exact:
        raise typer.Exit(1)


def command() -> list[str]:
    return ["outrider", *sys.argv[1:]]


def chosen(kinds: str, count: int, file: Path | None) -> Selection:
    names = tuple(kind.strip() for kind in kinds.split(",") if kind.strip())
    if not names:
        raise InvalidParameter("--kinds names none; give one or more, with commas")
    return Selection(names, count, file)


def numbers(text: str, option: str, *, least: float, most: float = MOST) -> tuple[float, ...]:
    """Numbers with commas. Raises InvalidParameter."""
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not all(least <= number <= most for number in found) or not found:
        raise InvalidParameter(
            f"{option} {text!r} is no list of numbers from {least:g} to {most:g}; give some, with commas"
        )
    return found


COMMANDS = {
    "pair": pair,
    "link": link,
    "service": service,
    "export": export,
    "wire": wire,
    "show": show,
}
