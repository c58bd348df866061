"""A search over one engine: its lists, each a lane that takes its turns like a session, and what becomes of the rows.

Lanes are planned, filled and isolated as sessions are. When each has its row, beams are chosen anew, and lanes go on
with other lists; or, of several samples, the best is told once all have ended. An answer is told as far as it is
certain. A search always begins at the prompt, whatever of its answer the device has: so it may be resumed. Knows the
rows of its lanes; no engine, no cache and no link.
"""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from cloud_verifier.beams import Beam, BeamSearch
from cloud_verifier.pending import Pending
from cloud_verifier.session import VerifierSession
from outrider.choice import best_column, top_logprobs
from outrider.constraint import Constrain
from outrider.engines.base import Logits
from outrider.errors import InvalidParameter
from outrider.search import SearchParams
from outrider.wire import MAX_DRAFTS, Logprobs, Open, Verified, pack_ids, unpack_ids

__all__ = ["BeamLanes", "Lane", "Lanes", "SampleLanes", "open_lanes"]

WAIT_FOR_DRAFTS = -1  # there will be none: a lane is ready when its search says so


class Lane(VerifierSession):
    """One list of a search. `is_moved`: it goes on with another list, and what its cache holds is of the old one."""

    def __init__(self, message: Open, limit: int, constrain: Constrain | None, search: "Lanes", number: int) -> None:
        super().__init__(message, limit, constrain)
        self.search = search
        self.number = number
        self.is_moved = False

    def is_ready(self, waited_ms: float, load_ms: float = 0.0) -> bool:
        return self.search.wants(self.number)

    def drafts_for_pass(self, max_drafts: int, *, supports_tree: bool = False) -> Pending:
        return Pending()

    def adjusted(self, logits: Logits) -> Logits:
        """One row as the history has it. Raises BadLogits, GrammarFailed."""
        best_column(logits)
        if self._history is None:
            return logits
        self._history.follow(self.token_ids)
        return self._history.adjust(logits)

    def own_logprobs(self, logits: Logits, token_id: int) -> Logprobs:
        return self._logprobs(logits, token_id)

    def move(self, token_ids: list[int]) -> None:
        self.token_ids = token_ids  # a new list: the cache's entry keeps the old one until it is dropped
        self.is_moved = True


class Lanes(ABC):
    """Base of both searches. `name` is the session that the device knows; it is the first lane's.

    Raises InvalidParameter for a search that cannot be.
    """

    def __init__(self, message: Open, limit: int, constrain: Constrain | None, search: SearchParams) -> None:
        params = message.params.sampling()
        search.check(params)
        token_ids = unpack_ids(message.token_ids)
        if not params.num_prompt:
            raise InvalidParameter("a search begins at the prompt's end; say with num_prompt where that is")
        self._prompt_ids, self._given = token_ids[: params.num_prompt], token_ids[params.num_prompt :]
        self._num_told = 0
        self._num_logprobs = message.num_logprobs
        self.limit = limit
        self.is_over = False
        self.names = [secrets.token_urlsafe(32) for _ in range(search.num_lanes)]
        self.lanes = [
            Lane(self._open(message, number), limit, constrain, self, number) for number in range(search.num_lanes)
        ]

    def _open(self, message: Open, number: int) -> Open:
        """What a lane is opened with."""
        return replace(message, token_ids=pack_ids(self._prompt_ids), patience_ms=WAIT_FOR_DRAFTS)

    @property
    def name(self) -> str:
        return self.names[0]

    @abstractmethod
    def wants(self, number: int) -> bool:
        """Whether a pass is due to a lane."""

    @abstractmethod
    def take(self, lane: Lane, logits: Logits) -> list[Verified]:
        """A lane's next row, of shape (1, n_vocab); what is certain now. Raises BadLogits, GrammarFailed, and
        InvalidParameter when the answer that the device has so far is not the one found."""

    def _tell(self, token_ids: Sequence[int], logprobs: Sequence[Logprobs], finish: str | None) -> list[Verified]:
        """Messages with what is new in this beginning of the answer, or in all of it with `finish`."""
        shared = min(len(token_ids), len(self._given))
        is_known = finish is not None and len(token_ids) <= len(self._given)
        if list(token_ids[:shared]) != self._given[:shared] or is_known:
            raise InvalidParameter("the answer so far is not what this search finds; begin anew from the prompt")
        start = max(self._num_told, len(self._given))
        messages = []
        for first in range(start, len(token_ids), MAX_DRAFTS):
            end = min(first + MAX_DRAFTS, len(token_ids))
            told = list(logprobs[first:end]) if self._num_logprobs >= 0 else []
            is_last = end == len(token_ids)
            ids = pack_ids(token_ids[first:end])
            messages.append(Verified(0, len(self._prompt_ids) + first, ids, 0, 0, finish if is_last else None, told))
        self._num_told = max(self._num_told, len(token_ids))
        self.is_over = finish is not None
        return messages


class BeamLanes(Lanes):
    """Beam i of the search's live ones is the list of lane `_lane_of[i]`."""

    def __init__(self, message: Open, limit: int, constrain: Constrain | None, search: SearchParams) -> None:
        super().__init__(message, limit, constrain, search)
        stop_ids = frozenset(unpack_ids(message.stop_ids))
        max_tokens = limit - len(self._prompt_ids)
        self._beams = BeamSearch(search.num_beams, search.length_penalty, max_tokens, stop_ids)
        self._lane_of = [0]
        self._rows: dict[int, tuple[list[int], list[float]]] = {}  # by lane
        self._own: dict[int, Logits] = {}  # by lane: the model's own row, where it is asked for

    def wants(self, number: int) -> bool:
        return not self.is_over and number in self._lane_of and number not in self._rows

    def take(self, lane: Lane, logits: Logits) -> list[Verified]:
        row = lane.adjusted(logits[0])
        _, ids, values = top_logprobs(row, 0, self._beams.num_candidates)
        count = int(np.isfinite(values).sum())
        self._rows[lane.number] = ids[:count], values[:count]
        if self._num_logprobs >= 0:
            self._own[lane.number] = logits[0].copy()
        if len(self._rows) < len(self._lane_of):
            return []
        self._beams.step([self._rows[number] for number in self._lane_of], self._note)
        self._rows.clear()
        best = self._beams.best
        if self._beams.is_over and best is not None:
            return self._tell(best.token_ids, [note for note in best.notes if note], self._beams.finish)
        self._regroup()
        certain = self._beams.live[0].token_ids[: self._beams.common()]
        return self._tell(certain, [note for note in self._beams.live[0].notes if note], None)

    def _note(self, beam: int, token_id: int) -> Logprobs | None:
        number = self._lane_of[beam]
        return self.lanes[number].own_logprobs(self._own[number], token_id) if self._num_logprobs >= 0 else None

    def _regroup(self) -> None:
        """Each beam's first child goes on in its lane, others in lanes whose beams had none."""
        lane_of: dict[int, int] = {}  # by place of the child
        for place, beam in enumerate(self._beams.live):
            number = self._lane_of[beam.parent]
            if number not in lane_of.values():
                lane_of[place] = number
                self.lanes[number].token_ids.append(beam.token_ids[-1])
        free = [number for number in range(len(self.lanes)) if number not in lane_of.values()]
        for place, beam in enumerate(self._beams.live):
            if place not in lane_of:
                lane_of[place] = free.pop(0)
                self.lanes[lane_of[place]].move(self._list(beam))
        self._lane_of = [lane_of[place] for place in range(len(self._beams.live))]

    def _list(self, beam: Beam) -> list[int]:
        return [*self._prompt_ids, *beam.token_ids]


class SampleLanes(Lanes):
    """The first lane reads the prompt; the others begin where it ended."""

    def __init__(self, message: Open, limit: int, constrain: Constrain | None, search: SearchParams) -> None:
        super().__init__(message, limit, constrain, search)
        self._told: list[list[Logprobs]] = [[] for _ in self.lanes]

    def _open(self, message: Open, number: int) -> Open:
        message = super()._open(message, number)
        seeded = replace(message.params, seed=message.params.seed + number)
        return replace(message, params=seeded, num_logprobs=max(0, message.num_logprobs))

    def wants(self, number: int) -> bool:
        return self.lanes[number].finish is None and (number == 0 or bool(self._told[0]))

    def take(self, lane: Lane, logits: Logits) -> list[Verified]:
        verified, _ = lane.advance(Pending(), logits)
        self._told[lane.number] += verified.logprobs
        if any(each.finish is None for each in self.lanes):
            return []
        means = [sum(each.chosen for each in told) / len(told) for told in self._told]
        best = self.lanes[means.index(max(means))]
        return self._tell(best.token_ids[len(self._prompt_ids) :], self._told[best.number], best.finish)


def open_lanes(message: Open, limit: int, constrain: Constrain | None) -> Lanes | None:
    """The search that Open asks for, None for none. Raises InvalidParameter."""
    search = message.search.params() if message.search is not None else SearchParams()
    if search.num_lanes == 1:
        return None
    return (BeamLanes if search.num_beams > 1 else SampleLanes)(message, limit, constrain, search)
