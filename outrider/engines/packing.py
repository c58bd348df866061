"""Lays the chunks of a call out as one packed pass of the torch engine: all tokens in one row, padded to few sizes.

Tokens stand side by side, whatever their sequence, so that the model's matrix products run over real tokens only. For
attention they are spread over a grid of lanes: a lane is up to `num_rows` tokens of one sequence in a row; a long chain
takes several lanes, a tree one. Every size is rounded up, so that shapes repeat. Whole-array numpy; knows no model.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.engines.base import Chunk

__all__ = ["FIELDS", "Packed", "Shape", "pack"]

LANE = 32  # rows of a lane at most, where no tree needs more: the most one pass checks for a session
STEP = 64  # numbers of tokens above this are rounded up to a multiple of it, those below to a power of two
LEAST_CELLS = 64

FIELDS = ("ids", "positions", "slots", "cells", "places", "lane_tokens", "lane_slots", "lane_starts", "wanted")


class Shape(NamedTuple):
    """The sizes of a pass: two passes of one shape differ in numbers only."""

    num_tokens: int
    num_lanes: int
    num_rows: int  # of a lane
    num_cells: int  # of the cache, that a row may see
    num_wanted: int

    @property
    def sizes(self) -> list[int]:
        """The lengths of `FIELDS`."""
        return [self.num_tokens] * 5 + [self.num_lanes * self.num_rows, self.num_lanes, self.num_lanes, self.num_wanted]


@dataclass(frozen=True, slots=True)
class Packed:
    """A pass. `numbers` holds the `FIELDS` one after the other:

    of each token its id, position, slot and cell in the cache and place in the grid; of each place in the grid its
    token; of each lane its slot and the cell it starts at; the tokens whose logits are wanted, `num_wanted` of them and
    padding.
    `sees` [num_lanes, num_rows, num_rows]: which rows of its lane each row sees, itself among them.
    """

    shape: Shape
    numbers: NDArray[np.int64]
    sees: NDArray[np.bool_]
    num_wanted: int


def pack(pieces: Sequence[Chunk], starts: Sequence[int], capacity: int) -> Packed:
    """`starts`: positions that each piece's sequence holds. Padding goes to cell `capacity`. Parents make a tree."""
    lengths = np.array([len(piece.token_ids) for piece in pieces])
    num_wanted = np.array([piece.num_logits for piece in pieces])
    slot = np.array([piece.sequence for piece in pieces])
    start = np.array(starts)
    trees = [number for number, piece in enumerate(pieces) if piece.parents is not None]
    lane_rows = max(min(LANE, int(lengths.max())), *(int(lengths[number]) for number in trees), 1)
    num_rows = _power_of_two(lane_rows)
    piece_lanes = -(-lengths // num_rows)
    first_lane = np.cumsum(piece_lanes) - piece_lanes
    total, total_lanes = int(lengths.sum()), int(piece_lanes.sum())

    piece = np.repeat(np.arange(len(pieces)), lengths)  # of each token
    row = np.arange(total) - (np.cumsum(lengths) - lengths)[piece]  # within its piece
    place = (first_lane[piece] + row // num_rows) * num_rows + row % num_rows
    wanted = np.flatnonzero(row >= (lengths - num_wanted)[piece])
    lane_piece = np.repeat(np.arange(len(pieces)), piece_lanes)
    lane_offset = (np.arange(total_lanes) - first_lane[lane_piece]) * num_rows

    num_cells = min(max(LEAST_CELLS, _power_of_two(int((start + lengths).max()))), capacity + 1)
    shape = Shape(_round_up(total), _power_of_two(total_lanes), num_rows, num_cells, _round_up(max(1, len(wanted))))
    sees = np.empty((shape.num_lanes, num_rows, num_rows), np.bool_)
    sees[:] = np.tri(num_rows, dtype=np.bool_)
    depth = row
    if trees:
        sees[first_lane[trees]] = _ancestors([pieces[number].parents or () for number in trees], num_rows)
        depth = row // num_rows * num_rows + sees.sum(-1).reshape(-1)[place] - 1

    numbers = np.zeros(sum(shape.sizes), np.int64)
    field = dict(zip(FIELDS, np.split(numbers, np.cumsum(shape.sizes)[:-1]), strict=True))
    field["ids"][:total] = np.fromiter(itertools.chain.from_iterable(piece.token_ids for piece in pieces), np.int64)
    field["positions"][:total] = start[piece] + depth
    field["slots"][:total] = slot[piece]
    field["cells"][:total] = start[piece] + row
    field["cells"][total:] = capacity
    field["places"][:total] = place
    field["lane_tokens"][place] = np.arange(total)
    field["lane_slots"][:total_lanes] = slot[lane_piece]
    field["lane_starts"][:total_lanes] = start[lane_piece] + lane_offset
    field["wanted"][: len(wanted)] = wanted
    return Packed(shape, numbers, sees, len(wanted))


def _ancestors(trees: Sequence[Sequence[int]], num_rows: int) -> NDArray[np.bool_]:
    """Which rows each row of each tree sees: what its parent sees, and itself."""
    parents = np.full((len(trees), num_rows), -1)
    for number, tree in enumerate(trees):
        parents[number, : len(tree)] = tree
    sees = np.zeros((len(trees), num_rows + 1, num_rows), np.bool_)  # row -1 sees nothing
    every = np.arange(len(trees))
    for row in range(num_rows):
        sees[:, row] = sees[every, parents[:, row]]
        sees[:, row, row] = True
    return sees[:, :num_rows]


def _power_of_two(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def _round_up(count: int) -> int:
    return _power_of_two(count) if count <= STEP else -(-count // STEP) * STEP
