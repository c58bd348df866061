"""Suite `fleet` as tables: devices a verifier serves, round trips, what a fleet costs."""

from collections.abc import Iterator

from benchmarks.fleet_record import MANY, NAMES, ONE, Crossings, Details, Fleet
from benchmarks.record import Result
from benchmarks.round_trips import LEAST_GAIN, MOST_MS
from benchmarks.tables.common import table

__all__ = ["lines"]

SECONDS_A_MONTH = 730 * 3600


def lines(result: Result) -> Iterator[str]:
    details = Details.read(result.details)
    machine = details.machine
    yield f"Simulated, not measured. {machine.name}: {machine.about}."
    kinds = ", ".join(f"{each.name} {each.acceptance:.3g} in runs of {each.mean_run:g}" for each in details.kinds)
    yield f"Agreement of the drafter: {kinds}. A draft on the device takes {machine.draft_ms:g} ms."
    if details.served:
        yield from _served(result, details)
    if details.crossings:
        yield from _by_rtt(result)
        yield ""
        yield from map(_crossed, details.crossings)
    if details.fleets:
        yield from _fleets(result, details)


def _served(result: Result, details: Details) -> Iterator[str]:
    rtt_ms, rates = result.settings["rtt_ms"], result.settings["rates"]
    yield f"\nDevices that one verifier serves at a rate, nine in ten at least; RTT {rtt_ms:g} ms.\n"
    most = max(run.num_sessions or 0 for run in result.select(prompt=MANY))
    cells: dict[str, list[str]] = {}
    for each in details.served:
        count = f"{most} or more" if each.num_devices is None else str(each.num_devices or "-")
        cells.setdefault(f"{each.kind}, {NAMES[each.way]}", []).append(count)
    yield from table(["", *(f"{rate:g} tokens/s" for rate in rates)], ([name, *row] for name, row in cells.items()))


def _by_rtt(result: Result) -> Iterator[str]:
    yield "\nTokens/s of one device that has the verifier to itself.\n"
    runs = result.select(prompt=ONE)
    cells: dict[str, list[str]] = {}
    for run in runs:
        cells.setdefault(f"{run.kind}, {run.way}", []).append(f"{run.more['rate']:.1f}")
    rtts_ms = dict.fromkeys(run.rtt_ms for run in runs)
    yield from table(["", *(f"RTT {rtt_ms:g} ms" for rtt_ms in rtts_ms)], ([name, *row] for name, row in cells.items()))


def _crossed(each: Crossings) -> str:
    return (
        f"On {each.kind} drafting ahead is faster than a drafter beside the target {_until(each.ahead_of_beside_ms)}, "
        f"and {LEAST_GAIN:.0%} faster than streaming {_until(each.ahead_of_alone_ms)}; in turns it is so "
        f"{_until(each.turns_of_alone_ms)}."
    )


def _until(rtt_ms: float | None) -> str:
    if rtt_ms is None:
        return "at no round trip"
    return f"up to {rtt_ms:.0f} ms" if rtt_ms < MOST_MS else "up to a second"


def _fleets(result: Result, details: Details) -> Iterator[str]:
    settings, hour = result.settings, details.prices.verifier_hour
    yield (
        f"\n{settings['num_devices']} devices, {100 * settings['activity']:g}% of them active at once, around the "
        f"clock, each at {settings['rate']:g} tokens/s; {hour.price:g} a verifier hour ({hour.source}, {hour.date}).\n"
    )
    header = ["", "verifiers", "for a million tokens", "a month", "of it traffic", "bytes a token up, down"]
    tokens_a_month = settings["num_devices"] * settings["activity"] * settings["rate"] * SECONDS_A_MONTH
    yield from table(header, (_row(each, tokens_a_month) for each in details.fleets))
    for each in details.fleets:
        if each.check is not None:
            yield (
                f"\nChecked, {each.kind}, {NAMES[each.way]}: of {each.check.num_devices} devices, simulated with "
                f"prompts of {settings['prompt_tokens']} tokens, {each.check.share_served:.1%} got their rate; the "
                f"verifiers were busy for {each.check.busy:.0%} of the time."
            )


def _row(each: Fleet, tokens_a_month: float) -> list[str]:
    name = f"{each.kind}, {NAMES[each.way]}"
    if each.cost is None:
        return [name, "cannot give this rate", "-", "-", "-", "-"]
    return [
        name,
        str(each.num_verifiers),
        f"{each.cost.money:.2f}",
        f"{each.cost.money / 1e6 * tokens_a_month:,.0f}",
        f"{each.cost.traffic / each.cost.money:.1%}" if each.cost.money else "-",
        f"{each.bytes_up:.0f}, {each.bytes_down:.0f}",
    ]
