"""Searches: the likeliest answer that several beams find, or the best of several samples. What may be asked.

Knows nothing of how a search is run.
"""

from dataclasses import dataclass

from outrider.choice import MAX_SEED, SamplingParams
from outrider.errors import InvalidParameter

__all__ = ["MAX_LANES", "MAX_LENGTH_PENALTY", "SearchParams"]

MAX_LANES = 16
MAX_LENGTH_PENALTY = 10.0


@dataclass(frozen=True)
class SearchParams:
    """With `num_beams` above 1: beam search. An answer's score is the sum of its tokens' log-probabilities, the stop
    token's included, divided by its length to the power of `length_penalty`: above 0 favours long answers.

    With `best_of` above 1: so many samples, seeds from the one asked for on; the answer is the one whose mean
    log-probability, the model's own, is highest. Raises InvalidParameter.
    """

    num_beams: int = 1
    length_penalty: float = 1.0
    best_of: int = 1

    def __post_init__(self) -> None:
        for name, value in (("num_beams", self.num_beams), ("best_of", self.best_of)):
            if not 1 <= value <= MAX_LANES:
                raise InvalidParameter(f"{name} is {value}; give a number from 1 to {MAX_LANES}")
        if not abs(self.length_penalty) <= MAX_LENGTH_PENALTY:  # also catches NaN
            raise InvalidParameter(
                f"length_penalty is {self.length_penalty}; give a number from -{MAX_LENGTH_PENALTY:g} "
                f"to {MAX_LENGTH_PENALTY:g}"
            )
        if self.num_beams > 1 and self.best_of > 1:
            raise InvalidParameter("beams and best-of are two searches; ask for one of them")

    @property
    def num_lanes(self) -> int:
        """Lists that grow side by side; 1 where nothing is searched."""
        return max(self.num_beams, self.best_of)

    def check(self, params: SamplingParams) -> None:
        """Raises InvalidParameter for a search that this way of choosing leaves nothing to do, or no seeds for."""
        if self.num_beams > 1 and params.temperature > 0:
            raise InvalidParameter("beams look for the likeliest answer and draw nothing; leave the temperature at 0")
        if self.best_of > 1 and params.temperature == 0:
            raise InvalidParameter("at temperature 0 all samples are the same; raise it, or ask for beams")
        last = MAX_SEED - self.best_of + 1
        if params.seed > last:
            raise InvalidParameter(f"seed is {params.seed}; best of {self.best_of} needs one of at most {last}")
