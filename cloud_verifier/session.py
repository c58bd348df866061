"""One generation as the verifier sees it: the verified list, and the drafts that wait at its right end.

The rules of epochs and overlaps live here, free of engines, threads and links:

- drafts of an epoch that missed are dropped unread; the device raises its epoch when it hears of the miss
- drafts left of the frontier are compared, not dropped: where they agree, the rest still counts
- a draft without ids asks for one step alone
- where drafts are accepted by rejection, a pass takes all that wait: picking among them by what they are would show
"""

import math

from cloud_verifier.limits import MAX_PENDING
from cloud_verifier.pending import Pending
from outrider.acceptance import accept
from outrider.choice import SamplingParams, choose, top_logprobs
from outrider.constraint import Constrain
from outrider.engines.base import Engine, Logits
from outrider.errors import InvalidParameter
from outrider.history import open_history
from outrider.receipt import Statement, state
from outrider.rejection import REJECTION, Distribution, choose_or_reject
from outrider.wire import Draft, LocalDraft, Logprobs, Open, Verified, pack_ids, unpack_ids, unpack_parents

__all__ = ["VerifierSession"]


class VerifierSession:
    """`token_ids` is the list up to the frontier, `pending` the drafts right of it, `limit` where the list ends.

    Raises InvalidParameter for a grammar that cannot be kept to, or that the answer so far does not follow.
    """

    def __init__(self, message: Open, limit: int, constrain: Constrain | None = None) -> None:
        self.token_ids = unpack_ids(message.token_ids)
        self.num_given = len(self.token_ids)
        self.wants_signature = message.wants_signature
        self.params: SamplingParams = message.params.sampling()
        self.stop_ids = frozenset(unpack_ids(message.stop_ids))
        if self.params.grammar is not None and constrain is None:
            raise InvalidParameter("this verifier keeps to no grammars; leave the grammar out, or ask another")
        self._history = open_history(self.params, self.token_ids, stop_ids=self.stop_ids, constrain=constrain)
        if self._history is not None and self._history.is_violated:
            raise InvalidParameter("the answer so far does not follow the grammar; open it without the grammar")
        self.patience_ms = message.patience_ms
        self.num_logprobs = message.num_logprobs
        self.limit = limit
        self.pending = Pending()
        self._drawn: dict[int, tuple[int, Distribution | None]] = {}  # by position: a draft and what it was drawn from
        self.epoch = 0
        self.finish: str | None = None
        self.has_drafted = False
        self._missed_epoch = -1
        self.wants_step = True  # the first choice after the prompt needs no draft

    @property
    def frontier(self) -> int:
        return len(self.token_ids)

    @property
    def rejects(self) -> bool:
        """Whether drafts are accepted by rejection."""
        return self.params.acceptance == REJECTION

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
            self._forget()
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
            if self.rejects and isinstance(message, LocalDraft):
                self._remember(message.start, drafts, message.distributions)

    def _replace(self, start: int, tree: Pending) -> None:
        """A tree stands alone: what waited makes room."""
        if start > self.frontier or not tree.advance(self.token_ids[start : start + len(tree) + 1]):
            self._miss()
        else:
            self.pending = tree

    def _append(self, start: int, chain: Pending) -> None:
        drafts = chain.token_ids
        end = start + len(drafts)
        pending = self.pending.token_ids[max(0, start - self.frontier) : max(0, end - self.frontier)]
        known = [*self.token_ids[start:end], *pending]  # no more than the message is long
        if start > self.frontier + len(self.pending) or drafts[: len(known)] != known:
            self._miss()
        else:
            room = slice(len(known), len(known) + MAX_PENDING - len(self.pending))
            self.pending.append(drafts[room], chain.confidences[room])

    def _remember(self, start: int, drafts: list[int], distributions: list[Distribution | None]) -> None:
        """What the drafts that wait were drawn from; of equal ones at one position the first counts."""
        for position, drawn in enumerate(zip(drafts, distributions, strict=False), start):
            if self.frontier <= position < self.frontier + len(self.pending):
                self._drawn.setdefault(position, drawn)

    def drafts_for_pass(self, max_drafts: int, *, supports_tree: bool = False) -> Pending:
        """The drafts the next pass checks: no more than asked for, and none beyond the limit."""
        takes_trees = supports_tree and not self.rejects
        pending = self.pending if takes_trees or self.pending.is_chain else self.pending.first_path()
        return pending.first(max_drafts, self.num_draftable(max_drafts))

    def num_draftable(self, max_drafts: int) -> int:
        """Of so many drafts, those that do not go beyond the limit: the last token is a choice."""
        return max(0, min(max_drafts, self.limit - self.frontier - 1))

    def advance(self, drafts: Pending, logits: Logits) -> tuple[Verified, list[int]]:
        """Move the frontier by one pass over `drafts`, given logits of shape (len(drafts) + 1, n_vocab).

        Gives what to say, which counts the device's drafts alone, and the rows of all that were accepted. Raises
        BadLogits or GrammarFailed, with nothing changed.
        """
        start = self.frontier
        if self._history is not None:
            self._history.truncate(start)
        depths = {-1: 0}
        for row, parent in enumerate(drafts.parents):
            depths[row] = depths[parent] + 1
        next_drafts = [*drafts.token_ids, None] if self.rejects else [None] * (len(drafts) + 1)
        verified, path = accept(
            drafts.token_ids,
            drafts.parents,
            lambda row: self._choose(logits[row + 1], start + depths[row], next_drafts[row + 1]),
        )
        stop = next((n for n, token_id in enumerate(verified) if token_id in self.stop_ids), None)
        if stop is not None:
            del verified[stop + 1 :], path[stop + 1 :]
            self.finish = "stop"
        self.token_ids += verified
        for position in range(start, self.frontier):
            self._drawn.pop(position, None)
        self.wants_step = False
        if not self.pending.advance(verified):
            self._miss()
        if self.finish is None and self.frontier >= self.limit:
            self.finish = "length"
        logprobs = []
        if self.num_logprobs >= 0:
            rows = [0, *(row + 1 for row in path)]
            logprobs = [self._logprobs(logits[row], token_id) for row, token_id in zip(rows, verified, strict=False)]
        num_drafted = drafts.num_of_device
        num_accepted = min(len(path), num_drafted)
        message = Verified(self.epoch, start, pack_ids(verified), num_accepted, num_drafted, self.finish, logprobs)
        return message, path

    def statement(self, target: str, vocabulary: str) -> Statement:
        """What was chosen in this session, once it is finished: what the device brought along is context."""
        context_ids, token_ids = self.token_ids[: self.num_given], self.token_ids[self.num_given :]
        return state(target, vocabulary, self.params, context_ids, token_ids, self.finish or "")

    def _choose(self, logits: Logits, position: int, draft: int | None) -> int:
        """The choices of a pass are asked for in their order, so the history holds those before this one.

        `draft`: what was guessed here, where that bears on the choice.
        """
        if self._history is not None:
            logits = self._history.adjust(logits)
        if draft is None:
            token_id = choose(logits, self.params, position)
        else:
            known, drawn_from = self._drawn.get(position, (draft, None))
            token_id = choose_or_reject(logits, self.params, position, draft, drawn_from if known == draft else None)
        if self._history is not None:
            self._history.append(token_id)
        return token_id

    def _logprobs(self, logits: Logits, token_id: int) -> Logprobs:
        chosen, best, values = top_logprobs(logits, token_id, self.num_logprobs)
        return Logprobs(chosen, pack_ids(best), values)

    def _miss(self) -> None:
        self._forget()
        self._missed_epoch = self.epoch

    def _forget(self) -> None:
        self.pending = Pending()
        self._drawn.clear()

    def check_integrity(self, engine: Engine) -> None:
        """Raises AssertionError when the state contradicts itself."""
        if self.finish is None and self.frontier >= self.limit:
            raise AssertionError("a session at its limit is not finished")
        if len(self.pending) > MAX_PENDING:
            raise AssertionError("more drafts wait than may")
        if any(not self.frontier <= position < self.frontier + len(self.pending) for position in self._drawn):
            raise AssertionError("a distribution is kept of which no draft waits")
        if any(not 0 <= token_id < engine.n_vocab for token_id in self.token_ids):
            raise AssertionError("an id outside the vocabulary was verified")
