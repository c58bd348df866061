"""One generation as the verifier sees it: the verified list, and the drafts that wait at its right end.

The rules of epochs and overlaps live here, free of engines, threads and links:

- drafts of an epoch that missed are dropped unread; the device raises its epoch when it hears of the miss
- drafts left of the frontier are compared, not dropped: where they agree, the rest still counts
- a draft without ids asks for one step alone
"""

import math

from cloud_verifier.limits import MAX_PENDING
from cloud_verifier.pending import Pending
from outrider.acceptance import accept
from outrider.choice import SamplingParams, choose, top_logprobs
from outrider.engines.base import Engine, Logits
from outrider.wire import Draft, Logprobs, Open, Verified, pack_ids, unpack_ids, unpack_parents

__all__ = ["VerifierSession"]


class VerifierSession:
    """`token_ids` is the list up to the frontier, `pending` the drafts right of it, `limit` where the list ends."""

    def __init__(self, message: Open, limit: int) -> None:
        self.token_ids = unpack_ids(message.token_ids)
        self.params: SamplingParams = message.params.sampling()
        self.stop_ids = frozenset(unpack_ids(message.stop_ids))
        self.patience_ms = message.patience_ms
        self.num_logprobs = message.num_logprobs
        self.limit = limit
        self.pending = Pending()
        self.epoch = 0
        self.finish: str | None = None
        self.has_drafted = False
        self._missed_epoch = -1
        self.wants_step = True  # the first choice after the prompt needs no draft

    @property
    def frontier(self) -> int:
        return len(self.token_ids)

    def patience_in_force_ms(self, load_ms: float) -> float:
        """How long to wait for drafts, infinite for ever: what was asked for, and under load at least `load_ms`."""
        if self.patience_ms < 0:
            return math.inf
        return max(self.patience_ms, load_ms if self.has_drafted else 0.0)

    def is_ready(self, waited_ms: float, load_ms: float = 0.0) -> bool:
        """Whether a pass would be of use now, after waiting this long since the last one."""
        return bool(self.pending) or self.wants_step or waited_ms >= self.patience_in_force_ms(load_ms)

    def receive(self, message: Draft) -> None:
        """Take in drafts. Raises ProtocolError for malformed ones; stale drafts are dropped in silence."""
        drafts = unpack_ids(message.token_ids)
        parents = unpack_parents(message.parents, len(drafts))
        if message.epoch <= self._missed_epoch or message.epoch < self.epoch:
            return
        if message.epoch > self.epoch:
            self.epoch = message.epoch
            self.pending = Pending()
        if not drafts:
            self.wants_step = self.wants_step or message.start == self.frontier
            return
        self.has_drafted = True
        confidences = [value / 255 for value in message.confidences]
        if len(confidences) != len(drafts):
            confidences = []
        if parents is not None or not self.pending.is_chain:
            self._replace(message.start, Pending(drafts, confidences, parents))
        else:
            self._append(message.start, Pending(drafts, confidences))

    def _replace(self, start: int, tree: Pending) -> None:
        """A tree stands alone: what waited makes room."""
        if start > self.frontier or not tree.advance(self.token_ids[start:]):
            self._miss()
        else:
            self.pending = tree

    def _append(self, start: int, chain: Pending) -> None:
        known = [*self.token_ids[start:], *self.pending.token_ids[max(0, start - self.frontier) :]]
        drafts = chain.token_ids
        if start > self.frontier + len(self.pending) or drafts[: len(known)] != known[: len(drafts)]:
            self._miss()
        else:
            room = slice(len(known), len(known) + MAX_PENDING - len(self.pending))
            self.pending.append(drafts[room], chain.confidences[room])

    def drafts_for_pass(self, max_drafts: int, *, supports_tree: bool = False) -> Pending:
        """The drafts the next pass checks: no more than asked for, and none beyond the limit."""
        pending = self.pending if supports_tree or self.pending.is_chain else self.pending.first_path()
        return pending.first(max_drafts, self.limit - self.frontier - 1)

    def advance(self, drafts: Pending, logits: Logits) -> tuple[Verified, list[int]]:
        """Move the frontier by one pass over `drafts`, given logits of shape (len(drafts) + 1, n_vocab).

        Gives what to say and the rows of the accepted drafts. Raises BadLogits, with nothing changed.
        """
        start = self.frontier
        depths = {-1: 0}
        for row, parent in enumerate(drafts.parents):
            depths[row] = depths[parent] + 1
        verified, path = accept(
            drafts.token_ids,
            drafts.parents,
            lambda row: choose(logits[row + 1], self.params, start + depths[row]),
        )
        stop = next((n for n, token_id in enumerate(verified) if token_id in self.stop_ids), None)
        if stop is not None:
            del verified[stop + 1 :], path[stop + 1 :]
            self.finish = "stop"
        self.token_ids += verified
        self.wants_step = False
        if not self.pending.advance(verified):
            self._miss()
        if self.finish is None and self.frontier >= self.limit:
            self.finish = "length"
        logprobs = []
        if self.num_logprobs >= 0:
            rows = [0, *(row + 1 for row in path)]
            logprobs = [self._logprobs(logits[row], token_id) for row, token_id in zip(rows, verified, strict=False)]
        message = Verified(self.epoch, start, pack_ids(verified), len(path), len(drafts), self.finish, logprobs)
        return message, path

    def _logprobs(self, logits: Logits, token_id: int) -> Logprobs:
        chosen, best, values = top_logprobs(logits, token_id, self.num_logprobs)
        return Logprobs(chosen, pack_ids(best), values)

    def _miss(self) -> None:
        self.pending = Pending()
        self._missed_epoch = self.epoch

    def check_integrity(self, engine: Engine) -> None:
        """Raises AssertionError when the state contradicts itself."""
        if self.finish is None and self.frontier >= self.limit:
            raise AssertionError("a session at its limit is not finished")
        if len(self.pending) > MAX_PENDING:
            raise AssertionError("more drafts wait than may")
        if any(not 0 <= token_id < engine.n_vocab for token_id in self.token_ids):
            raise AssertionError("an id outside the vocabulary was verified")
