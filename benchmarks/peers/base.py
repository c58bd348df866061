"""What a peer is to the harness: a program that a user might run instead of ours, behind three methods.

Knows no program, and no process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["CannotRun", "OpenPeer", "Peer", "PeerAnswer", "PeerFailed", "Published"]


class PeerFailed(Exception):
    """The peer could not be opened, or died over a prompt; the text is the reason, for the table's notes."""


@dataclass(frozen=True)
class PeerAnswer:
    """A greedy answer. The token that ended it is among its tokens, as it is for ours."""

    token_ids: list[int]
    seconds: float  # from the first token to the last: (len(token_ids) - 1) / seconds is its speed
    first_s: float  # until the first token, the prompt included
    num_passes: int | None = None  # passes of the target after the prompt's own, where the peer tells


class OpenPeer(Protocol):
    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> PeerAnswer:
        """Raises PeerFailed; after that only `close` makes sense."""

    def close(self) -> None:
        """Gives the memory back. May be called twice."""


class Peer(Protocol):
    @property
    def name(self) -> str:
        """As in the table: "llama.cpp, n-gram drafts"."""

    @property
    def settings(self) -> Sequence[str]:
        """Its own settings to try; the best one goes into the table."""

    @property
    def weights(self) -> str:
        """Which weights it reads and in which quantization, for the table's notes."""

    def reason(self) -> str | None:
        """Why it cannot run here, or None. Loads nothing and raises nothing."""

    def open(self, setting: str) -> OpenPeer:
        """Loads it with one of its settings; one peer at a time. Raises PeerFailed."""


@dataclass(frozen=True)
class CannotRun:
    """A `Peer` that installs but runs nowhere without what this project does not assume."""

    name: str
    weights: str
    why: str
    settings: Sequence[str] = ()

    def reason(self) -> str:
        return self.why

    def open(self, setting: str) -> OpenPeer:
        raise PeerFailed(self.why)


@dataclass(frozen=True)
class Published:
    """A figure of a program that does not run here, as its authors give it. Never a row of a measured table."""

    name: str
    figure: str
    conditions: str
    source: str
