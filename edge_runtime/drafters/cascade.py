"""A free drafter first, one that costs time where that promises more: the text itself, then the model."""

from collections.abc import Sequence

from edge_runtime.drafters.base import Drafter, Proposal
from edge_runtime.pacing import Pace
from outrider.choice import SamplingParams

__all__ = ["CascadeDrafter"]


class CascadeDrafter:
    def __init__(self, first: Drafter, then: Drafter) -> None:
        self.name = f"{first.name}+{then.name}"
        self.can_answer = then.can_answer
        self._first = first
        self._then = then

    def prefill(self, token_ids: Sequence[int]) -> None:
        self._first.prefill(token_ids)
        self._then.prefill(token_ids)

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        proposal = self._first.propose(token_ids, params, pace, max_drafts)
        if proposal.token_ids and pace.prefers(proposal.source, proposal.confidences, self._then.name):
            return proposal
        return self._then.propose(token_ids, params, pace, max_drafts)

    def close(self) -> None:
        self._first.close()
        self._then.close()
