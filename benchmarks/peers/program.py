"""The two ends of a peer's process: what it is told to open, and what it answers, one line of JSON each way.

Knows no library; a module that does has `open_program(job)` and is named in the job.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from benchmarks.peers.base import PeerAnswer

__all__ = ["Answered", "Ask", "Failed", "Job", "Opened", "Program", "Reply", "Setting"]

Setting = Mapping[str, str | int | float | bool]


class Job(msgspec.Struct, frozen=True):
    """What to load, and with what."""

    module: str
    target: str
    drafter: str | None
    options: dict[str, str | int | float | bool]  # the setting, as the module understands it
    stop_ids: list[int]
    max_context: int
    cores: list[int]  # as many threads, pinned to these where the system can; empty: not pinned
    num_threads: int
    work: str  # a folder for what it has to write; it goes when the peer is closed


class Ask(msgspec.Struct, frozen=True):
    prompt_ids: list[int]
    max_tokens: int


class Opened(msgspec.Struct, frozen=True, tag=True):
    """It is loaded."""


class Answered(msgspec.Struct, frozen=True, tag=True):
    answer: PeerAnswer


class Failed(msgspec.Struct, frozen=True, tag=True):
    reason: str


Reply = Opened | Answered | Failed


class Program(Protocol):
    """A loaded program, in its own process."""

    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> PeerAnswer: ...
