"""A device: the product's own list of drafts and its own pace, over a drafter that takes so long and says what it says.

Knows no link and no verifier: it is told what came, and says what it sends.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from benchmarks.simulation.text import N_VOCAB, Text
from edge_runtime.ahead import MAX_AHEAD, AheadPace
from edge_runtime.drafters.base import Proposal
from edge_runtime.frontier import Frontier
from outrider.choice import SamplingParams
from outrider.framing import to_frame
from outrider.wire import Down, Draft, Load, Open, Params, Up, Verified, pack_ids

__all__ = ["NEVER", "Device", "Result"]

NEVER = float("inf")  # milliseconds a draft takes where there is no drafter
MASK = 4  # bytes, of what a WebSocket's client sends


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
        proposal = Proposal("model")
        room = min(self._max_ahead - frontier.num_ahead, self.limit - frontier.end - 1)
        if room < 1 or pace.rests:
            return proposal
        pace.begin(frontier.confidences)
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
        end = frontier.end - self._offset
        return text.guesses(end, frontier.guesses == text.token_ids[end - frontier.num_ahead : end])

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
