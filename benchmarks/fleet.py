"""Suite `fleet`: what this machine cannot measure. Many devices on one verifier, long links, ten thousand devices.

Three questions: how many devices a verifier serves at a rate; up to which round trip drafting on the device pays,
against a drafter beside the target and against streaming; what a fleet costs. Simulated: the verifier's and the
devices' rules are the product's own, on a simulated clock (`simulated_verifier.py`, `simulation`); passes take what
the engine's curve says (`machines.py`), and texts agree as real ones were found to (`loads.py`).
"""

import math
from collections.abc import Collection, Sequence

import msgspec

from benchmarks.cost import PRICES, Prices, read_prices
from benchmarks.fleet_record import MANY, ONE, ROWS, Details, Served, as_run
from benchmarks.fleet_size import fleet_of
from benchmarks.loads import KINDS, WAYS, Kind, Load, Way, capacity, measure
from benchmarks.machines import Machine, find_machine
from benchmarks.measuring import measuring
from benchmarks.options import FleetOptions
from benchmarks.record import Result
from benchmarks.round_trips import crossings, speeds
from outrider.errors import InvalidParameter
from outrider.progress import Progress, silent

__all__ = ["run"]

MOST_DEVICES = 1024  # on one verifier


def run(options: FleetOptions, command: Sequence[str], progress: Progress = silent) -> Result:
    """Raises InvalidParameter, and what `find_machine` does."""
    _check_names("--parts", options.parts, FleetOptions.parts)
    _check_names("--kinds", options.kinds, KINDS)
    machine = find_machine(options.engine)
    kinds = [KINDS[name] for name in options.kinds]
    details = Details(machine=machine, kinds=kinds, prices=_prices(options))
    with measuring("fleet", options, command) as result:
        result.environment = msgspec.structs.replace(result.environment, load=None)  # no clock is read
        result.ways = ROWS
        if {"capacity", "cost"} & set(options.parts):
            curves = _curves(machine, kinds, options, progress)
            result.runs += [as_run(load, MANY) for curve in curves.values() for load in curve]
            details.served = [
                Served(kind, way, rate, None if (count := capacity(curve, rate)) == math.inf else int(count))
                for (kind, way), curve in curves.items()
                for rate in options.rates
            ]
        if "rtt" in options.parts:
            for number, kind in enumerate(kinds):
                progress("round trips", number, len(kinds))
                result.runs += [as_run(load, ONE) for load in speeds(machine, kind, options.rtt_tokens, options.seed)]
                details.crossings.append(crossings(machine, kind, options.rtt_tokens, options.seed))
            progress("round trips", len(kinds), len(kinds))
        if "cost" in options.parts:
            for number, (kind, way) in enumerate(pairs := [(kind, way) for kind in kinds for way in WAYS]):
                progress("the fleet", number, len(pairs))
                curve = curves[kind.name, way]
                details.fleets.append(fleet_of(machine, kind, way, curve, details.prices, options))
            progress("the fleet", len(pairs), len(pairs))
        result.details = msgspec.to_builtins(details, str_keys=True)
    return result


def _check_names(option: str, given: Sequence[str], known: Collection[str]) -> None:
    if unknown := [name for name in given if name not in known]:
        raise InvalidParameter(f"{option} names {unknown[0]!r}; there are {', '.join(known)}")


def _prices(options: FleetOptions) -> Prices:
    prices = read_prices(options.prices or PRICES)
    if options.verifier_hour is None:
        return prices
    own = msgspec.structs.replace(prices.verifier_hour, price=options.verifier_hour, source="as given")
    return msgspec.structs.replace(prices, verifier_hour=own)


def _curves(
    machine: Machine, kinds: Sequence[Kind], options: FleetOptions, progress: Progress
) -> dict[tuple[str, Way], list[Load]]:
    """By kind and way: loads of 1, 2, 4, ... devices."""
    most = min(options.most_devices or machine.max_sequences, MOST_DEVICES)
    sizes = sorted({min(2**power, most) for power in range(most.bit_length() + 1)})
    pairs = [(kind, way) for kind in kinds for way in WAYS]
    curves: dict[tuple[str, Way], list[Load]] = {}
    for number, (kind, way) in enumerate(pairs):
        progress("devices at once", number, len(pairs))
        curves[kind.name, way] = [
            measure(machine, way, kind, size, options.rtt_ms, seed=options.seed) for size in sizes
        ]
    progress("devices at once", len(pairs), len(pairs))
    return curves
