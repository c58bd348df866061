"""One engine pass over several sessions' turns: the choices, what they earned, and what becomes of the caches.

Knows nothing of who is chosen or why. A pass that fails costs its sessions their caches; each then has a pass alone,
and one that fails alone is to blame and is ended.
"""

from collections.abc import Callable, Sequence

from cloud_verifier.cache import ResidentLists
from cloud_verifier.failures import FAILURES, check_logits, typed
from cloud_verifier.lanes import Lane
from cloud_verifier.schedule import Said, Schedule
from cloud_verifier.session import VerifierSession
from cloud_verifier.turn import PassReport, Turn, settle
from outrider.engines.base import Engine, Logits
from outrider.errors import BadLogits, GrammarFailed, InvalidParameter, OutriderError
from outrider.wire import Verified

__all__ = ["EnginePass"]


class EnginePass:
    """`last_word` has a session's last Verified before it is said."""

    def __init__(
        self,
        engine: Engine,
        cache: ResidentLists,
        schedule: Schedule,
        clock: Callable[[], float],
        last_word: Callable[[VerifierSession, Verified], Verified],
    ) -> None:
        self._engine = engine
        self._cache = cache
        self._schedule = schedule
        self._clock = clock
        self._last_word = last_word

    def run(self, turns: Sequence[Turn], said: Said) -> PassReport | None:
        """Move the turns' sessions and say so; None where the pass failed."""
        began_s = self._clock()
        chunks = [turn.chunk for turn in turns]
        try:
            rows = self._engine.extend(chunks)
            check_logits(chunks, rows, self._engine.n_vocab)
        except FAILURES as error:
            self._failed(turns, typed(error), said)
            return None
        num_rows = sum(len(turn.chunk.token_ids) for turn in turns)
        elapsed_s = self._clock() - began_s
        self._schedule.timed(turns, 1000 * elapsed_s)
        report = PassReport(elapsed_s, len(turns), num_rows)
        for turn, logits in zip(turns, rows, strict=True):
            if turn.name not in self._schedule.sessions:  # of a search that ended with another lane
                continue
            self._advance(turn, logits, report, said)
        return report

    def _advance(self, turn: Turn, logits: Logits, report: PassReport, said: Said) -> None:
        """Move one session's frontier by what the pass brought it."""
        live, now_s = turn.live, self._clock()
        elapsed_ms = live.waited_ms(now_s)
        live.served_s = now_s
        live.is_suspect = False
        live.is_filling = turn.drafts is None
        self._schedule.charge(turn)
        if turn.drafts is None:
            report.num_filled += turn.num_missing
            live.session.wants_step = True  # more of the prompt is to come; no patience is due between
            return
        report.num_filled += turn.num_missing - 1
        if isinstance(live.session, Lane):
            self._take(turn.name, live.session, logits, report, said)
            return
        start = live.session.frontier
        try:
            verified, path = live.session.advance(turn.drafts, logits)
        except (BadLogits, GrammarFailed) as error:
            self._cache.drop(turn.name)
            self._schedule.fail(turn.name, error, said)
            return
        said.append((turn.name, self._last_word(live.session, verified) if verified.finish else verified))
        num_tokens = live.session.frontier - start
        live.pace.observe(turn.drafts.about, len(path), num_tokens, elapsed_ms / turn.num_sessions, turn.cost_ms)
        report.drafted.append(verified.num_drafted)
        report.accepted.append(verified.num_accepted)
        report.own_drafted.append(len(turn.drafts) - verified.num_drafted)
        report.own_accepted.append(len(path) - verified.num_accepted)
        report.emitted.append(num_tokens)
        try:
            is_kept = settle(turn, path, self._engine)
        except FAILURES:
            is_kept = False
        if not is_kept:
            self._cache.drop(turn.name)
        if live.session.finish:
            self._schedule.end(turn.name)

    def _take(self, name: str, lane: Lane, logits: Logits, report: PassReport, said: Said) -> None:
        """A row for a lane of a search; lanes that go on with other lists leave their places in the cache."""
        search = lane.search
        try:
            messages = search.take(lane, logits)
        except (BadLogits, GrammarFailed, InvalidParameter) as error:
            self._cache.drop(name)
            self._schedule.fail(name, error, said)
            return
        said += [(search.name, message) for message in messages]
        report.drafted.append(0)
        report.accepted.append(0)
        report.own_drafted.append(0)
        report.own_accepted.append(0)
        report.emitted.append(sum(len(message.token_ids) // 4 for message in messages))
        for each, other in zip(search.names, search.lanes, strict=True):
            if other.is_moved or other.finish:
                self._cache.drop(each)
                other.is_moved = False
        if len(search.lanes) > self._engine.max_sequences:  # what the next lane shares with this one it takes over
            self._cache.leave(name)
        if search.is_over:
            self._schedule.end(name)

    def _failed(self, turns: Sequence[Turn], error: OutriderError, said: Said) -> None:
        """Lengths are undefined now. Several sessions: each tries again alone. One alone: it is to blame."""
        for turn in turns:
            self._cache.drop(turn.name)
            turn.live.is_suspect = True
            turn.live.is_filling = False
        if len(turns) == 1:
            self._schedule.fail(turns[0].name, error, said)
