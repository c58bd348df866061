"""What a target says, and where a drafter agrees with it: drawn at random, from a seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from outrider.engines.base import Logits

__all__ = ["N_VOCAB", "Text", "bursts", "one_hot", "repeating"]

N_VOCAB = 256
ONE_HOT = np.eye(N_VOCAB + 1, N_VOCAB, dtype=np.float32)  # the last row says nothing


@dataclass(frozen=True)
class Text:
    """What the target will say, and where the drafter agrees: `agrees[i]` given that all before it were right."""

    token_ids: list[int]
    agrees: list[bool]
    confidences: list[float]
    prompt_ids: list[int] = field(default_factory=lambda: [0])

    def guesses(self, start: int, is_right: bool = True) -> Iterator[tuple[int, float]]:
        """What the drafter would say from a place on, and how sure it would be; all wrong after something wrong."""
        for place in range(start, len(self.token_ids)):
            is_right = is_right and self.agrees[place]
            token_id = self.token_ids[place]
            yield (token_id if is_right else (token_id + 1) % N_VOCAB), self.confidences[place]


def bursts(num_tokens: int, acceptance: float, mean_run: float, rng: random.Random, noise: float = 0.15) -> Text:
    """Agreement in runs of mean length `mean_run` (0: as independent tokens have), `acceptance` of all tokens."""
    miss = min(1 - acceptance, 1 / mean_run) if mean_run else 1 - acceptance
    again = 1 - miss * acceptance / (1 - acceptance) if acceptance < 1 else 0.0  # a miss follows a miss
    agrees: list[bool] = []
    right = True
    for _ in range(num_tokens):
        right = rng.random() >= (miss if right else max(0.0, again))
        agrees.append(right)
    confidences = [min(1.0, max(0.0, (0.9 if right else 0.45) + rng.gauss(0, noise))) for right in agrees]
    return Text([rng.randrange(N_VOCAB) for _ in range(num_tokens)], agrees, confidences)


def repeating(text: Text, mean_copy: float, mean_new: float, rng: random.Random, num_prompt: int = 300) -> Text:
    """The same agreement on other tokens: pieces copied from what stands before, `mean_copy` long, and new ones between
    them, `mean_new` long. The prompt is of the same kind."""
    tokens = [rng.randrange(N_VOCAB) for _ in range(8)]
    while len(tokens) < num_prompt + len(text.token_ids):
        start = rng.randrange(len(tokens))
        tokens += tokens[start : start + 2 + int(rng.expovariate(1 / mean_copy))]
        tokens += [rng.randrange(N_VOCAB) for _ in range(int(rng.expovariate(1 / mean_new) + 0.5))]
    end = num_prompt + len(text.token_ids)
    return replace(text, token_ids=tokens[num_prompt:end], prompt_ids=tokens[:num_prompt])


def one_hot(token_ids: Sequence[int], num_rows: int) -> Logits:
    """Logits of a target that says these; rows beyond them say nothing."""
    if num_rows == 1 == len(token_ids):
        return ONE_HOT[token_ids[0] : token_ids[0] + 1]  # a view: most passes are of one row
    return ONE_HOT[[*token_ids, *[N_VOCAB] * (num_rows - len(token_ids))]]
