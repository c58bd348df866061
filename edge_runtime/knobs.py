"""What of drafting may be set, and its defaults: who drafts, on which threads, how far, and who waits for whom.

None of it can change an answer, only what it costs. `outrider tune` finds better values. Knows no model and no link.
"""

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from edge_runtime.ahead import MAX_AHEAD, MIN_REACH, AheadPace
from edge_runtime.pacing import Pace
from outrider.engines import EngineSettings

__all__ = ["LINKED", "Knobs", "pace_of"]


class Knobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The defaults are those of a pair on one device, which takes turns."""

    drafter: str = "auto"
    drafter_threads: int = 0  # 0: what the engine settings say
    verifier_threads: int = 0  # of a target on this device
    max_drafts: int = 19  # in a turn
    max_ahead: int = 0  # guesses beyond what was heard; 0: take turns
    min_reach: float = 0.0  # the chance that all guesses up to the next are right, below which none is made
    patience_ms: int = 0  # that a verifier waits for drafts before it steps alone; in turns it waits anyhow

    def drafting(self, settings: EngineSettings) -> EngineSettings:
        """The drafter's engine."""
        return replace(settings, num_threads=self.drafter_threads or settings.num_threads)

    def verifying(self, settings: EngineSettings) -> EngineSettings:
        """The target's, on this device."""
        return replace(settings, num_threads=self.verifier_threads or settings.num_threads)


LINKED = Knobs(max_ahead=MAX_AHEAD, min_reach=MIN_REACH)  # the defaults over a link, where nobody waits


def pace_of(knobs: Knobs, pass_ms: Mapping[int, float] | None) -> Pace:
    """A new pace. `pass_ms`: the verifier's milliseconds for a pass, where they are known."""
    return AheadPace(knobs.min_reach) if knobs.max_ahead else Pace(pass_ms, knobs.min_reach)
