"""The contract of a drafter: a token list in, guesses for what follows out. Knows no link and no verifier."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge_runtime.pacing import Pace
from outrider.choice import SamplingParams
from outrider.rejection import Distribution

__all__ = ["Drafter", "Proposal", "shared_length"]


@dataclass(slots=True)
class Proposal:
    """Guesses, and for each how likely the drafter thinks it is (0 … 1). `source` names who guessed.

    `distributions`, for acceptance by rejection: what each was drawn from; none at all where they were not drawn.
    """

    source: str
    token_ids: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    distributions: list[Distribution | None] = field(default_factory=list)

    def after(self, token_ids: Sequence[int]) -> "Proposal":
        """What is left of it once these tokens are certain: nothing, where they differ from what was guessed."""
        count = len(token_ids)
        if self.token_ids[:count] != list(token_ids[: len(self.token_ids)]):
            return Proposal(self.source)
        return Proposal(self.source, self.token_ids[count:], self.confidences[count:], self.distributions[count:])


class Drafter(Protocol):
    """Guesses ahead of the target. A wrong guess costs time, and never changes the answer."""

    name: str
    can_answer: bool  # its guesses make an answer, where there is no verifier

    def prefill(self, token_ids: Sequence[int]) -> None:
        """Get ready to draft after this list."""

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        """Guesses for what follows `token_ids`, as many as `pace` finds worth it. The list may be any: the drafter
        finds out itself how much of it is the one it saw last. Asked again from a longer list that agrees with its
        guesses it goes on with the same ones, so that it can be asked for a few at a time, and while others are being
        verified. Called from one thread at a time."""

    def close(self) -> None:
        """Free what it holds. Safe to call twice."""


def shared_length(held: list[int], wanted: Sequence[int]) -> int:
    """How many tokens both begin with. Compares slices: a long list that agrees costs microseconds."""
    if not isinstance(wanted, list):
        wanted = list(wanted)
    low, high = 0, min(len(held), len(wanted))
    end = high
    while low < high:
        if held[low:end] == wanted[low:end]:
            low = end
        else:
            high = end - 1
        end = (low + high + 1) // 2
    return low
