"""The link between a device and a verifier, event by event, with the product's own rules on both sides.

Real: the device's list (`Frontier`) and pace, the verifier's session, its own drafts, pace and guard. Simulated: how
long a draft, a pass and a message take, what the target says, and which of the drafter's guesses it agrees with.
Milliseconds throughout; no clock is read.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cloud_verifier.own_drafts import OwnDrafts
from cloud_verifier.pacing import DraftGuard, SessionPace
from cloud_verifier.session import VerifierSession
from cloud_verifier.turn import choose_drafts
from edge_runtime.ahead import MAX_AHEAD, AheadPace
from edge_runtime.drafters.base import Proposal
from edge_runtime.frontier import Frontier
from outrider.choice import SamplingParams
from outrider.wire import Draft, Open, Params, Verified, pack_ids

__all__ = ["Link", "Result", "Text", "bursts", "repeating", "simulate"]

N_VOCAB = 256
MAX_DRAFTS = 31


@dataclass(frozen=True)
class Text:
    """What the target will say, and where the drafter agrees: `agrees[i]` given that all before it were right."""

    token_ids: list[int]
    agrees: list[bool]
    confidences: list[float]
    prompt_ids: list[int] = field(default_factory=lambda: [0])


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
    elapsed_ms: float = 0.0
    busy_ms: float = 0.0  # of the verifier
    num_tokens: int = 0
    num_passes: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    num_own: int = 0  # of the drafted ones, the verifier's own
    num_messages: int = 0
    trace: list[tuple[float, int]] = field(default_factory=list)  # (when, tokens verified so far)

    @property
    def ms_per_token(self) -> float:
        return self.elapsed_ms / self.num_tokens


class _Device:
    """Drafts one token after the other, in messages; knows the text only as far as its drafter would."""

    def __init__(self, text: Text, draft_ms: float, max_ahead: int, prompt: Sequence[int]) -> None:
        self.frontier = Frontier(prompt)
        self.pace = AheadPace()
        self._text, self._draft_ms, self._max_ahead = text, draft_ms, max_ahead
        self._offset = len(prompt)
        self._limit = self._offset + len(text.token_ids)
        self.is_drafting = False
        self.has_news = True

    def start(self) -> tuple[float, int, int, Proposal] | None:
        """What the drafter would make now, and how long it takes; None when it would make nothing."""
        frontier, text = self.frontier, self._text
        room = min(self._max_ahead - frontier.num_ahead, self._limit - frontier.end - 1)
        self.pace.begin(frontier.confidences)
        proposal = Proposal("model")
        reach = 1.0
        start = frontier.end - self._offset
        guesses = frontier.everything()[frontier.end - frontier.num_ahead :]
        on_track = guesses == text.token_ids[start - frontier.num_ahead : start]
        while len(proposal.token_ids) < room and self.pace.wants_another("model", reach, len(proposal.token_ids)):
            place = start + len(proposal.token_ids)
            on_track = on_track and text.agrees[place]
            right = text.token_ids[place]
            proposal.token_ids.append(right if on_track else (right + 1) % N_VOCAB)
            proposal.confidences.append(text.confidences[place])
            reach *= self.pace.chance("model", text.confidences[place])
        if not proposal.token_ids:
            return None
        self.pace.observe_draft("model", self._draft_ms)
        return self._draft_ms * len(proposal.token_ids), frontier.epoch, frontier.end, proposal


class _FixedPace(SessionPace):
    """Takes the same number whenever so many are there; the setting to compare with."""

    def __init__(self, num_drafts: int) -> None:
        super().__init__(DraftGuard())
        self._num_drafts = num_drafts

    @property
    def allows_own(self) -> bool:
        return True

    def num_drafts(self, drafts: Sequence[tuple[str, float]]) -> int:
        return min(self._num_drafts, len(drafts))


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
    """One generation. `draft_ms` infinite: no drafter. `fixed_drafts`: the verifier always takes as many, if there.
    `self_drafts`: it makes its own, too."""
    rng = random.Random(seed)  # noqa: S311
    prompt = text.prompt_ids
    num_tokens = len(text.token_ids)
    device = _Device(text, draft_ms, max_ahead, prompt)
    limit = len(prompt) + num_tokens
    opening = Open("", "", Params.of(SamplingParams()), limit, 0, b"", pack_ids(prompt))
    session = VerifierSession(opening, limit)
    own = OwnDrafts() if self_drafts else None
    pace = _FixedPace(fixed_drafts) if fixed_drafts is not None else SessionPace(DraftGuard(pass_ms), pass_ms)
    while own is not None and not own.read(session.token_ids):
        """The prompt is read before the first pass, as while an engine is filled with it."""
    result = Result()
    events: list[tuple[float, int, str, object]] = []
    counter = 0
    last_arrival = {"up": 0.0, "down": 0.0}
    served_ms = 0.0
    is_busy = False

    def at(when: float, kind: str, what: object) -> None:
        nonlocal counter
        counter += 1
        heapq.heappush(events, (when, counter, kind, what))

    def travel(now: float, way: str, what: object) -> None:
        arrival = now + link.rtt_ms / 2 + rng.uniform(0, link.jitter_ms)
        last_arrival[way] = max(arrival, last_arrival[way])
        at(last_arrival[way], way, what)

    def draft(now: float) -> None:
        if device.is_drafting or draft_ms == float("inf"):
            return
        if (begun := device.start()) is not None:
            device.is_drafting = True
            at(now + begun[0], "drafted", begun[1:])

    def verify(now: float) -> None:
        nonlocal is_busy
        if is_busy or session.finish or not session.is_ready(now - served_ms):
            return
        taken = choose_drafts(session, own, pace, MAX_DRAFTS)
        duration = pass_ms(1 + len(taken))
        is_busy = True
        result.busy_ms += duration
        at(now + duration, "passed", taken)

    draft(0.0)
    verify(0.0)
    while events:
        now, _, kind, what = heapq.heappop(events)
        if kind == "drafted":
            device.is_drafting = False
            device.frontier.guess(*what)  # type: ignore[misc]
            if (message := device.frontier.next_draft()) is not None:
                result.num_messages += 1
                travel(now, "up", message)
            draft(now)
        elif kind == "up":
            assert isinstance(what, Draft)
            session.receive(what)
            verify(now)
        elif kind == "passed":
            is_busy = False
            start = session.frontier - len(prompt)
            rows = text.token_ids[start : start + 1 + len(what)]  # type: ignore[arg-type]
            logits = np.zeros((1 + len(what), N_VOCAB), np.float32)  # type: ignore[arg-type]
            logits[range(len(rows)), rows] = 1
            verified, path = session.advance(what, logits)  # type: ignore[arg-type]
            emitted = len(verified.token_ids) // 4
            pace.observe(what.about, len(path), emitted, now - served_ms)  # type: ignore[attr-defined]
            served_ms = now
            result.num_passes += 1
            result.num_drafted += len(what)  # type: ignore[arg-type]
            result.num_accepted += len(path)
            result.num_own += what.num_own  # type: ignore[attr-defined]
            travel(now, "down", verified)
            verify(now)
        else:
            assert isinstance(what, Verified)
            outcome = device.frontier.commit(what, limit=limit, n_vocab=N_VOCAB)
            device.pace.observe(outcome.checked, outcome.num_accepted, len(outcome.tokens), 1.0)
            if outcome.missed:
                device.pace.interrupt()
            result.num_tokens += len(outcome.tokens)
            result.trace.append((now, result.num_tokens))
            if what.finish:
                break
            draft(now)
    assert device.frontier.token_ids[len(prompt) :] == text.token_ids
    result.elapsed_ms = result.trace[-1][0] - link.rtt_ms / 2
    return result
