"""Drafts for a target by a model with another vocabulary: by way of the text that both mean.

The target's ids become bytes, the bytes the drafter's ids; what it guesses becomes bytes again and the target's ids.
The list is followed: only the text after the last certain seam is tokenized anew, and where the target says what was
guessed the drafter's own tokens stay, so that its cache holds. The last token of a guess is held back, as what follows
may change it. The noise is of token ids and means nothing across vocabularies: the drafter guesses greedily, whatever
the target's parameters. None of it can change the output: guesses are ids like any others. Knows no link.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import prod

from edge_runtime.drafters.base import Drafter, Proposal, shared_length
from edge_runtime.drafters.marked_text import MarkedText, begins_text, is_inside, last_seam, shared_controls
from edge_runtime.pacing import Pace
from outrider.choice import SamplingParams
from outrider.tokens import TextCodec

__all__ = ["CrossVocabularyDrafter"]

GREEDY = SamplingParams()
STEPS_A_DRAFT = 4  # passes of the drafter for each token of the target, at most


class CrossVocabularyDrafter:
    """`drafter` speaks `own`'s vocabulary and is asked for `target`'s. All three become this drafter's own."""

    def __init__(self, drafter: Drafter, own: TextCodec, target: TextCodec) -> None:
        self.name = drafter.name
        self.can_answer = drafter.can_answer
        self._drafter = drafter
        target_marks, own_marks = shared_controls(target, own)
        self._own, self._target = MarkedText(own, own_marks), MarkedText(target, target_marks)
        self._given: list[int] = []  # the target's ids ...
        self._given_ends: list[int] = []  # ... and the length of the text after each
        self._data = bytearray()  # the text
        self._ids = list(self._own.beginning)  # the drafter's ids for it, and where each ends
        self._ends = [0] * len(self._ids)
        self._guessed: list[int] = []  # the drafter's own guesses after them

    def prefill(self, token_ids: Sequence[int]) -> None:
        self._follow(token_ids)
        if self._ids:
            self._drafter.prefill(self._ids)

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        self._follow(token_ids)
        proposal = self._draft(pace, max_drafts)
        if proposal is None:  # the text goes on within a token in another way than the drafter would: begin at its end
            self._guessed = []
            self._tokenize_tail()
            proposal = self._draft(pace, max_drafts)
        return proposal or Proposal(self.name)

    def _draft(self, pace: Pace, max_drafts: int) -> Proposal | None:
        """As many of the target's ids as the pace wants. None: what the drafter guesses is not how the text goes on."""
        num_held = len(self._ids)
        guesses = Proposal(self.name)
        proposal: Proposal | None = Proposal(self.name)
        is_over = not self._ids
        reach = 1.0
        while proposal is not None and not is_over and len(guesses.token_ids) < STEPS_A_DRAFT * (max_drafts + 1):
            num_drafts = len(proposal.token_ids)
            if num_drafts >= max_drafts or not pace.wants_another(self.name, reach, num_drafts):
                break
            step = self._drafter.propose(self._ids, GREEDY, pace, 1)
            if not step.token_ids:
                break
            guesses.token_ids += step.token_ids
            guesses.confidences += step.confidences
            self._ids += step.token_ids
            reach *= pace.chance(self.name, step.confidences[0])
            proposal, is_over = self._translate(guesses)
        del self._ids[num_held:]
        self._guessed = guesses.token_ids or self._guessed
        return proposal and Proposal(self.name, proposal.token_ids[:max_drafts], proposal.confidences[:max_drafts])

    def _follow(self, token_ids: Sequence[int]) -> None:
        """Bring text and drafter's ids to what this list means. Some text may be left that no id stands for yet: half a
        character, or the beginning of a token that the drafter guessed."""
        shared = shared_length(self._given, token_ids)
        del self._given[shared:], self._given_ends[shared:]
        data = self._data
        del data[self._given_ends[-1] if shared else 0 :]
        for token_id in token_ids[shared:]:
            data += self._piece(token_id)
            self._given.append(token_id)
            self._given_ends.append(len(data))
        kept = self._keep(self._given_ends[shared - 1] if shared else 0)
        rest = bytes(data[self._length :])
        if rest and not (kept and self._own.bytes_of(kept[0]).startswith(rest)):
            kept = []
            self._tokenize_tail()
        self._guessed = kept

    def _piece(self, token_id: int) -> bytes:
        """What the next of the target's ids adds to the text; nothing where the drafter's own start token says it."""
        number = len(self._given)
        piece = self._target.bytes_of(token_id)
        is_said = piece in [self._own.bytes_of(own_id) for own_id in self._own.beginning[number : number + 1]]
        if is_said:
            return b""
        return piece.removeprefix(self._target.prefix) if begins_text(self._data) else piece

    @property
    def _length(self) -> int:
        """Of the text that the drafter's ids stand for."""
        return self._ends[-1] if self._ends else 0

    def _keep(self, unchanged: int) -> list[int]:
        """Take back the ids beyond the text that is as it was, put on those of them and of the guesses that agree with
        the new one; what is left of them."""
        num_kept = max(len(self._own.beginning), bisect_right(self._ends, unchanged))
        candidates = self._ids[num_kept:] + self._guessed
        del self._ids[num_kept:], self._ends[num_kept:]
        for number, token_id in enumerate(candidates):
            piece = self._own.bytes_of(token_id)
            end = self._length + len(piece)
            if not piece or self._data[self._length : end] != piece:
                return candidates[number:]
            self._ids.append(token_id)
            self._ends.append(end)
        return []

    def _tokenize_tail(self) -> None:
        """The drafter's ids anew, from the last seam that they have a boundary at."""
        data, ends = self._data, self._ends
        seam = last_seam(data, min(len(data), self._length + 2))  # it takes two bytes to see one
        num_kept = max(len(self._own.beginning), bisect_right(ends, seam))
        while num_kept > len(self._own.beginning) and is_inside(data, ends[num_kept - 1]):
            num_kept -= 1
        del self._ids[num_kept:], ends[num_kept:]
        start = self._length
        for token_id, end in self._own.tokens(bytes(data[start:])):
            self._ids.append(token_id)
            ends.append(start + end)

    def _translate(self, guesses: Proposal) -> tuple[Proposal | None, bool]:
        """The target's ids for the guesses, and whether they end the text. None: they are not how its text goes on."""
        pieces = [self._own.bytes_of(token_id) for token_id in guesses.token_ids]
        rest = bytes(self._data[self._length :])
        text = b"".join(pieces)
        if not text.startswith(rest[: len(text)]):
            return None, True
        is_over = not pieces[-1] or self._own.is_mark(guesses.token_ids[-1])
        tokens = self._continue(text[len(rest) :])
        starts = list(accumulate(map(len, pieces), initial=-len(rest)))
        proposal = Proposal(self.name)
        number = 0
        for token_id, end in tokens if is_over else tokens[:-1]:
            last = max(number, bisect_left(starts, end, hi=len(pieces)))
            proposal.token_ids.append(token_id)
            proposal.confidences.append(prod(guesses.confidences[number:last]))
            number = last
        return proposal, is_over

    def _continue(self, text: bytes) -> list[tuple[int, int]]:
        """The target's ids for what follows its text, and where in that each ends. None of them where the target would
        write a token that reaches across: it did not."""
        before = bytes(self._data[last_seam(self._data, len(self._data)) :])
        tokens = self._target.tokens(before + text)
        ends = [0, *(end for _, end in tokens)]
        if len(before) not in ends:
            return []
        first = bisect_right(ends, len(before)) - 1
        return [(token_id, end - len(before)) for token_id, end in tokens[first:]]

    def close(self) -> None:
        self._drafter.close()
