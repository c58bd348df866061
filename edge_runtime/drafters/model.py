"""Drafts by a small model on any engine, with the target's own noise: what it draws, the target tends to draw too.

Its KV cache follows the list it is given: it is cut back to the part they share. What it guessed along the way is kept
beside the cache, so that a list which agrees with its guesses costs nothing to come back to and is guessed on in the
same way. Knows no link and no verifier.
"""

import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from edge_runtime.drafters.base import Proposal, shared_length
from edge_runtime.pacing import Pace
from outrider.choice import SamplingParams, choose
from outrider.constraint import Constrain
from outrider.engines.base import Chunk, Engine, Logits
from outrider.errors import EngineError, InvalidToken, OutriderError
from outrider.history import History, open_history
from outrider.rejection import REJECTION, Distribution, distribution

__all__ = ["ModelDrafter"]

Guess = tuple[int, float]  # a token id and how likely it is
FAILED = (EngineError, InvalidToken)  # the latter for a target that has more ids than this model
SHORT = 2  # tokens in a pass that is typical of drafting


class ModelDrafter:
    """`engine` becomes this drafter's own. With `constrain` its guesses keep to the grammar that the answer must."""

    can_answer = True

    def __init__(self, engine: Engine, *, name: str, constrain: Constrain | None = None) -> None:
        self.name = name
        self._engine = engine
        self._sequence = engine.allocate()
        self._cached: list[int] = []
        self._guesses: list[Guess | None] = []  # what follows each cached token, where that was asked
        self._drawn: dict[int, Distribution] = {}  # by place in the cache: what a guess was drawn from, where asked
        self._constrain = constrain
        self._params = SamplingParams()  # of the guesses
        self._history: History | None = None  # of `_params`

    def prefill(self, token_ids: Sequence[int]) -> None:
        held = shared_length(self._cached, token_ids)
        if held >= len(token_ids) - 1 or len(token_ids) > self._engine.max_context:
            return
        with suppress(*FAILED):  # the first draft tries again
            self._run(held, token_ids[held:-1], num_logits=0)

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        proposal = Proposal(self.name)
        max_drafts = min(max_drafts, self._engine.max_context - len(token_ids))
        if params != self._params:
            self._begin(params, token_ids)
        held = shared_length(self._cached, token_ids)  # of the list and the drafts, the cache holds so many
        self._drawn = {place: drawn for place, drawn in self._drawn.items() if place >= len(token_ids) - 1}
        missing = token_ids[held:]
        is_drawn = params.acceptance == REJECTION and params.temperature > 0  # then a guess comes with its distribution
        reach = 1.0
        while len(proposal.token_ids) < max_drafts and pace.wants_another(self.name, reach, len(proposal.token_ids)):
            guess = None if missing or (is_drawn and held - 1 not in self._drawn) else self._guesses[held - 1]
            if guess is None:
                try:
                    guess = self._guess(held, missing, pace)
                except FAILED:  # a guess that fails costs nothing but itself; the target goes on
                    break
                held = len(self._cached)
            token_id, confidence = guess
            proposal.token_ids.append(token_id)
            proposal.confidences.append(confidence)
            if params.acceptance == REJECTION:
                proposal.distributions.append(self._drawn.get(held - 1))
            reach *= pace.chance(self.name, confidence)
            is_cached = held < len(self._cached) and self._cached[held] == token_id
            held, missing = (held + 1, []) if is_cached else (held, [token_id])
        return proposal

    def _begin(self, params: SamplingParams, token_ids: Sequence[int]) -> None:
        """Other parameters, other guesses. A grammar that cannot be had here is the target's alone to keep to."""
        self._params = params
        self._guesses = [None] * len(self._cached)
        self._drawn.clear()
        try:
            self._history = open_history(params, token_ids, constrain=self._constrain)
        except OutriderError:
            self._history = open_history(params, token_ids)

    def _guess(self, held: int, missing: Sequence[int], pace: Pace) -> Guess:
        """What follows the first `held` cached tokens and the `missing` ones. Raises EngineError."""
        if not missing:  # cached, but nobody asked what follows
            held -= 1
            missing = [self._cached[held]]
        began_s = time.perf_counter()
        logits = self._run(held, missing, num_logits=1)[0]
        if self._history is not None:
            self._history.follow(self._cached)
            logits = self._history.adjust(logits, self._engine.id_map)
        token_id = choose(logits, self._params, len(self._cached), self._engine.id_map)
        guess = token_id, _confidence(logits, token_id, self._engine)
        self._guesses[-1] = guess
        if self._params.acceptance == REJECTION and self._params.temperature > 0:
            self._drawn[len(self._cached) - 1] = distribution(logits, self._params, self._engine.id_map)
        if len(missing) <= SHORT:  # what others drafted or the target corrected is caught up with at no one's cost
            pace.observe_draft(self.name, (time.perf_counter() - began_s) * 1000)
        return guess

    def _run(self, held: int, missing: Sequence[int], *, num_logits: int) -> Logits:
        """Cut the cache back to `held` tokens and append the `missing` ones. After an EngineError it is empty."""
        self._cut(held)
        try:
            logits = self._engine.extend([Chunk(self._sequence, missing, num_logits)])[0]
        except EngineError:
            self._cut(0)
            raise
        self._cached += missing
        self._guesses += [None] * len(missing)
        return logits

    def _cut(self, length: int) -> None:
        del self._cached[length:], self._guesses[length:]
        for place in [place for place in self._drawn if place >= length]:
            del self._drawn[place]
        self._engine.truncate(self._sequence, length)

    def close(self) -> None:
        self._engine.close()


def _confidence(logits: np.ndarray[tuple[int], np.dtype[np.float32]], token_id: int, engine: Engine) -> float:
    """The probability that the drafter itself gives the token."""
    column = token_id if engine.id_map is None else int(np.searchsorted(engine.id_map, token_id))
    return float(1 / np.exp(logits - logits[column]).sum())
