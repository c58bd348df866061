"""What suite `service` keeps beyond what every suite keeps. Knows no service."""

from typing import Any

import msgspec

__all__ = ["DRAFTING", "PLAIN", "Details", "Figures", "Measured", "Throughput"]

PLAIN, DRAFTING = "plain", "drafting"


class Figures(msgspec.Struct, frozen=True):
    """Of the passes that fill no cache: prompts cost both ways the same."""

    num_tokens: int
    num_passes: int
    num_rows: int
    verifier_s: float  # in the engine
    acceptance: float | None
    overhead: float | None  # share of a pass's cycle that is not the engine's; only where sessions are always ready

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.verifier_s if self.verifier_s else 0.0

    @property
    def passes_per_token(self) -> float:
        return self.num_passes / self.num_tokens if self.num_tokens else 0.0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """So many sessions at once, one way."""

    way: str
    num_sessions: int
    figures: Figures


class Throughput(msgspec.Struct, frozen=True):
    """Without a model."""

    messages_per_s: float
    passes_per_s: float
    sessions_a_pass: float
    service_busy: float  # processor time over time: of the service's process,
    devices_busy: float  # and of the devices'; what is nearer 1 is the limit


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """`details` of the result."""

    measured: list[Measured]
    limit: Throughput

    @classmethod
    def read(cls, details: dict[str, Any]) -> "Details":
        return msgspec.convert(details, cls)
