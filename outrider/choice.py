"""The target's choice at a position: a pure function of logits, parameters, the position and the tokens so far.

Greedy takes the arg-max. Sampling adds Gumbel noise to the filtered log-probabilities and takes the arg-max (the
Gumbel-max trick): each token is then an exact sample, and because the noise is itself a function of (seed, position,
token id) the choice does not depend on how many drafts were tried, refused or repeated. A drafter that calls `choose`
with the same parameters shares the noise and so tends to pick the same token (Daliri et al. 2024, "Coupling without
communication and drafter-invariant speculative decoding").

What the tokens so far have to say is in the logits already (`history.py`). Pure numpy. Knows no engine, no session and
no text.
"""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outrider.constraint import Grammar
from outrider.errors import BadLogits, InvalidParameter

__all__ = [
    "ACCEPTANCES",
    "MAX_BIASES",
    "SamplingParams",
    "best_column",
    "choose",
    "gumbel_noise",
    "noise_bits",
    "surviving_columns",
    "top_logprobs",
]

MAX_SEED = 2**63 - 1
MAX_BIASES = 1024
MAX_BIAS = 100.0
MAX_PENALTY = 2.0
MIN_REPETITION, MAX_REPETITION = 0.01, 100.0
MAX_ID = 2**31 - 1
MAX_LENGTH = 2**24
ACCEPTANCES = ("coupled", "rejection")
# Noise from 32 bits lies in (-3.2, 22.9): a token further than this below the best can never win.
NOISE_SPAN = 27.0
U64 = 2**64 - 1
# Of MurmurHash3's 32-bit finalizer, after the id's factor; as arrays, which numpy takes faster than its scalars.
SHIFT_16, SHIFT_13, FACTOR_0, FACTOR_1, FACTOR_2 = (
    np.array(constant, np.uint32) for constant in (16, 13, 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35)
)


@dataclass(frozen=True)
class SamplingParams:
    """How to choose. Filters apply in the order top-k, top-p, min-p, to the distribution after temperature.

    `temperature=0` is greedy. `top_k=0`, `top_p=1` and `min_p=0` switch a filter off. The rest changes the logits
    before all that, by the tokens so far; `history.py` says how. The repetition penalty counts prompt and answer,
    frequency and presence penalties the answer alone. `num_prompt` tells where the answer begins; whoever knows the
    prompt sets it. Raises InvalidParameter.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0  # divides logits above 0 and multiplies others; 1 switches it off
    frequency_penalty: float = 0.0  # taken off for each time a token was said
    presence_penalty: float = 0.0  # taken off once
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, what is added), each id once
    min_tokens: int = 0  # the answer does not stop before
    grammar: Grammar | None = None  # what the answer must follow
    num_prompt: int = 0
    acceptance: str = "coupled"  # of drafts: "rejection" takes more of them, and the output then depends on the drafter

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_k", self.top_k, 0, 2**31 - 1)
        _within("top_p", self.top_p, 0.0, 1.0)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("seed", self.seed, 0, MAX_SEED)
        if self.top_p == 0:
            raise InvalidParameter("top_p is 0, which would leave no token; give a value above 0 and up to 1")
        _within("repetition_penalty", self.repetition_penalty, MIN_REPETITION, MAX_REPETITION)
        _within("frequency_penalty", self.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)
        _within("presence_penalty", self.presence_penalty, -MAX_PENALTY, MAX_PENALTY)
        _within("min_tokens", self.min_tokens, 0, MAX_LENGTH)
        _within("num_prompt", self.num_prompt, 0, MAX_LENGTH)
        if len(self.logit_bias) > MAX_BIASES:
            raise InvalidParameter(f"logit_bias has {len(self.logit_bias)} entries; give at most {MAX_BIASES}")
        for token_id, bias in self.logit_bias:
            if not isinstance(token_id, int):
                raise InvalidParameter(f"logit_bias names {token_id!r}, which is no token id; give a whole number")
            _within("logit_bias of a token id", token_id, 0, MAX_ID)
            _within(f"logit_bias of {token_id}", bias, -MAX_BIAS, MAX_BIAS)
        for token_id, count in Counter(token_id for token_id, _ in self.logit_bias).items():
            if count > 1:
                raise InvalidParameter(f"logit_bias names token id {token_id} twice; give it one bias")

        if self.acceptance not in ACCEPTANCES:
            raise InvalidParameter(f"acceptance is {self.acceptance!r}; give one of: {', '.join(ACCEPTANCES)}")

    @property
    def penalizes(self) -> bool:
        """Whether what was said before counts against a token."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before the choice."""
        return self.penalizes or bool(self.logit_bias) or self.min_tokens > 0 or self.grammar is not None


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also catches NaN
        raise InvalidParameter(f"{name} is {value}; give a value from {low:g} to {high:g}")


def choose(
    logits: NDArray[np.float32],
    params: SamplingParams,
    position: int,
    token_ids: NDArray[np.int32] | None = None,
) -> int:
    """The token id at absolute `position`, from one row of logits of shape (width,).

    `token_ids` of shape (width,) maps columns to ids for a trimmed vocabulary; without it column j is id j. Equal
    scores go to the lowest column. Raises BadLogits when the best logit is NaN or infinite.
    """
    best = best_column(logits)
    if params.temperature == 0:
        return best if token_ids is None else int(token_ids[best])
    with np.errstate(over="ignore"):  # at a temperature of almost nothing; then only the best survive
        columns = surviving_columns(logits, params)
        ids = columns if token_ids is None else token_ids[columns]
        scores = logits[columns].astype(np.float64)
        scores /= params.temperature
        scores += gumbel_noise(params.seed, position, ids)
    return int(ids[scores.argmax()])


def best_column(logits: NDArray[np.float32]) -> int:
    """The first column of the highest logit. Raises BadLogits when that is NaN or infinite."""
    best = int(logits.argmax())  # the first NaN, if there is one
    if not math.isfinite(logits[best]):
        raise BadLogits("the model returned NaN or infinite logits; the session was ended")
    return best


def top_logprobs(logits: NDArray[np.float32], token_id: int, count: int) -> tuple[float, list[int], list[float]]:
    """Natural log-probabilities of the model's own distribution (temperature 1, no filters), from logits (n_vocab,).

    That of `token_id`, then the `count` likeliest ids, best first, and theirs.
    """
    shifted = logits.astype(np.float64) - float(logits.max())
    total = math.log(float(np.exp(shifted).sum()))
    best = np.argpartition(shifted, -count)[-count:] if 0 < count < len(shifted) else np.arange(len(shifted))[:count]
    best = best[np.lexsort((best, -shifted[best]))]
    return float(shifted[token_id]) - total, best.tolist(), (shifted[best] - total).tolist()


def gumbel_noise(seed: int, position: int, token_ids: NDArray[np.integer]) -> NDArray[np.float64]:
    """Standard Gumbel noise, one value a token id: -log(-log(u)), u uniform in (0, 1) with 32 bits."""
    noise: NDArray[np.float64] = np.add(noise_bits(seed, position, token_ids), 0.5, dtype=np.float64)
    noise *= 2.0**-32
    for _ in range(2):  # -log(-log(u)), in place
        np.log(noise, out=noise)
        np.negative(noise, out=noise)
    return noise


def noise_bits(seed: int, position: int, token_ids: NDArray[np.integer]) -> NDArray[np.uint32]:
    """What the noise is made of: 32 bits a token id.

    Two rounds of MurmurHash3's 32-bit finalizer over the id, keyed by 64 bits mixed from seed and position
    (SplitMix64); 32-bit integer arithmetic only, so that other languages can compute the same noise.
    """
    key = _mix64(_mix64(seed) ^ position)
    bits = token_ids.astype(np.uint32)
    bits *= FACTOR_0
    bits += np.uint32(key & 0xFFFFFFFF)
    _finalize(bits)
    bits ^= np.uint32(key >> 32)
    _finalize(bits)
    return bits


def _mix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & U64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & U64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & U64
    return value ^ (value >> 31)


def _finalize(bits: NDArray[np.uint32]) -> None:
    bits ^= bits >> SHIFT_16
    bits *= FACTOR_1
    bits ^= bits >> SHIFT_13
    bits *= FACTOR_2
    bits ^= bits >> SHIFT_16


def surviving_columns(logits: NDArray[np.float32], params: SamplingParams) -> NDArray[np.integer]:
    """Columns that the filters leave, ascending. Without filters: those that the noise could still lift to the top.

    Values equal to the last one kept are kept too, so the result depends on the values alone.
    """
    top = float(logits[logits.argmax()])
    floor = top - NOISE_SPAN * params.temperature
    if params.top_k and params.top_k < len(logits):
        ordered = logits.copy()
        ordered.partition(-params.top_k)
        floor = max(floor, float(ordered[-params.top_k]))
    if params.top_p < 1:
        floor = max(floor, _top_p_floor(logits[logits >= floor], top, params))
    if params.min_p > 0:
        floor = max(floor, top + params.temperature * math.log(params.min_p))
    return (logits >= floor).nonzero()[0]


def _top_p_floor(kept: NDArray[np.float32], top: float, params: SamplingParams) -> float:
    """The smallest logit of the shortest list of best tokens whose probability reaches top_p."""
    weights = np.exp((kept.astype(np.float64) - top) / params.temperature)
    wanted = params.top_p * weights.sum()
    size = 64
    while True:  # the list is short as a rule: sort only the best few
        size = min(size, len(kept))
        best = np.sort(np.partition(kept, len(kept) - size)[len(kept) - size :])[::-1]
        mass = np.cumsum(np.exp((best.astype(np.float64) - top) / params.temperature))
        if mass[-1] >= wanted or size == len(kept):
            return float(best[min(int(np.searchsorted(mass, wanted)), size - 1)])
        size *= 8
