"""What a generation tells the app, in order.

A position is told once as verified; before that it may be told as provisional, and taken back, while the link is down.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.evidence import Seal
from edge_runtime.report import Report
from outrider.errors import OutriderError

__all__ = ["Alone", "Event", "Finished", "Retracted", "Token"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the list. `drafted_by` names the drafter that guessed it; None: the target's own correction or step.

    A verified token at a position that was told as provisional confirms that one.
    """

    position: int
    token_id: int
    drafted_by: str | None
    logprob: float | None = None  # the target's own, where it was asked for,
    top_logprobs: Sequence[tuple[int, float]] = ()  # and those of the likeliest ids, best first
    is_verified: bool = True


@dataclass(frozen=True, slots=True)
class Alone:
    """No verifier is heard: from here on the drafter answers alone, provisionally, until verified tokens come."""

    reason: OutriderError


@dataclass(frozen=True, slots=True)
class Retracted:
    """The provisional tokens from `position` on are void: the target says something else there."""

    position: int
    num_chars: int = 0  # characters of the answer that stay, where it is told as text


@dataclass(frozen=True, slots=True)
class Finished:
    """`report.num_provisional` tokens at the end are the drafter's, if any: then the reason is provisional, too."""

    reason: str  # "stop" or "length"
    report: Report
    seal: Seal | None = None  # where one was asked for, of a verifier that signs
    receipt: bytes | None = None  # where `Runtime` was asked for one
    not_kept: OutriderError | None = None  # why the journal lacks some of it


Event = Token | Alone | Retracted | Finished
