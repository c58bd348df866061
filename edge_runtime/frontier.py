"""The device's list: verified up to the frontier, guesses right of it. Its rules, free of clocks and links.

Guesses are only ever appended on the right; what was verified moves the frontier over those that agree. At the first
difference they are dropped and the epoch rises, so that the verifier knows which drafts are of the past. Guesses that
were shown to the user, as provisional, outlive the link; all others are dropped when it breaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_runtime.drafters.base import Proposal
from edge_runtime.events import Token
from outrider.errors import ProtocolError
from outrider.rejection import Distribution
from outrider.wire import MAX_DRAFTS, Draft, LocalDraft, Verified, pack_ids, unpack_ids

__all__ = ["Frontier", "Outcome"]

FINISHES = (None, "stop", "length")
REMEMBERED = ("offline", 0.75)  # of a provisional token from before: who guessed it, how sure they were


@dataclass(slots=True)
class Outcome:
    """What one Verified did: the tokens it brought, and how the guesses it looked at fared."""

    tokens: list[Token]
    checked: list[tuple[str, float]]  # source and confidence of the guesses that the pass took
    num_accepted: int  # of them
    num_agreed: int  # guesses that turned out right, whether a pass took them or the target was there first
    missed: bool
    retracted: int | None  # the position from which on shown guesses are void
    num_retracted: int  # of them


class Frontier:
    def __init__(self, token_ids: Sequence[int], provisional_ids: Sequence[int] = ()) -> None:
        self.token_ids = list(token_ids)
        self.epoch = 0
        self._guesses = list(provisional_ids)
        self._about: list[tuple[str, float]] = [REMEMBERED] * len(self._guesses)  # of each: who made it, how sure
        self._drawn: list[Distribution | None] = [None] * len(self._guesses)  # and what it was drawn from, where told
        self._num_shown = len(self._guesses)  # of them the user has seen so many, from the left,
        self._num_sent = 0  # and the verifier so many

    @property
    def num_ahead(self) -> int:
        return len(self._guesses)

    @property
    def num_shown(self) -> int:
        return self._num_shown

    @property
    def end(self) -> int:
        """The position that the next guess would have."""
        return len(self.token_ids) + len(self._guesses)

    @property
    def last(self) -> int:
        """The token at the end, verified or guessed."""
        return self._guesses[-1] if self._guesses else self.token_ids[-1]

    @property
    def guesses(self) -> list[int]:
        """Those ahead, in order. To be read only."""
        return self._guesses

    @property
    def confidences(self) -> list[tuple[str, float]]:
        """Of the guesses ahead, in order: who made them, how sure they were."""
        return self._about

    def everything(self) -> list[int]:
        """The verified list and the guesses after it."""
        return [*self.token_ids, *self._guesses]

    def restart(self) -> None:
        """What was sent counts no more. Guesses that were shown stay, to be sent again; the others go."""
        self.epoch += 1
        self._drop(self._num_shown)
        self._num_sent = 0

    def guess(self, epoch: int, start: int, proposal: Proposal) -> None:
        """Append what was drafted in `epoch` for the positions from `start` on.

        Nothing of what the frontier has overtaken or a miss has made worthless.
        """
        if epoch != self.epoch or start > self.end:
            return
        known = [*self.token_ids[start:], *self._guesses] if start < self.end else []
        if proposal.token_ids[: len(known)] != known[: len(proposal.token_ids)]:
            return  # drafted before the target's own tokens were heard, and wrong about them
        new = proposal.token_ids[len(known) :]
        self._guesses += new
        self._about += [(proposal.source, confidence) for confidence in proposal.confidences[len(known) :]]
        self._drawn += proposal.distributions[len(known) :] or [None] * len(new)

    def show(self) -> list[Token]:
        """The guesses that were not shown yet, as provisional tokens."""
        new = range(self._num_shown, len(self._guesses))
        self._num_shown = len(self._guesses)
        start = len(self.token_ids)
        return [Token(start + at, self._guesses[at], self._about[at][0], is_verified=False) for at in new]

    def next_draft(self) -> Draft | None:
        """The message with guesses that were not sent yet; never more under way than a verifier keeps."""
        start, end = self._num_sent, min(len(self._guesses), MAX_DRAFTS)
        if start >= end:
            return None
        self._num_sent = end
        confidences = bytes(round(255 * confidence) for _, confidence in self._about[start:end])
        begin, ids = len(self.token_ids) + start, pack_ids(self._guesses[start:end])
        if any(drawn is not None for drawn in self._drawn[start:end]):
            return LocalDraft(self.epoch, begin, ids, confidences, distributions=self._drawn[start:end])
        return Draft(self.epoch, begin, ids, confidences)

    def _drop(self, start: int) -> None:
        """The guesses from number `start` on."""
        del self._guesses[start:], self._about[start:], self._drawn[start:]
        self._num_shown, self._num_sent = min(self._num_shown, start), min(self._num_sent, start)

    def commit(self, verified: Verified, *, limit: int, n_vocab: int, num_logprobs: int = -1) -> Outcome:
        """Move the frontier. `num_logprobs` as in Open.

        Raises ProtocolError, with nothing changed, for tokens that do not continue the list.
        """
        token_ids = unpack_ids(verified.token_ids)
        start = len(self.token_ids)
        in_order = verified.start == start and start + len(token_ids) <= limit
        is_sound = (
            verified.num_accepted <= min(verified.num_drafted, len(token_ids))
            and verified.finish in FINISHES
            and len(verified.logprobs) == (len(token_ids) if num_logprobs >= 0 else 0)
        )
        num_drafted = num_accepted = 0
        if verified.epoch == self.epoch:  # otherwise it is about guesses that are gone
            num_drafted, num_accepted = verified.num_drafted, verified.num_accepted
        is_sound = is_sound and num_drafted <= self._num_sent
        is_sound = is_sound and self._guesses[:num_accepted] == token_ids[:num_accepted]
        tops = [unpack_ids(each.token_ids) for each in verified.logprobs]
        if tops:
            is_sound = is_sound and all(
                len(ids) == len(told.logprobs) <= num_logprobs and max(ids, default=0) < n_vocab
                for ids, told in zip(tops, verified.logprobs, strict=True)
            )
        if not token_ids or not in_order or not is_sound or max(token_ids) >= n_vocab:
            raise ProtocolError("the verifier's tokens do not continue the list; its answer was refused")
        guesses = self._guesses
        num_agreed, most = 0, min(len(token_ids), len(guesses))
        while num_agreed < most and token_ids[num_agreed] == guesses[num_agreed]:
            num_agreed += 1
        missed = num_agreed < most
        checked = self._about[:num_drafted]
        num_accepted = min(num_agreed, len(checked))
        num_credited = max(num_accepted, min(num_agreed, self._num_shown))  # what was shown keeps its author's name
        tokens = [
            Token(start + offset, token_id, self._about[offset][0] if offset < num_credited else None)
            for offset, token_id in enumerate(token_ids)
        ]
        if tops:
            tokens = [
                replace(token, logprob=told.chosen, top_logprobs=tuple(zip(ids, told.logprobs, strict=True)))
                for token, ids, told in zip(tokens, tops, verified.logprobs, strict=True)
            ]
        num_void = max(0, self._num_shown - num_agreed) if missed or verified.finish else 0
        self.token_ids += token_ids
        if missed or verified.finish:
            self.epoch += missed
            self._drop(0)
        else:
            del guesses[: len(token_ids)], self._about[: len(token_ids)], self._drawn[: len(token_ids)]
            self._num_shown = max(0, self._num_shown - len(token_ids))
            self._num_sent = max(0, self._num_sent - len(token_ids))
        retracted = start + num_agreed if num_void else None
        return Outcome(tokens, checked, num_accepted, num_agreed, missed, retracted, num_void)

    def check_integrity(self) -> None:
        if not len(self._guesses) == len(self._about) == len(self._drawn):
            raise AssertionError("a guess without its maker, or the other way round")
        if max(self._num_shown, self._num_sent) > len(self._guesses):
            raise AssertionError("more guesses were shown or sent than there are")
