"""One device, and a verifier with one session: the product's session, own drafts, pace and guard; no scheduler."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.simulation.device import Device, Result
from benchmarks.simulation.events import Link, play
from benchmarks.simulation.text import Text, one_hot
from cloud_verifier.own_drafts import OwnDrafts
from cloud_verifier.pacing import DraftGuard, SessionPace
from cloud_verifier.session import VerifierSession
from cloud_verifier.turn import choose_drafts
from edge_runtime.ahead import MAX_AHEAD
from outrider.wire import Down, Draft, Open, Up

__all__ = ["simulate"]

MAX_DRAFTS = 31


class _FixedPace(SessionPace):
    """Takes the same number whenever so many are there; the setting to compare with."""

    def __init__(self, num_drafts: int) -> None:
        super().__init__(DraftGuard())
        self._num_drafts = num_drafts

    @property
    def allows_own(self) -> bool:
        return True

    def num_drafts(self, drafts: Sequence[tuple[str, float]], cost_ms: Callable[[int], float] | None = None) -> int:
        return min(self._num_drafts, len(drafts))


class _OneSession:
    """A verifier with one session, and nothing of its own but what a session needs."""

    def __init__(self, text: Text, pass_ms: Callable[[int], float], pace: SessionPace, own: OwnDrafts | None) -> None:
        self.result = Result()
        self._text, self._pass_ms, self._pace, self._own = text, pass_ms, pace, own
        self._session: VerifierSession | None = None
        self._served_ms = 0.0

    def receive(self, number: int, message: Up, now_ms: float) -> None:
        if isinstance(message, Open):
            self._session = VerifierSession(message, message.limit)
            while self._own is not None and not self._own.read(self._session.token_ids):
                """The prompt is read before the first pass, as while an engine is filled with it."""
        else:
            assert isinstance(message, Draft)
            assert self._session is not None
            self._session.receive(message)

    def step(self, now_ms: float) -> tuple[float, list[tuple[int, Down]]]:
        session, result = self._session, self.result
        if session is None or session.finish or not session.is_ready(now_ms - self._served_ms):
            return 0.0, []
        taken = choose_drafts(session, self._own, self._pace, MAX_DRAFTS)
        duration_ms = self._pass_ms(1 + len(taken))
        start = session.frontier - len(self._text.prompt_ids)
        rows = self._text.token_ids[start : start + 1 + len(taken)]
        verified, path = session.advance(taken, one_hot(rows, 1 + len(taken)))
        self._pace.observe(taken.about, len(path), len(verified.token_ids) // 4, now_ms + duration_ms - self._served_ms)
        self._served_ms = now_ms + duration_ms
        result.busy_ms += duration_ms
        result.num_passes += 1
        result.num_drafted += len(taken)
        result.num_accepted += len(path)
        result.num_own += taken.num_own
        return duration_ms, [(0, verified)]

    def wait_ms(self, now_ms: float) -> float | None:
        session = self._session
        if session is None or session.finish or session.patience_ms < 0:
            return None
        return max(0.0, session.patience_ms - (now_ms - self._served_ms))


def simulate(
    text: Text,
    link: Link,
    pass_ms: Callable[[int], float],
    draft_ms: float,
    *,
    max_ahead: int = MAX_AHEAD,
    fixed_drafts: int | None = None,
    self_drafts: bool = False,
    seed: int = 0,
) -> Result:
    """One generation, drafting ahead. `draft_ms` infinite: no drafter. `fixed_drafts`: the verifier always takes as
    many, if there. `self_drafts`: it makes its own, too."""
    pace = _FixedPace(fixed_drafts) if fixed_drafts is not None else SessionPace(DraftGuard(pass_ms), pass_ms)
    server = _OneSession(text, pass_ms, pace, OwnDrafts() if self_drafts else None)
    device = Device(text, draft_ms, max_ahead=max_ahead)
    play([device], server, link, seed=seed)
    heard = device.result
    return replace(
        server.result,
        elapsed_ms=heard.trace[-1][0] - link.rtt_ms / 2,
        num_tokens=heard.num_tokens,
        num_messages=heard.num_messages,
        bytes_up=heard.bytes_up,
        bytes_down=heard.bytes_down,
        trace=heard.trace,
    )
