"""The tokens so far, as they bear on the next choice: penalties, a bias, what must not end yet, what a grammar allows.

`adjust` turns a row of logits into the one that `choose` is given. In this order:

    bias          l[i] += bias of i
    repetition    l[i] = l[i] / r if l[i] > 0 else l[i] * r    for every i in the prompt or the answer
    frequency     l[i] -= f * (times i is in the answer)
    presence      l[i] -= p                                    for every i in the answer
    grammar       l[i] = -inf                                  for every i that it does not allow
    min_tokens    l[i] = -inf                                  for stop ids, while the answer is shorter than that

in float32, so that both sides compute the same. Counts are kept up with the list in both directions: a token more or
less costs the same whatever the list's length. Knows no engine, no session and no text.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from outrider.choice import SamplingParams
from outrider.constraint import Constrain, Constraint
from outrider.errors import GrammarFailed

__all__ = ["History", "open_history"]

Columns = NDArray[np.integer]


def open_history(
    params: SamplingParams,
    token_ids: Sequence[int],
    *,
    stop_ids: Collection[int] = (),
    constrain: Constrain | None = None,
) -> "History | None":
    """The history of a list, None where `params` leave logits as they are. Without `constrain` grammars are not kept
    to. Raises what `constrain` does."""
    if not params.adjusts:
        return None
    constraint = constrain(params.grammar) if constrain is not None and params.grammar is not None else None
    return History(params, token_ids, stop_ids, constraint)


class History:
    def __init__(
        self,
        params: SamplingParams,
        token_ids: Sequence[int],
        stop_ids: Collection[int] = (),
        constraint: Constraint | None = None,
    ) -> None:
        self.params = params
        self._token_ids: list[int] = []
        self._stop_ids = np.array(sorted(stop_ids), np.int64)
        self._constraint = constraint
        self._bias_ids = np.array([token_id for token_id, _ in params.logit_bias], np.int64)
        self._biases = np.array([bias for _, bias in params.logit_bias], np.float32)
        self._counts = _Counts() if params.penalizes else None
        prompt = token_ids[: params.num_prompt]
        self._token_ids += prompt
        if self._counts is not None:
            for token_id, count in Counter(prompt).items():
                self._counts.add(token_id, count, 0)
        for token_id in token_ids[params.num_prompt :]:
            self.append(token_id)

    def __len__(self) -> int:
        return len(self._token_ids)

    @property
    def is_violated(self) -> bool:
        """Whether the answer holds a token that the grammar did not allow."""
        return self._constraint is not None and self._constraint.is_violated

    def append(self, token_id: int) -> None:
        is_answer = len(self._token_ids) >= self.params.num_prompt
        self._token_ids.append(token_id)
        if self._counts is not None:
            self._counts.add(token_id, 1, int(is_answer))
        if self._constraint is not None and is_answer:
            self._constraint.append(token_id)

    def truncate(self, length: int) -> None:
        """Take back the tokens from `length` on. Truncating to the present length or beyond is always safe."""
        num_prompt = self.params.num_prompt
        while len(self._token_ids) > length:
            token_id = self._token_ids.pop()
            if self._counts is not None:
                self._counts.add(token_id, -1, -int(len(self._token_ids) >= num_prompt))
        if self._constraint is not None:
            self._constraint.truncate(max(0, length - num_prompt))

    def follow(self, token_ids: Sequence[int]) -> None:
        """Become the history of this list, at the cost of what differs."""
        end = min(len(self._token_ids), len(token_ids))
        if self._token_ids[:end] != list(token_ids[:end]):
            end = next(index for index in range(end) if self._token_ids[index] != token_ids[index])
        self.truncate(end)
        for token_id in token_ids[end:]:
            self.append(token_id)

    def adjust(self, logits: NDArray[np.float32], id_map: NDArray[np.int32] | None = None) -> NDArray[np.float32]:
        """One row of logits of shape (width,) as the next choice sees it; the row itself is left as it is.

        `id_map` of shape (width,), ascending, maps columns to ids. Raises GrammarFailed where nothing may come next.
        """
        logits = logits.copy()
        if self._bias_ids.size:
            columns, found = _columns(self._bias_ids, len(logits), id_map)
            logits[columns] += self._biases[found]
        if self._counts is not None:
            self._penalize(logits, self._counts, id_map)
        min_tokens = self.params.min_tokens
        may_stop = not min_tokens or len(self) >= self.params.num_prompt + min_tokens
        stops = self._stop_ids[:0] if may_stop else _columns(self._stop_ids, len(logits), id_map)[0]
        if self._constraint is not None and (allowed := self._constraint.allowed()) is not None:
            mask = _by_column(allowed, len(logits), id_map)
            logits[~mask] = -np.inf
            if not mask.any():
                raise GrammarFailed("no token of the model's vocabulary may come next; change the grammar")
            mask[stops] = False
            if not mask.any():  # a finished answer may end
                return logits
        logits[stops] = -np.inf
        return logits

    def _penalize(self, logits: NDArray[np.float32], counts: "_Counts", id_map: NDArray[np.int32] | None) -> None:
        ids, in_list, in_answer = counts.arrays()
        columns, found = _columns(ids, len(logits), id_map)
        values, in_list, in_answer = logits[columns], in_list[found], in_answer[found]
        params = self.params
        if params.repetition_penalty != 1:
            factor = np.float32(params.repetition_penalty)
            values = np.where(in_list > 0, np.where(values > 0, values / factor, values * factor), values)
        values -= np.float32(params.frequency_penalty) * in_answer.astype(np.float32)
        values -= np.float32(params.presence_penalty) * (in_answer > 0)
        logits[columns] = values


class _Counts:
    """How often each id is in the list and in its answer, an id's counts always at the same place of the arrays."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._table = np.zeros((3, 256), np.int64)  # ids, times in the list, times in the answer

    def add(self, token_id: int, in_list: int, in_answer: int) -> None:
        place = self._places.setdefault(token_id, len(self._places))
        if place == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
        self._table[0, place] = token_id
        self._table[1, place] += in_list
        self._table[2, place] += in_answer

    def arrays(self) -> tuple[Columns, Columns, Columns]:
        ids, in_list, in_answer = self._table[:, : len(self._places)]
        return ids, in_list, in_answer


def _columns(ids: Columns, width: int, id_map: NDArray[np.int32] | None) -> tuple[Columns, NDArray[np.bool_]]:
    """The columns of those ids that have one, and which those are."""
    if id_map is None:
        found = ids < width
        return ids[found], found
    columns = np.minimum(np.searchsorted(id_map, ids), width - 1)
    found = id_map[columns] == ids
    return columns[found], found


def _by_column(allowed: NDArray[np.bool_], width: int, id_map: NDArray[np.int32] | None) -> NDArray[np.bool_]:
    """A mask over ids as one over columns; what lies beyond it is not allowed."""
    if id_map is not None:
        return allowed[id_map]
    mask = np.zeros(width, np.bool_)
    mask[: len(allowed)] = allowed[:width]
    return mask
