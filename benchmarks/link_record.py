"""What suite `link` keeps of a run beyond what every suite keeps, and the names of its ways."""

from typing import Any

import msgspec

from benchmarks.record import Way
from benchmarks.traces import Trace

__all__ = ["AHEAD", "ALONE", "COLOCATED", "TURNS", "WAYS", "Details", "More", "Wire"]

ALONE, TURNS, COLOCATED, AHEAD = "target alone", "device, in turns", "beside the target", "ahead (ours)"
WAYS = [
    Way(name=ALONE, role="alone", note="streamed, a token a pass"),
    Way(name=TURNS, role="baseline", note="drafts, sends, waits; as many as are best for that very text", equals=ALONE),
    Way(name=COLOCATED, role="baseline", note="the same drafter in the verifier's process", equals=ALONE),
    Way(name=AHEAD, role="ours", note="drafts ahead and never waits", equals=ALONE),
]


class Wire(msgspec.Struct):
    """Drafts up and tokens down, WebSocket framing included; what opens a session is not counted."""

    num_up: int = 0
    bare_up: int = 0  # bytes without padding
    padded_up: int = 0  # and with it
    largest_up: int = 0  # without
    num_down: int = 0
    bare_down: int = 0
    padded_down: int = 0


class More(msgspec.Struct, frozen=True, kw_only=True):
    """`more` of a run."""

    num_drafts: int  # a turn; -1 ahead
    wire: Wire
    num_guesses: int  # that the drafter made, sent or not,
    drafting_ms: float  # and how long it took over them
    rows: list[int]  # of each pass of the verifier,
    pass_ms: list[float]  # and how long it took
    busy_s: float  # processor time of the verifier's process

    @classmethod
    def read(cls, more: dict[str, Any]) -> "More":
        return msgspec.convert(more, cls)


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """`details` of the result."""

    drafter: str
    cores: str
    profile_ms: dict[int, float]
    cold_s: dict[str, dict[str, list[float]]]  # kind -> way -> until the first token of a prompt nobody had seen
    traces: dict[str, list[Trace]]
    proxy_busy: float  # share of a core

    @classmethod
    def read(cls, details: dict[str, Any]) -> "Details":
        return msgspec.convert(details, cls, str_keys=True)
