"""Many sessions over one engine, moved forward in batched passes. No threads, no link, no HTTP.

`step` takes, for the sessions that are ready, fairly over credentials (`schedule.py`), the tokens their caches lack and
their pending drafts; one engine pass (`engine_pass.py`); the choices; what was earned becomes verified. A session's
cache may be lost at any time: the next pass fills it again. A pass that fails is tried again one session at a time, so
that one cannot take others along.
"""

import math
import secrets
import time
from collections.abc import Callable, Mapping

import msgspec

from cloud_verifier.admission import check_ids, check_open
from cloud_verifier.cache import ResidentLists
from cloud_verifier.engine_pass import EnginePass
from cloud_verifier.lanes import Lane, Lanes, open_lanes
from cloud_verifier.limits import MAX_DRAFTS_PER_PASS, Limits
from cloud_verifier.live import Live
from cloud_verifier.own_drafts import MOST, OwnDrafts
from cloud_verifier.pacing import UNKNOWN_COST, UNKNOWN_MS, DraftGuard, SessionPace
from cloud_verifier.schedule import Said, Schedule
from cloud_verifier.session import VerifierSession
from cloud_verifier.shared_pass import PassTimes
from cloud_verifier.signing import Signer
from cloud_verifier.turn import PassReport
from outrider.constraint import Constrain
from outrider.engines.base import Engine
from outrider.errors import Overloaded, ProtocolError, TooMany
from outrider.wire import Cancel, Draft, Limit, Load, Open, Opened, Verified, unpack_ids
from outrider.worth import PassCost

__all__ = ["Verifier"]


class Verifier:
    """`target` and `vocabulary` are the fingerprints of the engine's weights and tokenizer.

    `pass_ms`: the engine's milliseconds for a pass over k rows, for k from 1 on without gaps, where they are known.
    Whoever is in `on_pass` hears of every pass, from the thread that calls `step`. `signer` signs for devices that ask.
    `constrain` makes the constraints that grammars ask for, over the target's ids; without it a grammar is refused.
    `new_name` names sessions; nobody but a session's device may be able to guess its name.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        target: str,
        vocabulary: str,
        limits: Limits | None = None,
        pass_ms: Mapping[int, float] | None = None,
        signer: Signer | None = None,
        clock: Callable[[], float] = time.monotonic,
        constrain: Constrain | None = None,
        new_name: Callable[[], str] = lambda: secrets.token_urlsafe(32),
    ) -> None:
        self._engine = engine
        self._constrain = constrain
        self.target = target
        self.vocabulary = vocabulary
        self.limits = limits or Limits()
        self._pass_ms: Callable[[int], float] = PassCost(pass_ms) if pass_ms else UNKNOWN_COST
        self.on_pass: list[Callable[[PassReport], None]] = []
        self._signer = signer
        self._clock = clock
        self._new_name = new_name
        self.cache = ResidentLists(engine, self.limits.resident_tokens)
        self._guards: dict[str, DraftGuard] = {}
        times = PassTimes(pass_ms or UNKNOWN_MS, self.limits.pass_tokens, learns=bool(pass_ms))
        self._schedule = Schedule(engine, self.cache, self.limits, self._pass_ms, times, clock)
        self._sessions = self._schedule.sessions
        self._pass = EnginePass(engine, self.cache, self._schedule, clock, self._signed)
        self.num_passes = 0

    @property
    def n_vocab(self) -> int:
        return self._engine.n_vocab

    @property
    def max_context(self) -> int:
        return self._engine.max_context

    @property
    def num_sessions(self) -> int:
        return len(self._sessions)

    @property
    def num_slots(self) -> int:
        """Sessions that one pass can take."""
        return self._schedule.num_slots

    @property
    def num_ready(self) -> int:
        """Sessions that a pass could move now. Another thread that asks may get a number that is a pass old."""
        return self._schedule.num_ready

    @property
    def guards(self) -> Mapping[str, DraftGuard]:
        """By credential: what its drafts cost and brought."""
        return self._guards

    def open(self, message: Open, credential: str = "") -> Opened:
        """Begin a session, or go on with a list from anywhere. Raises a UsageError or Refused, and keeps nothing."""
        token_ids = check_open(message, self.target, self.vocabulary, self._engine)
        self._admit(credential, message.search.params().num_lanes if message.search is not None else 1)
        limit = min(message.limit, self._engine.max_context)
        lanes = open_lanes(message, limit, self._constrain)
        if lanes is not None:
            name = lanes.name
            self._guards.setdefault(credential, DraftGuard(self._pass_ms))
            self._add_lanes(lanes, credential)
        else:
            name = self._new_name()
            session = VerifierSession(message, limit, self._constrain)
            guard = self._guards.setdefault(credential, DraftGuard(self._pass_ms))
            now_s = self._clock()
            told = Load(message.patience_ms, MAX_DRAFTS_PER_PASS)
            pace = SessionPace(guard, self._pass_ms)
            own = self._own_drafts(message, limit, credential)
            self._sessions[name] = Live(session, credential, pace, now_s, now_s, told, [name], own)
        num_reused = self.cache.num_shared(credential, token_ids)
        signer = self._signer if message.wants_signature and lanes is None else None
        return Opened(
            name,
            self.target,
            self.vocabulary,
            self._engine.n_vocab,
            self._engine.max_context,
            limit,
            num_reused,
            signer.public_key if signer else b"",
        )

    def _add_lanes(self, lanes: Lanes, credential: str) -> None:
        """Sessions that hear nothing and draft nothing: what their passes cost says nothing of anybody's drafts."""
        for name, lane in zip(lanes.names, lanes.lanes, strict=True):
            pace = SessionPace(DraftGuard(self._pass_ms), self._pass_ms)
            told = Load(lane.patience_ms, MAX_DRAFTS_PER_PASS)
            self._sessions[name] = Live(lane, credential, pace, self._clock(), math.inf, told, lanes.names)

    def _admit(self, credential: str, num_lanes: int) -> None:
        if len(self._sessions) + num_lanes > self.limits.max_sessions:
            raise Overloaded(f"all {self.limits.max_sessions} sessions of this verifier are taken; try again soon")
        held = sum(1 for live in self._sessions.values() if live.credential == credential)
        if held + num_lanes > self.limits.max_sessions_each:
            raise TooMany(
                f"this credential has {held} sessions open and may have {self.limits.max_sessions_each}, "
                "a search being as many as its beams or samples; finish one first"
            )

    def _own_drafts(self, message: Open, limit: int, credential: str) -> OwnDrafts | None:
        """Where the device asked for them, does not decide alone when to draft, and there is memory left, of which
        no credential has more than half."""
        if not message.self_drafts or message.patience_ms < 0:
            return None
        size, most = min(MOST, limit), self.limits.lookup_tokens
        held = [(live.credential, live.own.size) for live in self._sessions.values() if live.own is not None]
        in_all = size + sum(tokens for _, tokens in held)
        its_own = size + sum(tokens for holder, tokens in held if holder == credential)
        return OwnDrafts(size) if in_all <= most and its_own <= most // 2 else None

    def receive(self, name: str, message: Draft | Limit | Cancel) -> None:
        """A message for a live session; one that is over is none of ours. Raises InvalidToken, ProtocolError."""
        live = self._sessions.get(name)
        if live is None:
            return
        session = live.session
        if isinstance(message, Cancel):
            self.close(name)
            return
        if isinstance(session, Lane):
            raise ProtocolError("a search takes no drafts and no other limit; cancel it and open another")
        live.heard_s = self._clock()
        if isinstance(message, Limit):
            session.limit = max(session.frontier + 1, min(message.limit, self._engine.max_context))
        else:
            check_ids(unpack_ids(message.token_ids), self._engine.n_vocab)
            session.receive(message)

    def close(self, name: str) -> None:
        """End a session; its cache stays while there is room. Closing one that is over is safe."""
        self._schedule.end(name)

    def credential_of(self, name: str) -> str | None:
        live = self._sessions.get(name)
        return None if live is None else live.credential

    def drop_cache(self, name: str) -> None:
        """Lose a session's KV cache, as pressure would; its next pass fills it again."""
        live = self._sessions.get(name)
        for each in live.names if live is not None else ():
            self.cache.drop(each)

    def wait_s(self) -> float | None:
        """Seconds until something is to be done without any message: 0 now, None never."""
        return self._schedule.wait_s()

    def step(self) -> Said:
        """One engine pass for sessions that are ready; what to tell whom. Nothing ready: perhaps an empty list."""
        said: Said = []
        turns = self._schedule.plan(said)
        if not turns:
            return said
        self.num_passes += 1
        report = self._pass.run(turns, said)
        if report is not None:
            for hear in self.on_pass:
                hear(report)
        return said

    def _signed(self, session: VerifierSession, verified: Verified) -> Verified:
        if not session.wants_signature or self._signer is None:
            return verified
        signature = self._signer.sign(session.statement(self.target, self.vocabulary))
        return msgspec.structs.replace(verified, signature=signature)

    def check_integrity(self) -> None:
        """Raises AssertionError when sessions, cache and engine contradict each other."""
        self.cache.check_integrity({name: live.session.frontier for name, live in self._sessions.items()})
        for live in self._sessions.values():
            live.session.check_integrity(self._engine)
            if live.own is not None:
                live.own.check_integrity(live.session.token_ids)
        if any(live.credential not in self._guards for live in self._sessions.values()):
            raise AssertionError("a session without a guard")
