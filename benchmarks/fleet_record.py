"""What suite `fleet` keeps beyond what every suite keeps, and the names of its ways. Simulates nothing."""

from typing import Any

import msgspec

from benchmarks.cost import Cost, Prices
from benchmarks.link_record import AHEAD, ALONE, COLOCATED, TURNS
from benchmarks.loads import Kind, Load
from benchmarks.machines import Machine
from benchmarks.record import Run
from benchmarks.record import Way as Row

__all__ = ["MANY", "NAMES", "ONE", "ROWS", "Check", "Crossings", "Details", "Fleet", "Served", "as_run", "loads_of"]

NAMES = {"alone": ALONE, "beside": COLOCATED, "turns": TURNS, "ahead": AHEAD}
ROWS = [
    Row(name=ALONE, role="alone", note="streamed, a token a pass"),
    Row(name=COLOCATED, role="baseline", note="a drafter in the verifier, on its time; as many drafts as are best"),
    Row(name=TURNS, role="baseline", note="drafts, sends, waits; as many as are best by the closed form"),
    Row(name=AHEAD, role="ours", note="drafts ahead and never waits; it gets no help"),
]
MANY, ONE = "many devices", "one device"  # what a run was asked for


class Served(msgspec.Struct, frozen=True):
    """How many devices one verifier gives a rate; None: as many as were tried."""

    kind: str
    way: str
    rate: float
    num_devices: int | None


class Crossings(msgspec.Struct, frozen=True):
    """The longest round trip at which it pays, in milliseconds; None: at none."""

    kind: str
    ahead_of_beside_ms: float | None
    ahead_of_alone_ms: float | None
    turns_of_alone_ms: float | None


class Check(msgspec.Struct, frozen=True):
    """Devices that asked once each: the share that got its rate, and the share of the time that verifiers were busy."""

    num_devices: int
    share_served: float
    busy: float


class Fleet(msgspec.Struct, frozen=True):
    """`num_verifiers` 0: they cannot give the rate. Bytes are a token's."""

    kind: str
    way: str
    num_verifiers: int = 0
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    cost: Cost | None = None
    check: Check | None = None


class Details(msgspec.Struct, kw_only=True):
    """`details` of the result."""

    machine: Machine
    kinds: list[Kind]
    prices: Prices
    served: list[Served] = []
    crossings: list[Crossings] = []
    fleets: list[Fleet] = []

    @classmethod
    def read(cls, details: dict[str, Any]) -> "Details":
        return msgspec.convert(details, cls, str_keys=True)


def as_run(load: Load, asked: str) -> Run:
    """What a device got on average; `more` is the whole load. No text is told, so there is no digest."""
    return Run(
        kind=load.kind,
        prompt=asked,
        way=NAMES[load.way],
        rtt_ms=load.rtt_ms,
        num_sessions=load.num_devices,
        num_tokens=round(load.num_tokens),
        seconds=(round(load.num_tokens) - 1) / load.rate if load.rate else 0.0,
        first_s=load.first_s,
        digest="",
        more=msgspec.to_builtins(load),
    )


def loads_of(runs: list[Run]) -> list[Load]:
    return [msgspec.convert(run.more, Load) for run in runs]
