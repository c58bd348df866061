"""How the torch engine lays a call out: every token once, lanes and trees, sizes that repeat."""

import numpy as np
import pytest

from outrider.engines import Chunk
from outrider.engines.packing import FIELDS, LANE, Packed, pack

CAPACITY = 1000


def fields(packed: Packed) -> dict[str, np.ndarray]:
    return dict(zip(FIELDS, np.split(packed.numbers, np.cumsum(packed.shape.sizes)[:-1]), strict=True))


def test_tokens_stand_side_by_side_and_only_the_sum_is_rounded_up() -> None:
    packed = pack([Chunk(4, [7, 8, 9], 2), Chunk(1, [5], 1)], [10, 20], CAPACITY)
    assert packed.shape == (4, 2, 4, 64, 4)
    assert packed.num_wanted == 3
    field = fields(packed)
    assert field["ids"].tolist() == [7, 8, 9, 5]
    assert field["positions"].tolist() == field["cells"].tolist() == [10, 11, 12, 20]
    assert field["slots"].tolist() == [4, 4, 4, 1]
    assert field["places"].tolist() == [0, 1, 2, 4]
    assert field["lane_tokens"][field["places"]].tolist() == [0, 1, 2, 3]
    assert field["lane_slots"].tolist() == [4, 1]
    assert field["lane_starts"].tolist() == [10, 20]
    assert field["wanted"][:3].tolist() == [1, 2, 3]


def test_padding_writes_to_the_last_cell_only() -> None:
    field = fields(pack([Chunk(0, [1] * 5)], [0], CAPACITY))
    assert field["cells"].tolist() == [0, 1, 2, 3, 4, CAPACITY, CAPACITY, CAPACITY]


def test_a_long_chain_takes_several_lanes() -> None:
    packed = pack([Chunk(3, list(range(70)), 0), Chunk(0, [1], 1)], [5, 0], CAPACITY)
    field = fields(packed)
    assert packed.shape.num_rows == LANE
    assert field["lane_slots"].tolist() == [3, 3, 3, 0]
    assert field["lane_starts"].tolist() == [5, 37, 69, 0]
    assert field["cells"][:70].tolist() == list(range(5, 75))
    assert field["places"][[31, 32, 69, 70]].tolist() == [31, 32, 69, 96]


def test_a_tree_is_one_lane_and_its_rows_see_their_ancestors() -> None:
    parents = [-1, 0, 0, 2, -1]
    packed = pack([Chunk(0, [9]), Chunk(2, [1, 2, 3, 4, 5], 5, parents)], [0, 30], CAPACITY)
    field = fields(packed)
    expected = np.zeros((5, 5), bool)
    for row, seen in enumerate([[0], [0, 1], [0, 2], [0, 2, 3], [4]]):
        expected[row, seen] = True
    np.testing.assert_array_equal(packed.sees[1, :5, :5], expected)
    np.testing.assert_array_equal(packed.sees[0], np.tri(8, dtype=bool))
    assert field["positions"][:6].tolist() == [0, 30, 31, 31, 32, 30]
    assert field["cells"][:6].tolist() == [0, 30, 31, 32, 33, 34]


def test_a_tree_longer_than_a_lane_widens_the_lanes() -> None:
    packed = pack([Chunk(0, list(range(50)), 1, [-1] * 50), Chunk(1, list(range(70)), 0)], [0, 0], CAPACITY)
    assert packed.shape.num_rows == 64
    assert fields(packed)["lane_starts"].tolist() == [0, 0, 64, 0]
    assert fields(packed)["positions"][:120].tolist() == [0] * 50 + list(range(70))


@pytest.mark.parametrize("seed", range(3))
def test_few_shapes_occur_under_load(seed: int) -> None:
    """64 sessions of unequal lengths whose drafts come and go: without rounding nearly every pass would differ."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    lengths = rng.integers(100, 500, 64)
    shapes, unrounded = set(), set()
    for _ in range(100):
        counts = rng.integers(1, 9, 64)
        chosen = rng.permutation(64)[: rng.integers(33, 65)]
        chunks = [Chunk(int(number), [1] * int(counts[number]), int(counts[number])) for number in chosen]
        shapes.add(pack(chunks, [int(lengths[number]) for number in chosen], 4096).shape)
        unrounded.add((len(chosen), int(counts[chosen].sum()), int((lengths + counts)[chosen].max())))
        lengths[chosen] += counts[chosen]
    assert len(unrounded) > 90
    assert len(shapes) <= 12
