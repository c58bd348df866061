"""Many sessions over one engine, moved forward in batched passes. No threads, no link, no HTTP.

`step` takes, for every session that is ready, the tokens its cache lacks and its pending drafts; one engine pass; the
choices; what was earned becomes verified. A session's cache may be dropped at any time: the next pass fills it again.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from cloud_verifier.cache import ResidentSessions
from cloud_verifier.limits import FILL_TOKENS, MAX_DRAFTS_PER_PASS
from cloud_verifier.session import VerifierSession
from outrider.engines.base import Chunk, Engine
from outrider.errors import (
    BadLogits,
    ContextExceeded,
    EmptyPrompt,
    EngineError,
    InvalidToken,
    ModelMismatch,
    OutriderError,
    VocabularyMismatch,
)
from outrider.wire import Cancel, Down, Draft, Fault, Limit, Open, Opened, unpack_ids

__all__ = ["Verifier"]


@dataclass(slots=True)
class _Turn:
    """What one session brings to one pass."""

    name: str
    session: VerifierSession
    chunk: Chunk
    drafts: list[int] | None  # None while its prompt is still being filled in


class Verifier:
    """`target` and `vocabulary` are the fingerprints of the engine's weights and tokenizer."""

    def __init__(
        self, engine: Engine, *, target: str, vocabulary: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._target = target
        self._vocabulary = vocabulary
        self._clock = clock
        self._resident = ResidentSessions(engine)
        self._sessions: dict[str, VerifierSession] = {}
        self._served_s: dict[str, float] = {}  # when each session last had a pass; longest ago goes first
        self.num_passes = 0

    def open(self, message: Open) -> Opened:
        """Begin a session, or go on with a list from anywhere. Raises a UsageError and keeps nothing."""
        if message.vocabulary not in ("", self._vocabulary):
            raise VocabularyMismatch(
                "the drafter's vocabulary is not the target's; choose a drafter of the same family, or --drafter lookup"
            )
        if message.target not in ("", self._target):
            raise ModelMismatch(
                f"the verifier runs target {self._target[:12]}, not {message.target[:12]}; name one of the two anew"
            )
        token_ids = unpack_ids(message.token_ids)
        if not token_ids:
            raise EmptyPrompt("the prompt is empty; give at least one token")
        for token_id in (*token_ids, *unpack_ids(message.stop_ids)):
            if token_id >= self._engine.n_vocab:
                raise InvalidToken(f"token id {token_id} is outside the model's vocabulary of {self._engine.n_vocab}")
        if len(token_ids) >= self._engine.max_context:
            raise ContextExceeded(
                f"the prompt has {len(token_ids)} tokens and the context holds {self._engine.max_context}; shorten it"
            )
        limit = min(message.limit, self._engine.max_context)
        if limit <= len(token_ids):
            raise ContextExceeded(
                f"the list has {len(token_ids)} tokens and was to end at {limit}; ask for more tokens"
            )
        name = secrets.token_urlsafe(32)
        self._sessions[name] = VerifierSession(message, limit)
        self._served_s[name] = self._clock()
        return Opened(name, self._target, self._vocabulary, self._engine.n_vocab, self._engine.max_context, limit, 0)

    def receive(self, name: str, message: Draft | Limit | Cancel) -> None:
        """A message for a live session; one that is over is none of ours. Raises InvalidToken, ProtocolError."""
        session = self._sessions.get(name)
        if session is None:
            return
        if isinstance(message, Cancel):
            self.close(name)
        elif isinstance(message, Limit):
            session.limit = max(session.frontier + 1, min(message.limit, self._engine.max_context))
        else:
            for token_id in unpack_ids(message.token_ids):
                if token_id >= self._engine.n_vocab:
                    raise InvalidToken(
                        f"token id {token_id} is outside the model's vocabulary of {self._engine.n_vocab}"
                    )
            session.receive(message)

    def close(self, name: str) -> None:
        """Forget a session. Closing one that is over is safe."""
        self._sessions.pop(name, None)
        self._served_s.pop(name, None)
        self._resident.drop(name)

    def drop_cache(self, name: str) -> None:
        """Lose a session's KV cache, as pressure would; its next pass fills it again."""
        self._resident.drop(name)

    def wait_s(self) -> float | None:
        """Seconds until a session becomes ready by itself: 0 now, None never."""
        waits = [
            0.0 if session.is_ready(0) else session.patience_ms / 1000 - (self._clock() - self._served_s[name])
            for name, session in self._sessions.items()
            if session.is_ready(0) or session.patience_ms > 0
        ]
        return max(0.0, min(waits)) if waits else None

    def step(self) -> list[tuple[str, Down]]:
        """One engine pass for the sessions that are ready; what to tell whom. Nothing ready: an empty list."""
        turns = self._turns()
        if not turns:
            return []
        self.num_passes += 1
        try:
            rows = self._engine.extend([turn.chunk for turn in turns])
        except OutriderError as error:
            for turn in turns:
                self.close(turn.name)
            return [(turn.name, Fault.of(error, may_retry=isinstance(error, EngineError))) for turn in turns]
        said: list[tuple[str, Down]] = []
        now = self._clock()
        for turn, logits in zip(turns, rows, strict=True):
            self._served_s[turn.name] = now
            if turn.drafts is None:
                turn.session.wants_step = True  # more of the prompt is to come; no patience is due between
                continue
            try:
                verified = turn.session.advance(turn.drafts, logits)
            except BadLogits as error:
                said.append((turn.name, Fault.of(error)))
                self.close(turn.name)
                continue
            said.append((turn.name, verified))
            if turn.session.finish:
                self.close(turn.name)
            else:  # the last verified token has no cache yet, and refused drafts must have none
                self._engine.truncate(turn.chunk.sequence, turn.session.frontier - 1)
        return said

    def _turns(self) -> list[_Turn]:
        now = self._clock()
        ready = [
            name
            for name in sorted(self._served_s, key=self._served_s.__getitem__)
            if self._sessions[name].is_ready((now - self._served_s[name]) * 1000)
        ][: min(self._engine.max_batch, self._engine.max_sequences)]
        return [self._turn(name, self._resident.acquire(name, in_use=ready)) for name in ready]

    def _turn(self, name: str, sequence: int) -> _Turn:
        session = self._sessions[name]
        missing = session.token_ids[self._engine.length(sequence) :]
        if len(missing) > FILL_TOKENS:
            return _Turn(name, session, Chunk(sequence, missing[:FILL_TOKENS], num_logits=0), None)
        drafts = session.drafts_for_pass(MAX_DRAFTS_PER_PASS)
        return _Turn(name, session, Chunk(sequence, [*missing, *drafts], num_logits=1 + len(drafts)), drafts)

    def check_integrity(self) -> None:
        """Raises AssertionError when sessions, cache and engine contradict each other."""
        self._resident.check_integrity({name: session.frontier for name, session in self._sessions.items()})
        if self._served_s.keys() != self._sessions.keys():
            raise AssertionError("a session without a place in the order, or the other way round")
        for session in self._sessions.values():
            session.check_integrity(self._engine)
