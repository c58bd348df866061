"""Trees of drafts: checked whole where the engine can, path by path where it cannot; the list is the same."""

import random

import pytest

from cloud_verifier.pending import Pending
from cloud_verifier.verifier import Verifier
from outrider.errors import ProtocolError
from outrider.wire import Draft, Verified, pack_ids, pack_parents, unpack_ids
from tests.cloud_verifier.test_verifier import PROMPT, open_message, target_alone
from tests.toy import ToyEngine


def grow(rng: random.Random, truth: list[int]) -> tuple[list[int], list[int]]:
    """A random tree of at most 12 tokens that holds some of `truth` on some path."""
    ids, parents = [], []
    depth = {-1: 0}
    for row in range(rng.randrange(1, 13)):
        parent = rng.randrange(-1, row)
        depth[row] = depth[parent] + 1
        place = depth[row] - 1
        right = truth[place] if place < len(truth) else 0
        ids.append(right if rng.random() < 0.6 else rng.randrange(16))
        parents.append(parent)
    return ids, parents


@pytest.mark.parametrize("supports_tree", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_any_tree_gives_the_same_list(seed: int, supports_tree: bool) -> None:
    rng = random.Random(seed)
    engine = ToyEngine(supports_tree=supports_tree)
    verifier = Verifier(engine, target="t", vocabulary="v")
    name = verifier.open(open_message(patience_ms=-1)).session
    want = target_alone()
    got: list[int] = []
    accepted = 0
    for epoch in range(400):
        frontier = len(PROMPT) + len(got)
        start = max(len(PROMPT), frontier - rng.randrange(3))
        ids, parents = grow(rng, want[start - len(PROMPT) :])
        verifier.receive(name, Draft(epoch, start, pack_ids(ids), parents=pack_parents(parents)))
        verifier.receive(name, Draft(epoch, len(PROMPT) + len(got), b""))
        for _, message in verifier.step():
            if isinstance(message, Verified):
                assert message.start == len(PROMPT) + len(got)
                got += unpack_ids(message.token_ids)
                accepted += message.num_accepted
        verifier.check_integrity()
        if len(got) >= 60:
            break
    assert got == want, f"seed {seed}"
    assert accepted > 5


@pytest.mark.parametrize("parents", [[0], [-1, 1], [-1, 5], [-2], [-1]])
def test_what_is_no_tree_is_refused(parents: list[int]) -> None:
    verifier = Verifier(ToyEngine(), target="t", vocabulary="v")
    name = verifier.open(open_message()).session
    with pytest.raises(ProtocolError):
        verifier.receive(name, Draft(0, len(PROMPT), pack_ids([1, 2]), parents=pack_parents(parents)))


def test_what_follows_the_verified_path_stays() -> None:
    tree = Pending([5, 6, 7, 8, 9], parents=[-1, -1, 1, 2, 0])
    assert tree.advance([6, 7])
    assert (tree.token_ids, tree.parents, tree.is_chain) == ([8], [-1], True)
    assert tree.advance([8, 3])  # beyond its end nothing was guessed
    assert len(tree) == 0
    assert not Pending([5, 6], parents=[-1, -1]).advance([7])


def test_equal_siblings_are_one_node() -> None:
    tree = Pending([5, 5, 6, 7, 6], parents=[-1, -1, 1, 2, 0])
    assert tree.advance([5])
    assert (tree.token_ids, tree.parents) == ([6, 7, 6], [-1, 0, -1])
    assert tree.advance([6])
    assert (tree.token_ids, tree.parents) == ([7], [-1])
