"""Drafts from the text so far, at no cost: see `outrider.lookup`. The longer the match, the more confident."""

from collections.abc import Sequence

from edge_runtime.drafters.base import Proposal
from edge_runtime.pacing import Pace
from outrider.choice import SamplingParams
from outrider.lookup import MAX_MATCH, propose_by_lookup

__all__ = ["LookupDrafter"]


class LookupDrafter:
    name = "lookup"

    def prefill(self, token_ids: Sequence[int]) -> None:
        """Nothing to get ready."""

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        found, matched = propose_by_lookup(token_ids, max_drafts)
        confidences = [matched / MAX_MATCH] * len(found)
        num_kept = pace.num_worthwhile(self.name, confidences)
        return Proposal(self.name, found[:num_kept], confidences[:num_kept])

    def close(self) -> None:
        """Nothing to free."""
