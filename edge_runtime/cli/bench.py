"""`outrider bench`: what the program gives on this machine, measured. Suites measure, `show` draws again what was kept.

The measuring is in `benchmarks`; all of it but the options is imported when it is asked for. Here is what each suite is
asked that others are not.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.options import (
    ExportOptions,
    FleetOptions,
    LinkOptions,
    PairOptions,
    ServiceOptions,
    TypingOptions,
    WireOptions,
)
from edge_runtime.cli.asking import DrafterName
from edge_runtime.cli.completion import drafter_names
from edge_runtime.cli.suites import Asked, Plots, Prepared, numbers, print_result, suite, words
from outrider.errors import InvalidParameter

__all__ = ["COMMANDS"]

MOST_DRAFTS = 256


def listed(values: tuple[Any, ...]) -> str:
    """As they are given."""
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


@suite(PairOptions)
def pair(
    asked: Asked[PairOptions],
    drafter: Annotated[
        list[str] | None,
        typer.Option(
            help="Who guesses ahead: auto, lookup, a model, or lookup+MODEL; repeatable.",
            show_default=", ".join(PairOptions.drafters),
            autocompletion=drafter_names,
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
) -> Prepared:
    """Both models on this machine: the target alone, with each drafter, and other programs, on the same prompts.

    Example: outrider bench pair --count 4 --json pair.json
    """
    from benchmarks.pair import run
    from benchmarks.peers.known import all_peers, this_machine
    from benchmarks.peers.published import published

    is_default = asked.options.target == PairOptions.target
    options = replace(
        asked.options,
        drafters=tuple(dict.fromkeys(drafter)) if drafter else PairOptions.drafters if is_default else ("lookup",),
        also=tuple(dict.fromkeys(also)) if also else PairOptions.also if is_default else (),
        peers=peers,
    )
    # They read the default target's weights: with another target they would answer in another vocabulary.
    others = all_peers(machine=this_machine(options.threads)) if is_default and peers != "none" else []
    return partial(run, peers=others, published=published() if others else (), keep=asked.keep), options


@suite(LinkOptions)
def link(
    asked: Asked[LinkOptions],
    drafter: DrafterName = LinkOptions.drafter,
    rtt: Annotated[str, typer.Option(help="Round trips in milliseconds, with commas.")] = listed(LinkOptions.rtts_ms),
    kbit: Annotated[float, typer.Option(min=0, help="Kilobits a second each way; 0 sets no limit.")] = (
        LinkOptions.kbit_per_s
    ),
) -> Prepared:
    """Device and verifier apart: four ways to the same tokens over a link of known round trip and bandwidth.

    With --target counting no model is loaded: does it run?

    Example: outrider bench link --rtt 0,50,300 --json link.json
    """
    from benchmarks.link import run

    rtts_ms = numbers(rtt, "--rtt", float, least=0)
    return run, replace(asked.options, drafter=drafter, rtts_ms=rtts_ms, kbit_per_s=kbit)


@suite(ServiceOptions)
def service(
    asked: Asked[ServiceOptions],
    drafter: DrafterName = ServiceOptions.drafter,
    sessions: Annotated[str, typer.Option(help="Devices at once, with commas.")] = listed(ServiceOptions.sessions),
    streams: Annotated[int, typer.Option(min=1, help="Devices at once of the run without a model.")] = (
        ServiceOptions.num_streams
    ),
) -> Prepared:
    """Many devices on one verifier: what drafts save it, how many it can serve, what the service itself costs.

    With --target counting no model is loaded: does it run?

    Example: outrider bench service --sessions 1,8 --json service.json
    """
    from benchmarks.service import run

    at_once = numbers(sessions, "--sessions", int, least=1)
    return run, replace(asked.options, drafter=drafter, sessions=at_once, num_streams=streams)


@suite(ExportOptions)
def export(
    asked: Asked[ExportOptions],
    drafter: Annotated[
        list[str] | None, typer.Option(help="A drafter to compare; repeatable.", show_default="all that may do")
    ] = None,
) -> Prepared:
    """The drafters of the store side by side: how near to the target, how fast, how large.

    Example: outrider bench export --count 2
    """
    from benchmarks.export import run

    return run, replace(asked.options, drafters=tuple(dict.fromkeys(drafter or ())))


@suite(WireOptions)
def wire(
    asked: Asked[WireOptions],
    lengths: Annotated[str, typer.Option(help="Drafts a turn, with commas.")] = listed(WireOptions.lengths),
    max_tokens: Annotated[int, typer.Option(min=2, help="Tokens of an answer.")] = WireOptions.num_tokens,
) -> Prepared:
    """Bytes of the real protocol over a real socket, by draft length, with padding and without. Needs no model.

    Example: outrider bench wire
    """
    from benchmarks.wire import run

    chosen = numbers(lengths, "--lengths", int, least=0, most=MOST_DRAFTS)
    return run, replace(asked.options, num_tokens=max_tokens, lengths=chosen)


@suite(TypingOptions)
def typing(
    asked: Asked[TypingOptions],
    drafter: DrafterName = TypingOptions.drafter,
) -> Prepared:
    """A recorded typing session against the endpoint for editors: how soon a line is suggested to who types.

    Example: outrider bench typing --json typing.json
    """
    from benchmarks.typing import run

    return run, replace(asked.options, drafter=drafter)


@suite(FleetOptions)
def fleet(
    asked: Asked[FleetOptions],
    engine: Annotated[
        str, typer.Option(help="What passes cost: core, xeon-core, h100-7b, h200-32b, a .json file, or a stored model.")
    ] = FleetOptions.engine,
    parts: Annotated[str, typer.Option(help="Which questions: capacity, rtt, cost.")] = listed(FleetOptions.parts),
    kinds: Annotated[str, typer.Option(help="Kinds of text: code, chat.")] = listed(FleetOptions.kinds),
    rates: Annotated[str, typer.Option(help="Tokens/s for which devices are counted.")] = listed(FleetOptions.rates),
    rtt: Annotated[float, typer.Option(min=0, help="Round trip of capacity and cost, in milliseconds.")] = (
        FleetOptions.rtt_ms
    ),
    most: Annotated[
        int, typer.Option(min=0, max=1024, help="Devices on one verifier at most; 0: as many as it has sequences.")
    ] = FleetOptions.most_devices,
    devices: Annotated[int, typer.Option(min=1, help="Devices of the fleet.")] = FleetOptions.num_devices,
    activity: Annotated[float, typer.Option(max=1, help="The share of them that generate at once.")] = (
        FleetOptions.activity
    ),
    rate: Annotated[float, typer.Option(help="Tokens/s that each of them gets.")] = FleetOptions.rate,
    answer_tokens: Annotated[int, typer.Option(min=2, max=4096, help="Tokens of an answer in the fleet.")] = (
        FleetOptions.answer_tokens
    ),
    prompt_tokens: Annotated[
        int, typer.Option(min=1, max=65536, help="Tokens of a prompt, which the verifier reads.")
    ] = (FleetOptions.prompt_tokens),
    prices: Annotated[
        Path | None, typer.Option(help="A list of prices.", show_default="benchmarks/prices.toml")
    ] = None,
    verifier_hour: Annotated[
        float | None, typer.Option(help="What an hour of a verifier costs.", show_default="the list's")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the texts, and of when devices ask.")] = FleetOptions.seed,
) -> Prepared:
    """Beyond this machine, simulated: devices a verifier serves, round trips at which drafting pays, a fleet's cost.

    Example: outrider bench fleet --engine core --rates 2,5,10
    """
    from benchmarks.fleet import run

    for option, value in (("--activity", activity), ("--rate", rate), ("--verifier-hour", verifier_hour)):
        if value is not None and not value > 0:
            raise InvalidParameter(f"{option} is {value:g}; give a number above 0")
    options = replace(
        asked.options,
        engine=engine,
        parts=words(parts, "--parts"),
        kinds=words(kinds, "--kinds"),
        rates=numbers(rates, "--rates", float, least=0.001),
        rtt_ms=rtt,
        most_devices=most,
        num_devices=devices,
        activity=activity,
        rate=rate,
        answer_tokens=answer_tokens,
        prompt_tokens=prompt_tokens,
        prices=prices,
        verifier_hour=verifier_hour,
        seed=seed,
    )
    return run, options


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


COMMANDS = {
    "pair": pair,
    "link": link,
    "service": service,
    "export": export,
    "wire": wire,
    "typing": typing,
    "fleet": fleet,
    "show": show,
}
