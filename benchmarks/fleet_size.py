"""How many verifiers a fleet of devices needs, what that costs, and whether its devices then get what was promised."""

import math
import random
from collections.abc import Sequence

from benchmarks.cost import Counts, Prices, cost
from benchmarks.fleet_record import Check, Fleet
from benchmarks.loads import Kind, Load, Way, capacity, make_devices
from benchmarks.machines import Machine
from benchmarks.options import FleetOptions
from benchmarks.simulation import Link, play

__all__ = ["fleet_of"]

RARE = 2.33  # standard deviations: more are active at once in a hundredth of the time
MOST_CHECKED = 10_000  # devices; more are like them


def fleet_of(
    machine: Machine, kind: Kind, way: Way, curve: Sequence[Load], prices: Prices, options: FleetOptions
) -> Fleet:
    """How many verifiers, so that in 99 % of the time no more devices are active on one than it can serve. Ours is
    checked: every device of the fleet asks once."""
    served = _served(machine, min(capacity(curve, options.rate), curve[-1].num_devices), options)
    if served < 1:
        return Fleet(kind.name, way)
    active = ((math.sqrt(RARE**2 + 4 * served) - RARE) / 2) ** 2  # m + RARE sqrt(m) = served
    num_verifiers = math.ceil(options.num_devices * options.activity / active)
    near = min(curve, key=lambda load: abs(load.num_devices - served))
    tokens_an_hour = options.num_devices * options.activity * options.rate * 3600
    hour = Counts(
        num_tokens=round(tokens_an_hour),
        verifier_ms=num_verifiers * 3.6e6,
        bytes_up=round(near.bytes_up * tokens_an_hour),
        bytes_down=round(near.bytes_down * tokens_an_hour),
    )
    check = _check(machine, kind, way, num_verifiers, served, options) if way == "ahead" else None
    return Fleet(kind.name, way, num_verifiers, near.bytes_up, near.bytes_down, cost(hour, prices), check)


def _served(machine: Machine, decoding: float, options: FleetOptions) -> float:
    """Devices that are served at once where each answer begins with a prompt: the verifier's time goes to both."""
    if decoding < 1:
        return 0.0
    batch = min(int(decoding), machine.max_batch)
    prompt_ms = machine.verify(batch, batch + options.prompt_tokens) - machine.verify(batch, batch)
    answers_a_ms = options.rate / options.answer_tokens / 1000
    return 1 / (1 / decoding + prompt_ms * answers_a_ms)


def _check(machine: Machine, kind: Kind, way: Way, num_verifiers: int, served: float, options: FleetOptions) -> Check:
    """Every device asks once, at a random moment, so that the share of them that is active is as wanted."""
    rng = random.Random(options.seed)  # noqa: S311
    window_ms = 1000 * options.answer_tokens / options.rate / options.activity
    rates: list[float] = []
    busy_ms = elapsed_ms = 0.0
    for number in range(num_verifiers):
        count = len(range(number, options.num_devices, num_verifiers))
        asking = min(count, MOST_CHECKED - len(rates))
        if not asking:
            break
        asks_ms = [rng.uniform(0, window_ms * asking / count) for _ in range(asking)]
        devices, verifier, _ = make_devices(
            machine,
            way,
            kind,
            asks_ms,
            options.rtt_ms,
            num_active=max(1, int(served)),
            num_tokens=options.answer_tokens,
            num_prompt=options.prompt_tokens,
            seed=options.seed + number,
        )
        play(devices, verifier, Link(options.rtt_ms), seed=number)
        traces = [device.result.trace for device in devices]
        for trace in traces:
            (first_ms, first), (last_ms, _) = trace[0], trace[-1]
            rates.append(1000 * (options.answer_tokens - first) / ((last_ms - first_ms) or 1.0))
        busy_ms += verifier.busy_ms
        elapsed_ms += max(trace[-1][0] for trace in traces)
    share_served = sum(rate >= options.rate for rate in rates) / len(rates)
    return Check(num_devices=len(rates), share_served=share_served, busy=busy_ms / elapsed_ms)
