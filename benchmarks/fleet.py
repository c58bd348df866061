"""What this machine cannot measure: many devices on one verifier, long links, ten thousand devices. Simulated.

    python -m benchmarks.fleet --machine h200-32b

Three questions: how many devices a verifier serves at a rate; up to which round trip drafting on the device pays,
against a drafter beside the target and against streaming; what a fleet costs. The verifier's and the devices' rules are
the product's own, on a simulated clock (`simulated_verifier.py`, `simulation.py`); passes take what the machine's curve
says (`machines.py`), and texts agree as real ones were found to (`loads.py`).
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.cost import PRICES, Counts, cost, read_prices
from benchmarks.loads import KINDS, WAYS, Kind, Load, Way, capacity, make_devices, measure
from benchmarks.machines import Machine, built_in, find_machine
from benchmarks.simulation import Link, play
from outrider.errors import OutriderError

__all__ = ["parser", "run", "tables"]

NAMES = {"alone": "target alone", "beside": "beside the target", "turns": "device, in turns", "ahead": "ahead (ours)"}
PARTS = ("capacity", "rtt", "cost")
RTTS_MS = (0.0, 14.0, 50.0, 100.0, 300.0)
LEAST_GAIN = 0.02  # over streaming, below which drafting does not pay
RARE = 2.33  # standard deviations: more are active at once in a hundredth of the time
SECONDS_A_MONTH = 730 * 3600


def parser() -> argparse.ArgumentParser:
    known = ", ".join(machine.name for machine in built_in())
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--machine", default="h200-32b", help=f"{known}, a .json file, or a stored model's profile")
    found.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="which of the questions to answer")
    found.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of text")
    found.add_argument("--rates", type=_positive, nargs="+", default=[10.0, 20.0, 40.0], help="tokens/s of a device")
    found.add_argument("--rtt", type=_positive, default=30.0, help="round trip of capacity and cost, in milliseconds")
    found.add_argument(
        "--tokens", type=int, default=1000, help="of one device's answer, where round trips are compared"
    )
    found.add_argument("--most", type=int, default=0, help="devices on one verifier at most (default: its sequences)")
    found.add_argument("--devices", type=int, default=10_000, help="of the fleet")
    found.add_argument("--activity", type=_positive, default=0.05, help="share of them that generate at once")
    found.add_argument("--rate", type=_positive, default=20.0, help="tokens/s that each of the fleet's gets")
    found.add_argument("--answer", type=int, default=64, help="tokens of an answer in the fleet")
    found.add_argument("--prompt", type=int, default=256, help="tokens of a prompt in the fleet, read by the verifier")
    found.add_argument("--prices", type=Path, default=PRICES, help="a list like benchmarks/prices.toml")
    found.add_argument("--verifier-hour", type=_positive, help="the price of a verifier's hour, instead of the list's")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--json", type=Path, help="keep every single figure")
    return found


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Answers as plain data, from which `tables` are made. Raises InvalidParameter, and what `find_machine` does."""
    machine = find_machine(options.machine)
    prices = read_prices(options.prices)
    if options.verifier_hour:
        own = msgspec.structs.replace(prices.verifier_hour, price=options.verifier_hour, source="as given")
        prices = msgspec.structs.replace(prices, verifier_hour=own)
    kinds = [KINDS[name] for name in options.kinds]
    record: dict[str, Any] = {
        "suite": "fleet",
        "is_simulated": True,
        "machine": msgspec.to_builtins(machine),
        "kinds": msgspec.to_builtins(kinds),
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
    }
    curves = {}
    if {"capacity", "cost"} & set(options.parts):
        curves = _curves(machine, kinds, options.rtt, options.most or machine.max_sequences, options.seed)
        record["loads"] = [msgspec.to_builtins(load) for curve in curves.values() for load in curve]
        record["capacity"] = [
            {"kind": kind, "way": way, "rate": rate, "num_devices": _or_none(capacity(curve, rate))}
            for (kind, way), curve in curves.items()
            for rate in options.rates
        ]
    if "rtt" in options.parts:
        record["rtt"] = [_by_rtt(machine, kind, options.tokens, options.seed) for kind in kinds]
    if "cost" in options.parts:
        record["prices"] = msgspec.to_builtins(prices)
        record["fleet"] = [
            _fleet(machine, kind, way, curves[kind.name, way], options) for kind in kinds for way in WAYS
        ]
        for fleet in filter(lambda fleet: fleet["num_verifiers"], record["fleet"]):
            hour = Counts(
                num_tokens=round(options.devices * options.activity * options.rate * 3600),
                verifier_ms=fleet["num_verifiers"] * 3.6e6,
                bytes_up=round(fleet["bytes_up"] * options.devices * options.activity * options.rate * 3600),
                bytes_down=round(fleet["bytes_down"] * options.devices * options.activity * options.rate * 3600),
            )
            fleet["cost"] = {**msgspec.to_builtins(cost(hour, prices)), "money": cost(hour, prices).money}
    return record


def _or_none(count: float) -> int | None:
    return None if count == math.inf else int(count)


def _told(words: str) -> None:
    print(words, file=sys.stderr)


def _curves(
    machine: Machine, kinds: Sequence[Kind], rtt_ms: float, most: int, seed: int
) -> dict[tuple[str, Way], list[Load]]:
    """By kind and way: loads of 1, 2, 4, ... devices."""
    sizes = sorted({min(2**power, most) for power in range(most.bit_length() + 1)})
    curves: dict[tuple[str, Way], list[Load]] = {}
    for kind in kinds:
        for way in WAYS:
            _told(f"{kind.name}, {NAMES[way]}: up to {most} devices")
            curves[kind.name, way] = [measure(machine, way, kind, size, rtt_ms, seed=seed) for size in sizes]
    return curves


def _by_rtt(machine: Machine, kind: Kind, num_tokens: int, seed: int) -> dict[str, Any]:
    """One device at several round trips, and where the lines cross."""

    def rate(way: Way, rtt_ms: float) -> float:
        return measure(machine, way, kind, 1, rtt_ms, num_tokens=num_tokens, seed=seed).rate

    _told(f"{kind.name}: round trips")
    alone, beside = rate("alone", 0.0), rate("beside", 0.0)
    return {
        "kind": kind.name,
        "rates": {way: {f"{rtt_ms:g}": rate(way, rtt_ms) for rtt_ms in RTTS_MS} for way in WAYS},
        "ahead_of_beside_ms": _last(lambda rtt_ms: rate("ahead", rtt_ms) >= beside),
        "ahead_of_alone_ms": _last(lambda rtt_ms: rate("ahead", rtt_ms) >= (1 + LEAST_GAIN) * alone),
        "turns_of_alone_ms": _last(lambda rtt_ms: rate("turns", rtt_ms) >= (1 + LEAST_GAIN) * alone),
    }


def _last(pays: Callable[[float], bool], most: float = 1000.0) -> float | None:
    """The longest round trip, to a millisecond, at which it pays; None where it never does, infinite counts as most."""
    if not pays(0.0):
        return None
    if pays(most):
        return most
    low, high = 0.0, most
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (middle, high) if pays(middle) else (low, middle)
    return low


def _fleet(
    machine: Machine, kind: Kind, way: Way, curve: Sequence[Load], options: argparse.Namespace
) -> dict[str, Any]:
    """How many verifiers, so that in 99 % of the time no more devices are active on one than it can serve. Ours is
    checked: every device of the fleet asks once."""
    served = _served(machine, min(capacity(curve, options.rate), curve[-1].num_devices), options)
    if served < 1:
        return {"kind": kind.name, "way": way, "num_verifiers": 0}
    active = ((math.sqrt(RARE**2 + 4 * served) - RARE) / 2) ** 2  # m + RARE sqrt(m) = served
    num_verifiers = math.ceil(options.devices * options.activity / active)
    near = min(curve, key=lambda load: abs(load.num_devices - served))
    found = {
        "kind": kind.name,
        "way": way,
        "num_verifiers": num_verifiers,
        "bytes_up": near.bytes_up,
        "bytes_down": near.bytes_down,
    }
    if way == "ahead":
        found["check"] = check_fleet(machine, kind, way, num_verifiers, served, options)
    return found


def _served(machine: Machine, decoding: float, options: argparse.Namespace) -> float:
    """Devices that are served at once where each answer begins with a prompt: the verifier's time goes to both."""
    if decoding < 1:
        return 0.0
    batch = min(int(decoding), machine.max_batch)
    prompt_ms = machine.verify(batch, batch + options.prompt) - machine.verify(batch, batch)
    answers_a_ms: float = options.rate / options.answer / 1000
    return 1 / (1 / decoding + prompt_ms * answers_a_ms)


def check_fleet(
    machine: Machine, kind: Kind, way: Way, num_verifiers: int, served: float, options: argparse.Namespace
) -> dict[str, float]:
    """Every device asks once, at a random moment, so that the share of them that is active is as wanted."""
    _told(f"{kind.name}, {NAMES[way]}: {options.devices} devices on {num_verifiers} verifiers")
    rng = random.Random(options.seed)  # noqa: S311
    window_ms = 1000 * options.answer / options.rate / options.activity
    rates: list[float] = []
    busy_ms = elapsed_ms = 0.0
    for number in range(num_verifiers):
        count = len(range(number, options.devices, num_verifiers))
        asks_ms = [rng.uniform(0, window_ms) for _ in range(count)]
        devices, verifier, _ = make_devices(
            machine,
            way,
            kind,
            asks_ms,
            options.rtt,
            num_active=max(1, int(served)),
            num_tokens=options.answer,
            num_prompt=options.prompt,
            seed=options.seed + number,
        )
        play(devices, verifier, Link(options.rtt), seed=number)
        traces = [device.result.trace for device in devices]
        rates += [1000 * (options.answer - trace[0][1]) / ((trace[-1][0] - trace[0][0]) or 1.0) for trace in traces]
        busy_ms += verifier.busy_ms
        elapsed_ms += max(trace[-1][0] for trace in traces)
    return {
        "num_devices": len(rates),
        "share_served": sum(rate >= options.rate for rate in rates) / len(rates),
        "busy": busy_ms / elapsed_ms,
    }


def tables(record: dict[str, Any]) -> str:
    """What `run` found, as Markdown."""
    machine, options = record["machine"], record["options"]
    lines = [f"Simulated, not measured. {machine['name']}: {machine['about']}."]
    kinds = ", ".join(
        f"{each['name']} {each['acceptance']:.3g} in runs of {each['mean_run']:g}" for each in record["kinds"]
    )
    lines += [f"Agreement of the drafter: {kinds}. A draft on the device takes {machine['draft_ms']:g} ms."]
    if "capacity" in record:
        lines += [
            "",
            f"Devices that one verifier serves at a rate, nine in ten at least; RTT {options['rtt']:g} ms.",
            "",
        ]
        lines += _table("", (f"{rate:g} tokens/s" for rate in options["rates"]), _capacity_rows(record))
    if "rtt" in record:
        lines += ["", "Tokens/s of one device that has the verifier to itself.", ""]
        rows = [
            (f"{each['kind']}, {NAMES[way]}", [f"{rate:.1f}" for rate in each["rates"][way].values()])
            for each in record["rtt"]
            for way in WAYS
        ]
        lines += [*_table("", (f"RTT {rtt_ms:g} ms" for rtt_ms in RTTS_MS), rows), ""]
        lines += [_crossings(each) for each in record["rtt"]]
    if "fleet" in record:
        hour = record["prices"]["verifier_hour"]
        lines += [
            "",
            f"{options['devices']} devices, {options['activity']:.0%} of them active at once, around the clock, each "
            f"at {options['rate']:g} tokens/s; {hour['price']:g} a verifier hour ({hour['source']}, {hour['date']}).",
            "",
        ]
        heads = ("verifiers", "for a million tokens", "a month", "of it traffic", "bytes a token up, down")
        lines += _table("", heads, [_fleet_row(each, options) for each in record["fleet"]])
        for each in record["fleet"]:
            if "check" in each:
                check = each["check"]
                lines += [
                    "",
                    f"Checked, {each['kind']}, {NAMES[each['way']]}: of all {check['num_devices']} devices, simulated "
                    f"with prompts of {options['prompt']} tokens, {check['share_served']:.1%} got their rate; the "
                    f"verifiers were busy for {check['busy']:.0%} of the time.",
                ]
    return "\n".join(lines)


def _table(corner: str, heads: Iterable[str], rows: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    heads = list(heads)
    lines = [f"| {corner} | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    return lines + [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows]


def _capacity_rows(record: dict[str, Any]) -> list[tuple[str, list[str]]]:
    most = max(load["num_devices"] for load in record["loads"])
    cells: dict[str, list[str]] = {}
    for each in record["capacity"]:
        count = each["num_devices"]
        cells.setdefault(f"{each['kind']}, {NAMES[each['way']]}", []).append(
            f"{most} or more" if count is None else str(count) if count else "-"
        )
    return list(cells.items())


def _crossings(each: dict[str, Any]) -> str:
    def until(name: str) -> str:
        value = each[name]
        return "at no round trip" if value is None else f"up to {value:.0f} ms" if value < 1000 else "up to a second"

    return (
        f"On {each['kind']} drafting ahead is faster than a drafter beside the target {until('ahead_of_beside_ms')}, "
        f"and {LEAST_GAIN:.0%} faster than streaming {until('ahead_of_alone_ms')}; in turns it is so "
        f"{until('turns_of_alone_ms')}."
    )


def _fleet_row(each: dict[str, Any], options: dict[str, Any]) -> tuple[str, list[str]]:
    name = f"{each['kind']}, {NAMES[each['way']]}"
    if not each["num_verifiers"]:
        return name, ["cannot give this rate", "-", "-", "-", "-"]
    found = each["cost"]
    month = found["money"] / 1e6 * options["devices"] * options["activity"] * options["rate"] * SECONDS_A_MONTH
    return name, [
        str(each["num_verifiers"]),
        f"{found['money']:.2f}",
        f"{month:,.0f}",
        f"{found['traffic'] / found['money']:.1%}",
        f"{each['bytes_up']:.0f}, {each['bytes_down']:.0f}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        record = run(options)
    except OutriderError as error:
        print(error, file=sys.stderr)
        return 2
    print(tables(record))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
