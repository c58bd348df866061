"""One generation as the verifier sees it: the verified list, and the drafts that wait at its right end.

The rules of epochs and overlaps live here, free of engines, threads and links:

- drafts of an epoch that missed are dropped unread; the device raises its epoch when it hears of the miss
- drafts left of the frontier are compared, not dropped: where they agree, the rest still counts
- a draft without ids asks for one step alone
"""

from cloud_verifier.limits import MAX_PENDING
from outrider.acceptance import accept_chain
from outrider.choice import SamplingParams, choose
from outrider.engines.base import Engine, Logits
from outrider.wire import Draft, Open, Verified, pack_ids, unpack_ids

__all__ = ["VerifierSession"]


class VerifierSession:
    """`token_ids` is the list up to the frontier, `pending` the drafts right of it, `limit` where the list ends."""

    def __init__(self, message: Open, limit: int) -> None:
        self.token_ids = unpack_ids(message.token_ids)
        self.params: SamplingParams = message.params.sampling()
        self.stop_ids = frozenset(unpack_ids(message.stop_ids))
        self.patience_ms = message.patience_ms
        self.limit = limit
        self.pending: list[int] = []
        self.epoch = 0
        self.finish: str | None = None
        self._missed_epoch = -1
        self.wants_step = True  # the first choice after the prompt needs no draft

    @property
    def frontier(self) -> int:
        return len(self.token_ids)

    def is_ready(self, waited_ms: float) -> bool:
        """Whether a pass would be of use now, after waiting this long since the last one."""
        if self.pending or self.wants_step:
            return True
        return 0 <= self.patience_ms <= waited_ms

    def receive(self, message: Draft) -> None:
        """Take in drafts. Raises ProtocolError for malformed ids; stale drafts are dropped in silence."""
        drafts = unpack_ids(message.token_ids)
        if message.epoch <= self._missed_epoch or message.epoch < self.epoch:
            return
        if message.epoch > self.epoch:
            self.epoch = message.epoch
            self.pending.clear()
        if not drafts:
            self.wants_step = self.wants_step or message.start == self.frontier
            return
        known = [*self.token_ids[message.start :], *self.pending]
        if message.start > self.frontier + len(self.pending) or drafts[: len(known)] != known[: len(drafts)]:
            self._miss()
        else:
            self.pending += drafts[len(known) :][: MAX_PENDING - len(self.pending)]

    def drafts_for_pass(self, max_drafts: int) -> list[int]:
        """The drafts the next pass checks: no more than asked for, and none beyond the limit."""
        return self.pending[: max(0, min(max_drafts, self.limit - self.frontier - 1))]

    def advance(self, drafts: list[int], logits: Logits) -> Verified:
        """Move the frontier by one pass over `drafts`, given logits of shape (len(drafts) + 1, n_vocab).

        Raises BadLogits, with nothing changed.
        """
        start = self.frontier
        verified = accept_chain(drafts, lambda row: choose(logits[row], self.params, start + row))
        stop = next((n for n, token_id in enumerate(verified) if token_id in self.stop_ids), None)
        if stop is not None:
            del verified[stop + 1 :]
            self.finish = "stop"
        num_accepted = sum(1 for draft, token_id in zip(drafts, verified, strict=False) if draft == token_id)
        self.token_ids += verified
        self.wants_step = False
        if self.pending[: len(verified)] == verified[: len(self.pending)]:
            del self.pending[: len(verified)]
        else:
            self._miss()
        if self.finish is None and self.frontier >= self.limit:
            self.finish = "length"
        return Verified(self.epoch, start, pack_ids(verified), num_accepted, len(drafts), self.finish)

    def _miss(self) -> None:
        self.pending.clear()
        self._missed_epoch = self.epoch

    def check_integrity(self, engine: Engine) -> None:
        """Raises AssertionError when the state contradicts itself."""
        if self.finish is None and self.frontier >= self.limit:
            raise AssertionError("a session at its limit is not finished")
        if len(self.pending) > MAX_PENDING:
            raise AssertionError("more drafts wait than may")
        if any(not 0 <= token_id < engine.n_vocab for token_id in self.token_ids):
            raise AssertionError("an id outside the vocabulary was verified")
