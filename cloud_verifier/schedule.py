"""The sessions that are open: which of them are ready, which go into the next pass, and what each brings to it.

Knows times, credentials and places in the cache; runs no pass and reads no message.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from cloud_verifier.cache import ResidentLists
from cloud_verifier.failures import FAILURES, typed
from cloud_verifier.fairness import FairShare
from cloud_verifier.limits import Limits
from cloud_verifier.live import Live, LoadMeter
from cloud_verifier.rota import choose_sessions
from cloud_verifier.shared_pass import PassTimes, SessionsPart
from cloud_verifier.turn import Place, Turn, plan_turn
from outrider.engines.base import Engine
from outrider.errors import Moved, OutriderError
from outrider.wire import Down, Fault

__all__ = ["Said", "Schedule"]

Said = list[tuple[str, Down]]

HOLD_PASSES = 32.0  # plain passes that a session may keep its place in the cache while others wait for one


class Schedule:
    def __init__(
        self,
        engine: Engine,
        cache: ResidentLists,
        limits: Limits,
        pass_ms: Callable[[int], float],
        times: PassTimes,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._cache = cache
        self._limits = limits
        self._pass_ms = pass_ms
        self._times = times
        self._clock = clock
        self._fair = FairShare()
        self._load = LoadMeter(pass_ms(1))
        self.sessions: dict[str, Live] = {}

    @property
    def num_slots(self) -> int:
        """Sessions that one pass can take."""
        return min(self._engine.max_batch, self._engine.max_sequences, self._limits.pass_tokens)

    @property
    def num_ready(self) -> int:
        now_s = self._clock()
        return sum(self._is_ready(live, now_s) for live in tuple(self.sessions.values()))

    def wait_s(self) -> float | None:
        """Seconds until something is to be done without any message: 0 now, None never."""
        now_s = self._clock()
        waits = []
        for live in self.sessions.values():
            if self._is_ready(live, now_s):
                return 0.0
            patience_ms = live.session.patience_in_force_ms(self._load.patience_ms)
            waits.append(min((patience_ms - live.waited_ms(now_s)) / 1000, live.heard_s + self._limits.idle_s - now_s))
        return max(0.0, min(waits)) if waits else None

    def end(self, name: str) -> None:
        """Forget a session, or a search with all its lanes; caches stay while there is room. Safe for one that is
        over."""
        live = self.sessions.get(name)
        for each in live.names if live is not None else ():
            self.sessions.pop(each, None)
            self._cache.leave(each)
        if live is not None and all(other.credential != live.credential for other in self.sessions.values()):
            self._fair.forget(live.credential)

    def fail(self, name: str, error: OutriderError, said: Said) -> None:
        """End a session, and say why."""
        said.append((self.sessions[name].names[0], Fault.of(error)))
        self.end(name)

    def charge(self, turn: Turn) -> None:
        """This turn was in a pass: its credential had so much of the verifier."""
        self._fair.charge(turn.live.credential, turn.cost_ms(len(turn.chunk.token_ids)) / turn.cost_ms(1))

    def timed(self, turns: Sequence[Turn], elapsed_ms: float) -> None:
        """This is how long a pass took."""
        if self._engine.max_batch > 1:
            self._times.observe(sum(len(turn.chunk.token_ids) for turn in turns), elapsed_ms)

    def plan(self, said: Said) -> list[Turn]:
        """Who has the next pass, and what each brings. A row each is certain; prompts and drafts share the rest, drafts
        in equal parts: else those that come last would bring none, in this pass and in all that follow."""
        chosen = self._choose(said)
        turns: list[Turn] = []
        in_use = {*chosen, *(name for name, live in self.sessions.items() if live.is_filling)}
        if len(in_use) > self._engine.max_sequences:  # a suspect's pass, which is its own
            in_use = set(chosen)
        room = self._limits.pass_tokens - len(chosen)
        for number, name in enumerate(chosen):
            live = self.sessions.get(name)
            if live is None:  # of a search that ended with another lane
                continue
            try:
                sequence = self._cache.acquire(name, live.credential, live.session.token_ids, in_use)
            except FAILURES as error:
                self.fail(name, typed(error), said)
                continue
            num_others = self._limits.pass_tokens - room - 1  # the rows that are planned, and one of each to come
            cost_ms = SessionsPart(self._times, len(chosen), num_others) if len(chosen) > 1 else self._pass_ms
            share = -(-room // (len(chosen) - number))
            place = Place(1 + room, share, self._limits.fill_tokens, len(chosen), cost_ms)
            turns.append(plan_turn(name, live, self._engine, sequence, place))
            room -= len(turns[-1].chunk.token_ids) - 1
        self._cache.make_room(in_use)
        return [turn for turn in turns if turn.name in self.sessions]

    def _choose(self, said: Said) -> list[str]:
        now_s = self._clock()
        for name, live in list(self.sessions.items()):
            if now_s - live.heard_s >= self._limits.idle_s and not self._is_ready(live, now_s):
                self.fail(name, Moved("the session was idle for too long; open it again to go on"), said)
        ready = {name: live for name, live in self.sessions.items() if self._is_ready(live, now_s)}
        self._load.observe(len(ready), self.num_slots)
        for name, live in self.sessions.items():
            if (news := self._load.news_for(live)) is not None:
                said.append((name, news))
        self._make_way(ready)
        num_filling = sum(live.is_filling for live in self.sessions.values())
        return choose_sessions(
            ready,
            self._fair,
            self.num_slots,
            num_free=self._engine.max_sequences - num_filling,
            has_place=self._cache.has_place_for,
            hold_s=HOLD_PASSES * self._pass_ms(1) / 1000,
        )

    def _make_way(self, ready: Mapping[str, Live]) -> None:
        """Where prompts fill all places and another credential has none, that with the most gives one up: its youngest,
        which begins anew once a place is free."""
        filling = [live for live in self.sessions.values() if live.is_filling]
        held = Counter(live.credential for live in filling)
        if len(filling) < self._engine.max_sequences or not {live.credential for live in ready.values()} - set(held):
            return
        [(most, num_held)] = held.most_common(1)
        if num_held > 1:
            youngest = max((live for live in filling if live.credential == most), key=lambda live: live.served_s)
            youngest.is_filling = False

    def _is_ready(self, live: Live, now_s: float) -> bool:
        return live.session.is_ready(live.waited_ms(now_s), self._load.patience_ms)
