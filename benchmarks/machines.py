"""What passes cost on a machine: measured tables, or curves computed from a data sheet; by name, or from a JSON file.

A measured table is milliseconds by sessions in the pass, then by rows that each of them brings. Between its entries
costs are interpolated, beyond them they grow in proportion. A computed curve is a roofline: weights and caches are read
once a pass, products take what their operations take, whichever is more.
"""

import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from outrider import catalog
from outrider.engines.fastest import turn_ms
from outrider.engines.numerics import class_cost_ms
from outrider.engines.profile import choose_class
from outrider.errors import InvalidParameter

__all__ = ["Curve", "Machine", "Roofline", "built_in", "find_machine"]

BUILT_IN = Path(__file__).parent / "machines.json"
Positive = Annotated[float, Meta(gt=0)]
PerhapsNone = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]


class Roofline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`efficiency`: the share of the data sheet's bandwidth and operations that is reached."""

    weights_gb: Positive
    gflop_a_row: Positive  # twice the weights' number
    cache_kb_a_token: PerhapsNone
    context: Count  # tokens that each session holds
    bandwidth_gb_s: Positive
    tflop_s: Positive
    efficiency: Positive
    overhead_ms: PerhapsNone  # a pass: launches, logits, choices

    def __call__(self, num_sessions: int, num_rows: int) -> float:
        cache_gb = num_sessions * self.context * self.cache_kb_a_token / 1e6
        read_ms = 1000 * (self.weights_gb + cache_gb) / (self.bandwidth_gb_s * self.efficiency)
        work_ms = num_rows * self.gflop_a_row / (self.tflop_s * self.efficiency)
        return self.overhead_ms + max(read_ms, work_ms)


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the two. `measured`: milliseconds by sessions, then by rows of each."""

    measured: dict[int, dict[int, float]] = {}
    computed: Roofline | None = None

    def __post_init__(self) -> None:
        if bool(self.measured) == (self.computed is not None) or not all(self.measured.values()):
            raise InvalidParameter("a cost curve is either measured or computed; give one of them, not empty")
        if any(key < 1 or not cost > 0 for row in self.measured.values() for key, cost in row.items()):
            raise InvalidParameter("a cost curve has a pass that takes no time or no rows; give numbers above 0")

    def __call__(self, num_sessions: int, num_rows: int) -> float:
        """Milliseconds of a pass over so many rows in all."""
        if self.computed is not None:
            return self.computed(num_sessions, num_rows)
        each = num_rows / num_sessions
        by_sessions = {sessions: _between(row, each) for sessions, row in self.measured.items()}
        return _between(by_sessions, num_sessions)


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verifier. `beside`: a pass of the same drafter, if it were there; `draft_ms`: a draft on the device."""

    name: str
    about: str  # where the figures are from; "Computed" or "Measured" first
    verify: Curve
    draft_ms: Positive
    beside: Curve
    max_batch: Count = 1
    max_sequences: Count = 8
    pass_tokens: Count = 512

    def pass_ms(self) -> dict[int, float]:
        """As a profile has it: by the rows of a single session."""
        return {rows: self.verify(1, rows) for rows in range(1, 33)}


def _between(costs: Mapping[int, float], at: float) -> float:
    keys = sorted(costs)
    if at <= keys[0]:
        return costs[keys[0]]
    if at >= keys[-1]:
        return costs[keys[-1]] * at / keys[-1]
    right = bisect.bisect_left(keys, at)
    low, high = keys[right - 1], keys[right]
    share = (at - low) / (high - low)
    return costs[low] + share * (costs[high] - costs[low])


def built_in() -> Sequence[Machine]:
    return msgspec.json.decode(BUILT_IN.read_bytes(), type=list[Machine])


def find_machine(name: str) -> Machine:
    """A built-in one, a JSON file, or the fastest stored profile of a model, as if its sessions took turns.

    Raises InvalidParameter, and for a model what `find` does.
    """
    known = {machine.name: machine for machine in built_in()}
    if name in known:
        return known[name]
    if name.endswith(".json"):
        try:
            return msgspec.json.decode(Path(name).read_bytes(), type=Machine)
        except OSError as error:
            raise InvalidParameter(f"{name} cannot be read ({error.strerror}); give another file") from None
        except (ValueError, RecursionError, InvalidParameter) as error:
            raise InvalidParameter(f"{name} describes no machine: {error}") from None
    if name not in (*catalog.stored(), *catalog.cards(), *catalog.recipes()):
        raise InvalidParameter(
            f"{name!r} is no machine; give one of {', '.join(known)}, a .json file or a stored model"
        )
    profiles = catalog.find(name).manifest.profiles.values()
    if not profiles:
        raise InvalidParameter(f"{name} has no profile yet; make one with `outrider profile {name}`")
    profile = min(profiles, key=lambda profile: turn_ms(profile.cost_ms))
    sizes = choose_class(profile)
    costs = class_cost_ms(profile.cost_ms, sizes) if sizes else profile.cost_ms
    draft_ms = costs[1] / 3
    return Machine(
        name,
        f"Measured: {name}, {profile.engine}, {profile.machine}; a draft is taken as a third of a pass",
        Curve(measured={1: costs}),
        draft_ms,
        Curve(measured={1: {1: draft_ms}}),
    )
