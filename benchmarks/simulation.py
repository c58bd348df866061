"""Devices, their links and one verifier, event by event, with the product's own rules on both sides.

Real: the device's list (`Frontier`) and pace; the verifier's session, its own drafts, pace and guard, and for many
devices its whole scheduler (`simulated_verifier.py`). Simulated: how long a draft, a pass and a message take, what the
target says, and which of the drafter's guesses it agrees with. Milliseconds throughout; no clock is read.
"""

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import numpy as np

from cloud_verifier.own_drafts import OwnDrafts
from cloud_verifier.pacing import DraftGuard, SessionPace
from cloud_verifier.session import VerifierSession
from cloud_verifier.turn import choose_drafts
from edge_runtime.ahead import MAX_AHEAD, AheadPace
from edge_runtime.drafters.base import Proposal
from edge_runtime.frontier import Frontier
from outrider.choice import SamplingParams
from outrider.engines.base import Logits
from outrider.framing import to_frame
from outrider.wire import Down, Draft, Load, Open, Params, Up, Verified, pack_ids

__all__ = ["NEVER", "Device", "Link", "Result", "Server", "Text", "bursts", "one_hot", "play", "repeating", "simulate"]

N_VOCAB = 256
ONE_HOT = np.eye(N_VOCAB + 1, N_VOCAB, dtype=np.float32)  # the last row says nothing
MAX_DRAFTS = 31
NEVER = float("inf")  # milliseconds a draft takes where there is no drafter
SHORTEST_MS = 0.001  # a wait that rounding made too short must come to its end
MASK = 4  # bytes, of what a WebSocket's client sends


@dataclass(frozen=True)
class Text:
    """What the target will say, and where the drafter agrees: `agrees[i]` given that all before it were right."""

    token_ids: list[int]
    agrees: list[bool]
    confidences: list[float]
    prompt_ids: list[int] = field(default_factory=lambda: [0])

    def guesses(self, start: int, is_right: bool = True) -> Iterator[tuple[int, float]]:
        """What the drafter would say from a place on, and how sure it would be; all wrong after something wrong."""
        for place in range(start, len(self.token_ids)):
            is_right = is_right and self.agrees[place]
            token_id = self.token_ids[place]
            yield (token_id if is_right else (token_id + 1) % N_VOCAB), self.confidences[place]


def bursts(num_tokens: int, acceptance: float, mean_run: float, rng: random.Random, noise: float = 0.15) -> Text:
    """Agreement in runs of mean length `mean_run` (0: as independent tokens have), `acceptance` of all tokens."""
    miss = min(1 - acceptance, 1 / mean_run) if mean_run else 1 - acceptance
    again = 1 - miss * acceptance / (1 - acceptance) if acceptance < 1 else 0.0  # a miss follows a miss
    agrees: list[bool] = []
    right = True
    for _ in range(num_tokens):
        right = rng.random() >= (miss if right else max(0.0, again))
        agrees.append(right)
    confidences = [min(1.0, max(0.0, (0.9 if right else 0.45) + rng.gauss(0, noise))) for right in agrees]
    return Text([rng.randrange(N_VOCAB) for _ in range(num_tokens)], agrees, confidences)


def repeating(text: Text, mean_copy: float, mean_new: float, rng: random.Random, num_prompt: int = 300) -> Text:
    """The same agreement on other tokens: pieces copied from what stands before, `mean_copy` long, and new ones between
    them, `mean_new` long. The prompt is of the same kind."""
    tokens = [rng.randrange(N_VOCAB) for _ in range(8)]
    while len(tokens) < num_prompt + len(text.token_ids):
        start = rng.randrange(len(tokens))
        tokens += tokens[start : start + 2 + int(rng.expovariate(1 / mean_copy))]
        tokens += [rng.randrange(N_VOCAB) for _ in range(int(rng.expovariate(1 / mean_new) + 0.5))]
    end = num_prompt + len(text.token_ids)
    return replace(text, token_ids=tokens[num_prompt:end], prompt_ids=tokens[:num_prompt])


@dataclass(frozen=True)
class Link:
    """`rtt_ms` there and back; `jitter_ms` is added each way, uniform from 0, and never reorders."""

    rtt_ms: float
    jitter_ms: float = 0.0


@dataclass
class Result:
    """Bytes are those of drafts and of verified tokens, framing included."""

    elapsed_ms: float = 0.0
    busy_ms: float = 0.0  # of the verifier
    num_tokens: int = 0
    num_passes: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    num_own: int = 0  # of the drafted ones, the verifier's own
    num_messages: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    trace: list[tuple[float, int]] = field(default_factory=list)  # (when, tokens verified so far)

    @property
    def ms_per_token(self) -> float:
        return self.elapsed_ms / self.num_tokens


class Device:
    """Drafts one token after the other, and knows the text only as far as its drafter would.

    `draft_ms` infinite: no drafter. It drafts ahead, or with `num_drafts` so many a turn, and waits for what becomes of
    them. At `asks_ms` its session is open on both sides: what opens one is left out.
    """

    def __init__(
        self,
        text: Text,
        draft_ms: float,
        *,
        max_ahead: int = MAX_AHEAD,
        num_drafts: int | None = None,
        asks_ms: float = 0.0,
        is_padded: bool = False,
    ) -> None:
        self.frontier = Frontier(text.prompt_ids)
        self.pace = AheadPace()
        self.asks_ms = asks_ms
        self.result = Result()
        self.is_done = False
        self._is_padded = is_padded
        self._text, self._draft_ms, self._max_ahead, self._num_drafts = text, draft_ms, max_ahead, num_drafts
        self._offset = len(text.prompt_ids)
        self.limit = self._offset + len(text.token_ids)
        self._is_drafting = False
        self._is_stopped = False  # the verifier takes no drafts now
        self._has_turn = num_drafts is None

    @property
    def patience_ms(self) -> int:
        return 0 if self._num_drafts is None or self._draft_ms == NEVER else -1

    def opening(self) -> Open:
        params = Params.of(SamplingParams())
        return Open("", "", params, self.limit, self.patience_ms, b"", pack_ids(self._text.prompt_ids))

    def start(self) -> tuple[float, tuple[int, int, Proposal]] | None:
        """How long the drafter is at work from now on, and what it will have made; None while it has nothing to do."""
        if self._is_drafting or self._draft_ms == NEVER or self.is_done or not self._has_turn or self._is_stopped:
            return None
        proposal = self._next_ahead() if self._num_drafts is None else self._next_turn(self._num_drafts)
        if not proposal.token_ids and self._num_drafts is None:
            return None
        self._is_drafting = True
        self._has_turn = self._num_drafts is None
        return self._draft_ms * len(proposal.token_ids), (self.frontier.epoch, self.frontier.end, proposal)

    def _next_turn(self, num_drafts: int) -> Proposal:
        proposal = Proposal("model")
        for token_id, confidence in islice(self._guesses(), min(num_drafts, self.limit - self.frontier.end - 1)):
            proposal.token_ids.append(token_id)
            proposal.confidences.append(confidence)
        return proposal

    def _next_ahead(self) -> Proposal:
        frontier, pace = self.frontier, self.pace
        room = min(self._max_ahead - frontier.num_ahead, self.limit - frontier.end - 1)
        pace.begin(frontier.confidences)
        proposal = Proposal("model")
        guesses = self._guesses()
        reach = 1.0
        while len(proposal.token_ids) < room and pace.wants_another("model", reach, len(proposal.token_ids)):
            token_id, confidence = next(guesses)
            proposal.token_ids.append(token_id)
            proposal.confidences.append(confidence)
            reach *= pace.chance("model", confidence)
        if proposal.token_ids:
            pace.observe_draft("model", self._draft_ms)
        return proposal

    def _guesses(self) -> Iterator[tuple[int, float]]:
        """What the drafter would say after the guesses that are ahead, and how sure it would be."""
        frontier, text = self.frontier, self._text
        start = frontier.end - self._offset
        ahead = frontier.everything()[frontier.end - frontier.num_ahead :]
        return text.guesses(start, ahead == text.token_ids[start - frontier.num_ahead : start])

    def drafted(self, made: tuple[int, int, Proposal]) -> Draft | None:
        """The drafter has made this; what goes up now. In turns, without any draft, one step alone is asked for."""
        self._is_drafting = False
        self.frontier.guess(*made)
        message = self.frontier.next_draft()
        if message is None and self._num_drafts is not None:
            message = Draft(self.frontier.epoch, self.frontier.end, b"")
        if message is not None:
            self.result.num_messages += 1
            self.result.bytes_up += _framed(message, self._is_padded, MASK)
        return message

    def hear(self, message: Down, now_ms: float) -> int:
        """How many tokens it brought."""
        if isinstance(message, Load):
            self._is_stopped = message.max_drafts == 0
            return 0
        assert isinstance(message, Verified), message
        result = self.result
        outcome = self.frontier.commit(message, limit=self.limit, n_vocab=N_VOCAB)
        self.pace.observe(outcome.checked, outcome.num_accepted, len(outcome.tokens), 1.0)
        if outcome.missed:
            self.pace.interrupt()
        self._has_turn = True
        result.num_passes += 1
        result.num_tokens += len(outcome.tokens)
        result.num_drafted += message.num_drafted
        result.num_accepted += message.num_accepted
        result.bytes_down += _framed(message, self._is_padded)
        result.trace.append((now_ms, result.num_tokens))
        if message.finish:
            self.is_done = True
            if self.frontier.token_ids[self._offset :] != self._text.token_ids:
                raise AssertionError("a device was told other tokens than the target's")
        return len(outcome.tokens)


def _framed(message: Up | Down, is_padded: bool, mask: int = 0) -> int:
    """Bytes on a WebSocket."""
    size = len(to_frame(message, is_padded=is_padded))
    return size + (2 if size < 126 else 4) + mask


class Server(Protocol):
    """What stands behind the links. It reads messages between two passes."""

    def receive(self, number: int, message: Up, now_ms: float) -> None:
        """Device `number` said this."""

    def step(self, now_ms: float) -> tuple[float, list[tuple[int, Down]]]:
        """One pass, if there is reason for one: how long it takes, and what is said to whom when it ends."""

    def wait_ms(self, now_ms: float) -> float | None:
        """Until something is to be done without any message; None never."""


def play(
    devices: Sequence[Device], server: Server, link: Link, *, seed: int = 0, num_tokens: int | None = None
) -> None:
    """Until all devices have their answers, or so many tokens were heard by them in all."""
    rng = random.Random(seed)  # noqa: S311
    events: list[tuple[float, int, str, int, object]] = []
    counter = 0
    last_arrival: dict[tuple[str, int], float] = {}
    inbox: list[tuple[int, Up]] = []
    is_busy = False
    num_left = len(devices)
    num_heard = 0

    def at(when: float, kind: str, number: int, what: object = None) -> None:
        nonlocal counter
        counter += 1
        heapq.heappush(events, (when, counter, kind, number, what))

    def travel(now: float, way: str, number: int, what: object) -> None:
        arrival = now + link.rtt_ms / 2 + (rng.uniform(0, link.jitter_ms) if link.jitter_ms else 0.0)
        last_arrival[way, number] = arrival = max(arrival, last_arrival.get((way, number), 0.0))
        at(arrival, way, number, what)

    def draft(now: float, number: int) -> None:
        if (begun := devices[number].start()) is not None:
            at(now + begun[0], "drafted", number, begun[1])

    def verify(now: float) -> None:
        nonlocal is_busy
        for number, message in inbox:
            server.receive(number, message, now)
        inbox.clear()
        duration_ms, said = server.step(now)
        if duration_ms or said:
            is_busy = True
            at(now + duration_ms, "passed", 0, said)
        elif (wait_ms := server.wait_ms(now)) is not None:
            at(now + max(wait_ms, SHORTEST_MS), "wake", 0)

    for number, device in enumerate(devices):
        at(device.asks_ms, "ask", number)
    while events and num_left and (num_tokens is None or num_heard < num_tokens):
        now, _, kind, number, what = heapq.heappop(events)
        if kind == "ask":
            inbox.append((number, devices[number].opening()))
            draft(now, number)
            if not is_busy:
                verify(now)
        elif kind == "drafted":
            message = devices[number].drafted(what)  # type: ignore[arg-type]
            if message is not None:
                travel(now, "up", number, message)
            draft(now, number)
        elif kind == "up":
            inbox.append((number, what))  # type: ignore[arg-type]
            if not is_busy:
                verify(now)
        elif kind == "passed":
            is_busy = False
            for receiver, said in what:  # type: ignore[attr-defined]
                travel(now, "down", receiver, said)
            verify(now)
        elif kind == "wake":
            if not is_busy:
                verify(now)
        else:
            device = devices[number]
            num_heard += device.hear(what, now)  # type: ignore[arg-type]
            num_left -= device.is_done
            draft(now, number)


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


def one_hot(token_ids: Sequence[int], num_rows: int) -> Logits:
    """Logits of a target that says these; rows beyond them say nothing."""
    return ONE_HOT[[*token_ids, *[N_VOCAB] * (num_rows - len(token_ids))]]


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
