"""Drafts by a small model on any engine, with the target's own noise: what it draws, the target tends to draw too.

Its KV cache follows the list it is given: it is cut back to the part they share. Knows no link and no verifier.
"""

import time
from collections.abc import Sequence

import numpy as np

from edge_runtime.drafters.base import Proposal
from edge_runtime.pacing import Pace
from outrider.choice import SamplingParams, choose
from outrider.constraint import Constrain
from outrider.engines.base import Chunk, Engine
from outrider.errors import EngineError, OutriderError
from outrider.history import History, open_history

__all__ = ["ModelDrafter"]

SHORT = 2  # tokens in a pass that is typical of drafting


class ModelDrafter:
    """`engine` becomes this drafter's own. With `constrain` its guesses keep to the grammar that the answer must."""

    def __init__(self, engine: Engine, *, name: str, constrain: Constrain | None = None) -> None:
        self.name = name
        self._engine = engine
        self._sequence = engine.allocate()
        self._cached: list[int] = []
        self._constrain = constrain
        self._params = SamplingParams()
        self._history: History | None = None  # of `_params`

    def prefill(self, token_ids: Sequence[int]) -> None:
        self._rewind(token_ids)
        missing = token_ids[len(self._cached) : -1]
        if not missing or len(token_ids) > self._engine.max_context:
            return
        try:
            self._engine.extend([Chunk(self._sequence, missing, num_logits=0)])
            self._cached += missing
        except EngineError:
            self._forget()

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        proposal = Proposal(self.name)
        max_drafts = min(max_drafts, self._engine.max_context - len(token_ids))
        reach = 1.0
        self._rewind(token_ids)
        self._follow(token_ids, params)
        missing = list(token_ids[len(self._cached) :])
        while len(proposal.token_ids) < max_drafts and pace.wants_another(self.name, reach, len(proposal.token_ids)):
            began_s = time.perf_counter()
            try:
                logits = self._engine.extend([Chunk(self._sequence, missing)])[0][0]
            except EngineError:  # a guess that fails costs nothing but itself; the target goes on
                self._forget()
                break
            self._cached += missing
            try:
                if self._history is not None:
                    logits = self._history.adjust(logits, self._engine.id_map)
                token_id = choose(logits, params, len(self._cached), self._engine.id_map)
            except EngineError:  # nothing that it can say may come here
                break
            if self._history is not None:
                self._history.append(token_id)
            confidence = _confidence(logits, token_id, self._engine)
            if len(missing) <= SHORT:  # what others drafted or the target corrected is caught up with at no one's cost
                pace.observe_draft(self.name, (time.perf_counter() - began_s) * 1000)
            proposal.token_ids.append(token_id)
            proposal.confidences.append(confidence)
            reach *= pace.chance(self.name, confidence)
            missing = [token_id]
        return proposal

    def _rewind(self, token_ids: Sequence[int]) -> None:
        """Cut the cache back to what it shares with `token_ids`, and leave at least the last token to be run."""
        shared = 0
        longest = min(len(self._cached), len(token_ids) - 1)
        if self._cached[:longest] == list(token_ids[:longest]):
            shared = longest
        else:
            while self._cached[shared] == token_ids[shared]:
                shared += 1
        del self._cached[shared:]
        self._engine.truncate(self._sequence, shared)

    def _follow(self, token_ids: Sequence[int], params: SamplingParams) -> None:
        """The history of this list. A grammar that cannot be had here is the target's alone to keep to."""
        if params == self._params:
            if self._history is not None:
                self._history.follow(token_ids)
            return
        self._params = params
        try:
            self._history = open_history(params, token_ids, constrain=self._constrain)
        except OutriderError:
            self._history = open_history(params, token_ids)

    def _forget(self) -> None:
        self._cached.clear()
        self._engine.truncate(self._sequence, 0)

    def close(self) -> None:
        self._engine.close()


def _confidence(logits: np.ndarray[tuple[int], np.dtype[np.float32]], token_id: int, engine: Engine) -> float:
    """The probability that the drafter itself gives the token."""
    column = token_id if engine.id_map is None else int(np.searchsorted(engine.id_map, token_id))
    return float(1 / np.exp(logits - logits[column]).sum())
