"""Acceptance by rejection: more drafts pass than by the coupled rule, and what comes out depends on the drafter.

The target's distribution is p, the drafter's q, and draft x was drawn from q (Leviathan et al. 2023, "Fast inference
from transformers via speculative decoding"):

    accept x with probability min(1, p(x) / q(x)), otherwise draw from the residual max(0, p - q), normalised

Each token is then an exact sample of p, if whether a draft is looked at does not hang on the draft. A draft that comes
without its q counts as certain, q(x) = 1: right for one that was not drawn, such as a lookup's, and exact for any. The
random numbers are functions of (seed, position), apart from those that drew x. Pure numpy; knows no engine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outrider.choice import SamplingParams, best_column, choose, gumbel_noise, surviving_columns

__all__ = ["REJECTION", "Distribution", "choose_or_reject", "distribution"]

REJECTION = "rejection"
# Added to a position, far beyond the longest list: streams of their own, as the first drew the draft.
ACCEPTING = 1 << 32
RESIDUAL = 2 << 32


@dataclass(frozen=True, slots=True)
class Distribution:
    """Ascending token ids and their probabilities, which add up to 1; every other id has none. Not to be written to."""

    token_ids: NDArray[np.integer]
    probabilities: NDArray[np.float64]

    def of(self, token_id: int) -> float:
        place = int(np.searchsorted(self.token_ids, token_id))
        is_in = place < len(self.token_ids) and self.token_ids[place] == token_id
        return float(self.probabilities[place]) if is_in else 0.0


def distribution(
    logits: NDArray[np.float32], params: SamplingParams, token_ids: NDArray[np.int32] | None = None
) -> Distribution:
    """What `choose` draws from, given one row of logits of shape (width,); `token_ids` as there. Raises BadLogits."""
    best = best_column(logits)
    with np.errstate(over="ignore"):
        columns = surviving_columns(logits, params) if params.temperature else np.array([best])
        scores = logits[columns].astype(np.float64)
        if params.temperature:
            scores /= params.temperature
        weights = np.exp(scores - scores.max())
    ids = columns if token_ids is None else token_ids[columns]
    return Distribution(ids, weights / weights.sum())


def choose_or_reject(
    logits: NDArray[np.float32],
    params: SamplingParams,
    position: int,
    draft: int,
    drawn_from: Distribution | None = None,
) -> int:
    """The token id at `position`, where `draft` was drawn from `drawn_from`: the draft, or one of the residual.

    Greedy it is what `choose` says. Raises BadLogits.
    """
    if params.temperature == 0:
        return choose(logits, params, position)
    target = distribution(logits, params)
    q = 1.0 if drawn_from is None else drawn_from.of(draft)
    if _uniform(params.seed, position) * q < target.of(draft):
        return draft
    residual = _residual(target, draft, drawn_from)
    with np.errstate(divide="ignore"):
        scores = np.log(residual) + gumbel_noise(params.seed, RESIDUAL + position, target.token_ids)
    return int(target.token_ids[scores.argmax()])


def _residual(target: Distribution, draft: int, drawn_from: Distribution | None) -> NDArray[np.float64]:
    """max(0, p - q) at the target's ids, not normalised."""
    if drawn_from is None:
        drawn_from = Distribution(np.array([draft]), np.ones(1))
    residual = target.probabilities.copy()
    places = np.minimum(np.searchsorted(target.token_ids, drawn_from.token_ids), len(residual) - 1)
    found = target.token_ids[places] == drawn_from.token_ids
    residual[places[found]] -= drawn_from.probabilities[found]
    np.maximum(residual, 0, out=residual)
    return residual if residual.any() else target.probabilities  # equal but for rounding


def _uniform(seed: int, position: int) -> float:
    """Above 0 and below 1."""
    return float(np.exp(-np.exp(-gumbel_noise(seed, ACCEPTING + position, np.zeros(1, np.int64))))[0])
