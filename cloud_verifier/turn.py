"""What one session brings to one pass: the tokens its cache lacks, and those of its drafts that are worth their rows.

The device's drafts; where none wait, the verifier's own. Pure planning, and what becomes of the cache afterwards. Knows
nothing of other sessions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from cloud_verifier.limits import MAX_DRAFTS_PER_PASS
from cloud_verifier.live import Live
from cloud_verifier.own_drafts import OwnDrafts
from cloud_verifier.pacing import SessionPace
from cloud_verifier.pending import Pending
from cloud_verifier.session import VerifierSession
from outrider.engines.base import Chunk, Engine

__all__ = ["PassReport", "Place", "Turn", "choose_drafts", "plan_turn", "settle"]


@dataclass(slots=True)
class Turn:
    name: str
    live: Live
    chunk: Chunk
    num_missing: int  # tokens of the chunk that are on the list; the rest are drafts
    drafts: Pending | None  # None while the prompt is still being filled in
    num_sessions: int  # of the pass
    cost_ms: Callable[[int], float]  # of the session's rows in it


@dataclass(slots=True)
class PassReport:
    """What one engine pass did. `num_rows` went through the engine, `num_filled` of them to fill caches."""

    elapsed_s: float
    num_sessions: int
    num_rows: int
    num_filled: int = 0
    drafted: list[int] = field(default_factory=list)  # by decoding session: its device's drafts checked,
    accepted: list[int] = field(default_factory=list)  # and accepted,
    own_drafted: list[int] = field(default_factory=list)  # the verifier's own checked,
    own_accepted: list[int] = field(default_factory=list)  # and accepted,
    emitted: list[int] = field(default_factory=list)  # tokens verified


@dataclass(frozen=True, slots=True)
class Place:
    """A session's in the next pass: at least one row and at most `room`, `share` drafts and `fill` tokens of a prompt;
    what its rows cost there, among `num_sessions`."""

    room: int
    share: int
    fill: int
    num_sessions: int
    cost_ms: Callable[[int], float]


def plan_turn(name: str, live: Live, engine: Engine, sequence: int, place: Place) -> Turn:
    """What a session brings to its place."""
    session = live.session
    missing = session.token_ids[engine.length(sequence) :]
    most = min(place.fill, place.room)
    num_sessions, cost_ms = place.num_sessions, place.cost_ms
    if len(missing) > most:
        if live.own is not None:
            live.own.read(session.token_ids)
        return Turn(name, live, Chunk(sequence, missing[:most], num_logits=0), most, None, num_sessions, cost_ms)
    room = min(MAX_DRAFTS_PER_PASS, place.room - len(missing), place.share)
    drafts = choose_drafts(session, live.own, live.pace, room, supports_tree=engine.supports_tree, cost_ms=cost_ms)
    parents = None
    if not drafts.is_chain:
        last = len(missing) - 1
        parents = [*range(-1, last), *(last + 1 + parent for parent in drafts.parents)]
    token_ids = [*missing, *drafts.token_ids]
    chunk = Chunk(sequence, token_ids, 1 + len(drafts), parents)
    return Turn(name, live, chunk, len(missing), drafts, num_sessions, cost_ms)


def choose_drafts(
    session: VerifierSession,
    own: OwnDrafts | None,
    pace: SessionPace,
    room: int,
    *,
    supports_tree: bool = False,
    cost_ms: Callable[[int], float] | None = None,
) -> Pending:
    """The drafts that a pass takes, at most `room`: the device's and, where it takes all of them, the verifier's own
    after them. A tree is taken whole or not at all, and so are drafts that are accepted by rejection."""
    drafts = session.drafts_for_pass(room, supports_tree=supports_tree)
    if session.rejects or not drafts.is_chain:
        return drafts if pace.allows_drafts else Pending()
    count = pace.num_drafts(drafts.about, cost_ms)
    if own is not None and pace.allows_own and count == len(drafts):
        found = own.propose(session.token_ids, session.num_draftable(room) - count, after=drafts.token_ids)
        drafts = drafts.with_own(found.token_ids, found.confidences)
        count = pace.num_drafts(drafts.about, cost_ms)
    return drafts.first(count, count)


def settle(turn: Turn, path: list[int], engine: Engine) -> bool:
    """Keep in the cache what was accepted and nothing else. False where the engine cannot: the cache must go.

    The last verified token has no cache yet; it is the next pass's first row.
    """
    sequence, num_rows = turn.chunk.sequence, len(turn.chunk.token_ids)
    start = engine.length(sequence) - num_rows
    if turn.chunk.parents is not None:
        engine.keep(sequence, start, [*range(turn.num_missing), *(turn.num_missing + row for row in path)])
    elif turn.num_missing + len(path) < num_rows:
        if not engine.can_truncate:
            return False
        engine.truncate(sequence, start + turn.num_missing + len(path))
    return True
