"""Drafts from the text so far and, on request, from texts of the past: see `outrider.lookup`, `outrider.past_texts`.

The longer match is taken, the text's own where both are equally long.
"""

from collections.abc import Sequence

from edge_runtime.drafters.base import Proposal, shared_length
from edge_runtime.pacing import Pace
from outrider.choice import SamplingParams
from outrider.lookup import SuffixAutomaton
from outrider.past_texts import PastTexts

__all__ = ["LookupDrafter"]


class LookupDrafter:
    """Its guesses are named "lookup"; those from `past` texts "past", as their chances differ."""

    name = "lookup"
    can_answer = False

    def __init__(self, past: PastTexts | None = None) -> None:
        self._past = past
        self._text = SuffixAutomaton()

    def prefill(self, token_ids: Sequence[int]) -> None:
        text = self._text
        text.truncate(shared_length(text.token_ids, token_ids))
        for token_id in token_ids[len(text.token_ids) :]:
            text.append(token_id)

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        self.prefill(token_ids)
        source, found = self.name, self._text.propose(max_drafts)
        if self._past is not None:
            other = self._past.propose(token_ids, max_drafts)
            if other.matched > found.matched:
                source, found = "past", other
        num_kept = pace.num_worthwhile(source, found.confidences)
        return Proposal(source, found.token_ids[:num_kept], found.confidences[:num_kept])

    def close(self) -> None:
        """Nothing to free."""
