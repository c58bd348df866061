"""A session's place among the others: whose it is, when it was last served, what it was told. Data, and one rule."""

from collections.abc import Sequence
from dataclasses import dataclass

from cloud_verifier.limits import MAX_DRAFTS_PER_PASS
from cloud_verifier.own_drafts import OwnDrafts
from cloud_verifier.pacing import SessionPace
from cloud_verifier.session import VerifierSession
from outrider.wire import Load

__all__ = ["Live", "LoadMeter"]

BUSY_PASSES = 2.0  # passes' worth of ready sessions from which on patience is asked for
MAX_LOAD_MS = 1000.0


@dataclass(slots=True)
class Live:
    session: VerifierSession
    credential: str
    pace: SessionPace
    served_s: float  # when it last had a pass, or was opened
    heard_s: float  # when its device last said something
    told: Load  # what is in force, as the device knows it
    names: Sequence[str]  # those that end with it, its own among them; the first is the one that the device knows
    own: OwnDrafts | None = None  # where the verifier drafts, too
    is_filling: bool = False  # its prompt is filled in part: what is there must not be lost before it brought a token
    is_suspect: bool = False  # was in a pass that failed: the next one it has alone

    def waited_ms(self, now_s: float) -> float:
        return (now_s - self.served_s) * 1000


class LoadMeter:
    """How much patience the verifier asks of sessions that draft: none, until more are ready than it can serve soon.

    A session that would wait for its turn anyway loses nothing by waiting for its drafts, and then needs fewer turns.
    """

    def __init__(self, plain_ms: float) -> None:
        self._plain_ms = plain_ms
        self.patience_ms = 0.0

    def observe(self, num_ready: int, slots: int) -> None:
        passes = num_ready / slots
        self.patience_ms = min(MAX_LOAD_MS, passes * self._plain_ms) if passes > BUSY_PASSES else 0.0

    def news_for(self, live: Live) -> Load | None:
        """What this session's device should hear: a change to or from nothing, or by a factor of two."""
        patience_ms = live.session.patience_ms
        if patience_ms >= 0:
            patience_ms = int(live.session.patience_in_force_ms(self.patience_ms))
        load = Load(patience_ms, MAX_DRAFTS_PER_PASS if live.pace.allows_drafts else 0)
        if load.max_drafts == live.told.max_drafts and not _is_news(patience_ms, live.told.patience_ms):
            return None
        live.told = load
        return load


def _is_news(value: int, known: int) -> bool:
    if value == known:
        return False
    return value <= 0 or known <= 0 or not 0.5 < value / known < 2
