"""The choice and the rule of rejection as they are defined, in plain float64, for many positions at once.

Tests show that the product says the same at places drawn by chance, and that what is defined here has the target's
distribution.
"""

import numpy as np
from numpy.typing import NDArray

from outrider.choice import SamplingParams
from outrider.rejection import ACCEPTING, RESIDUAL

__all__ = ["LOGITS", "chi_square", "choices", "choices_or_rejections", "noise", "p_value", "probabilities"]

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, 1.5, 0.2, -3.0], np.float32)
Array = NDArray[np.generic]


def probabilities(params: SamplingParams, logits: Array = LOGITS) -> Array:
    """The distribution to be sampled, in float64. Equals of the last one kept are kept."""
    p = np.exp(logits.astype(np.float64) / params.temperature)
    p /= p.sum()
    order = np.argsort(-p)
    keep = np.ones(len(p), bool)
    if params.top_k:
        keep &= p >= p[order[params.top_k - 1]]
    if params.top_p < 1:
        q = np.where(keep, p, 0) / p[keep].sum()
        before = np.cumsum(q[order]) - q[order]
        keep &= p >= p[order[before < params.top_p]].min()
    if params.min_p:
        keep &= p >= params.min_p * p.max()
    p = np.where(keep, p, 0)
    return p / p.sum()


def p_value(observed: Array, expected: Array) -> float:
    """Pearson's test. (scipy.stats has it too, and takes longer to import than the tests to run.)"""
    from scipy.special import chdtrc

    return float(chdtrc(len(observed) - 1, ((observed - expected) ** 2 / expected).sum()))


def chi_square(samples: Array, params: SamplingParams, logits: Array = LOGITS) -> float:
    """p-value of the samples against the distribution; 0 when an impossible token was drawn."""
    expected = probabilities(params, logits) * len(samples)
    observed = np.bincount(samples, minlength=len(expected))
    possible = expected > 0
    if observed[~possible].any():
        return 0.0
    return p_value(observed[possible], expected[possible])


def noise(seeds: Array, positions: Array, token_ids: Array) -> Array:
    """Gumbel noise of shape (seeds or positions, token ids); seeds and positions are one, or as many."""
    key = _mix64(_mix64(np.asarray(seeds, np.uint64)) ^ np.asarray(positions, np.uint64))
    low, high = (half.astype(np.uint32).reshape(-1, 1) for half in (key & np.uint64(2**32 - 1), key >> np.uint64(32)))
    bits = _mix32(token_ids.astype(np.uint32) * np.uint32(0x9E3779B1) + low)
    u = (_mix32(bits ^ high) + 0.5) * 2.0**-32
    return -np.log(-np.log(u))


def _mix64(value: Array) -> Array:
    """SplitMix64."""
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _mix32(bits: Array) -> Array:
    """The finalizer of MurmurHash3."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return bits ^ (bits >> np.uint32(16))


def choices(params: SamplingParams, positions: Array, logits: Array = LOGITS, seeds: Array | None = None) -> Array:
    """What `choose` says at each position, or with each seed."""
    drawn = noise(params.seed if seeds is None else seeds, positions, np.arange(len(logits)))
    scores = logits.astype(np.float64) / params.temperature + drawn
    return np.where(probabilities(params, logits) > 0, scores, -np.inf).argmax(axis=1)


def choices_or_rejections(
    params: SamplingParams, positions: Array, drafts: Array, q: Array | None, seeds: Array | None = None
) -> Array:
    """What `choose_or_reject` says of each draft, drawn from `q`; None: each came alone."""
    p, each = probabilities(params), np.arange(len(drafts))
    q_rows = np.eye(len(p))[drafts] if q is None else np.broadcast_to(q, (len(drafts), len(p)))
    seed = params.seed if seeds is None else seeds
    u = np.exp(-np.exp(-noise(seed, ACCEPTING + positions, np.zeros(1))[:, 0]))
    is_accepted = u * q_rows[each, drafts] < p[drafts]
    residual = np.maximum(p - q_rows, 0)
    residual = np.where(residual.any(axis=1, keepdims=True), residual, p)
    with np.errstate(divide="ignore"):
        scores = np.log(residual) + noise(seed, RESIDUAL + positions, np.arange(len(p)))
    return np.where(is_accepted, drafts, scores.argmax(axis=1))
