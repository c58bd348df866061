"""One device that has a verifier to itself: what it gets at several round trips, and up to which one drafting pays."""

from collections.abc import Callable

from benchmarks.fleet_record import Crossings
from benchmarks.loads import WAYS, Kind, Load, Way, measure
from benchmarks.machines import Machine

__all__ = ["LEAST_GAIN", "MOST_MS", "crossings", "speeds"]

RTTS_MS = (0.0, 14.0, 50.0, 100.0, 300.0)
LEAST_GAIN = 0.02  # over streaming, below which drafting does not pay
MOST_MS = 1000.0


def speeds(machine: Machine, kind: Kind, num_tokens: int, seed: int) -> list[Load]:
    """Every way at every round trip."""
    return [
        measure(machine, way, kind, 1, rtt_ms, num_tokens=num_tokens, seed=seed) for way in WAYS for rtt_ms in RTTS_MS
    ]


def crossings(machine: Machine, kind: Kind, num_tokens: int, seed: int) -> Crossings:
    """Where the lines cross."""

    def rate(way: Way, rtt_ms: float) -> float:
        return measure(machine, way, kind, 1, rtt_ms, num_tokens=num_tokens, seed=seed).rate

    alone, beside = rate("alone", 0.0), rate("beside", 0.0)
    return Crossings(
        kind.name,
        ahead_of_beside_ms=_last(lambda rtt_ms: rate("ahead", rtt_ms) >= beside),
        ahead_of_alone_ms=_last(lambda rtt_ms: rate("ahead", rtt_ms) >= (1 + LEAST_GAIN) * alone),
        turns_of_alone_ms=_last(lambda rtt_ms: rate("turns", rtt_ms) >= (1 + LEAST_GAIN) * alone),
    )


def _last(pays: Callable[[float], bool]) -> float | None:
    """The longest round trip, to a millisecond, at which it pays; None where it never does, at most MOST_MS."""
    if not pays(0.0):
        return None
    if pays(MOST_MS):
        return MOST_MS
    low, high = 0.0, MOST_MS
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (middle, high) if pays(middle) else (low, middle)
    return low
