"""The device's list: verified up to the frontier, guesses right of it. Its rules, free of clocks and links.

Guesses are only ever appended on the right; what was verified moves the frontier over those that agree. At the first
difference they are dropped and the epoch rises, so that the verifier knows which drafts are of the past.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_runtime.drafters.base import Proposal
from outrider.errors import ProtocolError
from outrider.wire import MAX_DRAFTS, Draft, LocalDraft, Verified, pack_ids, unpack_ids

__all__ = ["Frontier", "Outcome", "Token"]


FINISHES = (None, "stop", "length")


@dataclass(frozen=True, slots=True)
class Token:
    """A verified token. `drafted_by` names the drafter that guessed it; None: the target's own correction or step."""

    position: int
    token_id: int
    drafted_by: str | None
    logprob: float | None = None  # the target's own, where it was asked for,
    top_logprobs: Sequence[tuple[int, float]] = ()  # and those of the likeliest ids, best first


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one Verified did: the tokens it brought, and how the guesses it looked at fared."""

    tokens: list[Token]
    checked: list[tuple[str, float]]  # source and confidence of the guesses that the pass took
    num_accepted: int  # of them
    num_agreed: int  # guesses that turned out right, whether a pass took them or the target was there first
    missed: bool


class Frontier:
    def __init__(self, prompt_ids: Sequence[int]) -> None:
        self.token_ids = list(prompt_ids)
        self.epoch = 0
        self._guesses: list[int] = []
        self._about: list[tuple[str, float]] = []  # of each guess: who made it, how sure they were

    @property
    def num_ahead(self) -> int:
        return len(self._guesses)

    @property
    def end(self) -> int:
        """The position that the next guess would have."""
        return len(self.token_ids) + len(self._guesses)

    @property
    def confidences(self) -> list[tuple[str, float]]:
        """Of the guesses ahead, in order: who made them, how sure they were."""
        return self._about

    def everything(self) -> list[int]:
        """The verified list and the guesses after it."""
        return [*self.token_ids, *self._guesses]

    def forget(self) -> None:
        """Drop the guesses: the verifier has forgotten them, too."""
        self._guesses.clear()
        self._about.clear()

    def guess(self, epoch: int, start: int, proposal: Proposal) -> Draft | None:
        """Append what was drafted in `epoch` for the positions from `start` on; the message that says so.

        None for what the frontier has overtaken or a miss has made worthless.
        """
        if epoch != self.epoch or start > self.end:
            return None
        known = [*self.token_ids[start:], *self._guesses] if start < self.end else []
        if proposal.token_ids[: len(known)] != known[: len(proposal.token_ids)]:
            return None  # drafted before the target's own tokens were heard, and wrong about them
        new = proposal.token_ids[len(known) :][:MAX_DRAFTS]
        if not new:
            return None
        confidences = proposal.confidences[len(known) :][: len(new)]
        begin = self.end
        self._guesses += new
        self._about += [(proposal.source, confidence) for confidence in confidences]
        ids, sure = pack_ids(new), bytes(round(255 * value) for value in confidences)
        if distributions := proposal.distributions[len(known) :][: len(new)]:
            return LocalDraft(self.epoch, begin, ids, sure, distributions=distributions)
        return Draft(self.epoch, begin, ids, sure)

    def commit(self, verified: Verified, *, limit: int, n_vocab: int, num_logprobs: int = -1) -> Outcome:
        """Move the frontier. `num_logprobs` as in Open.

        Raises ProtocolError, with nothing changed, for tokens that do not continue the list.
        """
        token_ids = unpack_ids(verified.token_ids)
        start = len(self.token_ids)
        in_order = verified.start == start and start + len(token_ids) <= limit
        is_sound = (
            verified.num_drafted <= len(self._guesses)
            and verified.num_accepted <= min(verified.num_drafted, len(token_ids))
            and self._guesses[: verified.num_accepted] == token_ids[: verified.num_accepted]
            and verified.finish in FINISHES
            and len(verified.logprobs) == (len(token_ids) if num_logprobs >= 0 else 0)
        )
        tops = [unpack_ids(each.token_ids) for each in verified.logprobs]
        is_sound = is_sound and all(
            len(ids) == len(told.logprobs) <= num_logprobs and max(ids, default=0) < n_vocab
            for ids, told in zip(tops, verified.logprobs, strict=True)
        )
        if not token_ids or not in_order or not is_sound or max(token_ids) >= n_vocab:
            raise ProtocolError("the verifier's tokens do not continue the list; its answer was refused")
        num_agreed = 0
        while (
            num_agreed < min(len(token_ids), len(self._guesses)) and token_ids[num_agreed] == self._guesses[num_agreed]
        ):
            num_agreed += 1
        missed = num_agreed < min(len(token_ids), len(self._guesses))
        checked = self._about[: verified.num_drafted]
        num_accepted = min(num_agreed, len(checked))
        tokens = [
            Token(start + offset, token_id, checked[offset][0] if offset < num_accepted else None)
            for offset, token_id in enumerate(token_ids)
        ]
        if tops:
            tokens = [
                replace(token, logprob=told.chosen, top_logprobs=tuple(zip(ids, told.logprobs, strict=True)))
                for token, ids, told in zip(tokens, tops, verified.logprobs, strict=True)
            ]
        self.token_ids += token_ids
        if missed:
            self.epoch += 1
            self.forget()
        else:
            del self._guesses[: len(token_ids)], self._about[: len(token_ids)]
        return Outcome(tokens, checked, num_accepted, num_agreed, missed)

    def check_integrity(self) -> None:
        if len(self._guesses) != len(self._about):
            raise AssertionError("a guess without its maker, or the other way round")
