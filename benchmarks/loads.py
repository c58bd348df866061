"""Many devices on one verifier: what each of them gets, in four ways of getting it. Simulated; see `simulation`.

    alone    nobody drafts; the target streams
    beside   a drafter beside the target, in turns with it, on the verifier's own time
    turns    the device drafts, sends, and waits for what became of it
    ahead    ours: the device drafts ahead, the verifier never waits for it

The number of drafts a turn is the best by the closed form, for that very load and round trip: ours gets no such help.
"""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import msgspec

from benchmarks.machines import Machine
from benchmarks.simulated_verifier import BesideVerifier, SimulatedVerifier, numbered
from benchmarks.simulation import NEVER, Device, Link, bursts, play

__all__ = [
    "KINDS",
    "WAYS",
    "Kind",
    "Load",
    "Way",
    "best_drafts",
    "capacity",
    "expected_tokens",
    "make_devices",
    "measure",
]

Way = Literal["alone", "beside", "turns", "ahead"]
WAYS: Sequence[Way] = ("alone", "beside", "turns", "ahead")
MAX_TURN = 15  # drafts
NUM_TOKENS = 64  # that a device hears on average while a load is measured
LENGTHS = 4  # an answer is so many times as long: hardly a device has it before the end
WARM_TOKENS = 8  # each device's first, while others still join
NUM_TEXTS = 64  # different ones of a kind
SLOWEST = 1e-3  # tokens a second, in place of none


class Kind(msgspec.Struct, frozen=True):
    """A kind of text: how often the drafter agrees with the target, and in how long runs."""

    name: str
    acceptance: float
    mean_run: float


# As `make bench-link` found them for the 0.5B drafter and the 1.5B target (docs/performance.md).
KINDS = {kind.name: kind for kind in (Kind("code", 0.975, 31.2), Kind("chat", 0.675, 2.0))}


class Load(msgspec.Struct, frozen=True):
    """Rates are tokens a second of one device. Bytes are padded, as the product sends them."""

    way: str
    kind: str
    num_devices: int
    rtt_ms: float
    num_drafts: int  # a turn; -1 where it is not fixed
    rate: float  # mean
    rate_p10: float  # what nine of ten devices get at least
    busy: float  # share of the time that the verifier was at work
    turns_per_token: float  # a device's share of a pass is a turn
    rows_per_token: float
    bytes_up: float  # a token
    bytes_down: float
    num_tokens: float  # that a device heard, on average,
    first_s: float  # and how long it took to the first


def expected_tokens(acceptance: float, num_drafts: int) -> float:
    """Of a turn, with independent drafts: 1 + a + a^2 + ... + a^k = (1 - a^(k+1)) / (1 - a).

    >>> round(expected_tokens(0.5, 2), 6)
    1.75
    """
    if acceptance >= 1:
        return num_drafts + 1.0
    return (1 - acceptance ** (num_drafts + 1)) / (1 - acceptance)


def best_drafts(machine: Machine, way: str, kind: Kind, num_devices: int, rtt_ms: float) -> int:
    """Drafts a turn, by the closed form: tokens a turn over the time that a turn takes, or that all have to wait."""

    def speed(count: int) -> float:
        batch = min(num_devices, machine.max_batch)
        pass_ms = machine.verify(batch, batch * (1 + count))
        queue = num_devices / batch
        if way == "beside":
            cycle_ms = queue * (pass_ms + count * machine.beside(batch, batch))
        else:
            cycle_ms = max(rtt_ms + count * machine.draft_ms + pass_ms, queue * pass_ms)
        return expected_tokens(kind.acceptance, count) / cycle_ms

    return max(range(1, MAX_TURN + 1), key=speed)


def make_devices(
    machine: Machine,
    way: Way,
    kind: Kind,
    asks_ms: Sequence[float],
    rtt_ms: float,
    *,
    num_active: int | None = None,
    num_tokens: int = NUM_TOKENS,
    num_prompt: int = 1,
    num_drafts: int | None = None,
    seed: int = 0,
) -> tuple[list[Device], SimulatedVerifier, int]:
    """Devices that ask at these times, the verifier that they ask, and the drafts a turn (-1: not fixed).

    `num_active`: how many of them are at it at once, for the best number of drafts.
    """
    count = len(asks_ms)
    pool = [
        bursts(num_tokens, kind.acceptance, kind.mean_run, random.Random(NUM_TEXTS * seed + number))  # noqa: S311
        for number in range(min(NUM_TEXTS, count))
    ]
    texts = [replace(pool[number % NUM_TEXTS], prompt_ids=numbered(number, num_prompt)) for number in range(count)]
    if way in ("beside", "turns"):
        turn = num_drafts or best_drafts(machine, way, kind, num_active or count, rtt_ms)
    else:
        turn = -1
    verifier = BesideVerifier(machine, texts, turn) if way == "beside" else SimulatedVerifier(machine, texts)
    devices = [
        Device(
            text,
            machine.draft_ms if way in ("turns", "ahead") else NEVER,
            num_drafts=turn if way == "turns" else None,
            asks_ms=asked_ms,
            is_padded=True,
        )
        for text, asked_ms in zip(texts, asks_ms, strict=True)
    ]
    return devices, verifier, turn


def measure(
    machine: Machine,
    way: Way,
    kind: Kind,
    num_devices: int,
    rtt_ms: float,
    *,
    num_tokens: int = NUM_TOKENS,
    num_drafts: int | None = None,
    seed: int = 0,
) -> Load:
    """So many devices, all at it at once, until each has heard `num_tokens` on average."""
    rng = random.Random(seed)  # noqa: S311
    spread_ms = WARM_TOKENS * machine.verify(1, 1)
    asks_ms = [rng.uniform(0, spread_ms) for _ in range(num_devices)]
    devices, verifier, turn = make_devices(
        machine, way, kind, asks_ms, rtt_ms, num_tokens=LENGTHS * num_tokens, num_drafts=num_drafts, seed=seed
    )
    play(devices, verifier, Link(rtt_ms), seed=seed, num_tokens=num_devices * num_tokens)
    heard = [device.result for device in devices]
    end_ms = max(result.trace[-1][0] for result in heard if result.trace)
    first_ms = [device.result.trace[0][0] - device.asks_ms for device in devices if device.result.trace]
    tokens = sum(result.num_tokens for result in heard)
    rates = sorted(_rate(device, end_ms) for device in devices)
    return Load(
        way=way,
        kind=kind.name,
        num_devices=num_devices,
        rtt_ms=rtt_ms,
        num_drafts=turn,
        rate=sum(rates) / num_devices,
        rate_p10=rates[num_devices // 10],
        busy=min(1.0, verifier.busy_ms / end_ms),
        turns_per_token=sum(result.num_passes for result in heard) / tokens,
        rows_per_token=sum(result.num_passes + result.num_drafted for result in heard) / tokens
        if way != "beside"
        else verifier.num_rows / tokens,
        bytes_up=sum(result.bytes_up for result in heard) / tokens if way != "beside" else 0.0,
        bytes_down=sum(result.bytes_down for result in heard) / tokens,
        num_tokens=tokens / num_devices,
        first_s=statistics.fmean(first_ms) / 1000,
    )


def _rate(device: Device, end_ms: float) -> float:
    """Tokens a second from a device's first ones on: to the end, or to the end of its answer."""
    trace = device.result.trace
    warm = next((at for at, (_, count) in enumerate(trace) if count >= WARM_TOKENS), len(trace) - 1)
    last_ms = trace[-1][0] if device.is_done else end_ms
    if warm < 0 or last_ms <= trace[warm][0]:
        return 0.0
    return 1000 * (trace[-1][1] - trace[warm][1]) / (last_ms - trace[warm][0])


def capacity(curve: Sequence[Load], rate: float) -> float:
    """The most devices of which nine in ten get at least `rate`, between the loads of a curve interpolated over the
    time that a token takes. 0 where no load gives it; infinite where the last one still does."""
    enough = [place for place, load in enumerate(curve) if load.rate_p10 >= rate]
    if not enough:
        return 0.0
    if enough[-1] == len(curve) - 1:
        return math.inf
    low, high = curve[enough[-1] : enough[-1] + 2]
    low_s, high_s = 1 / low.rate_p10, 1 / max(high.rate_p10, SLOWEST)
    return low.num_devices + (1 / rate - low_s) / (high_s - low_s) * (high.num_devices - low.num_devices)
