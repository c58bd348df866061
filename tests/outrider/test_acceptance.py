"""What is accepted equals what the target would have said alone, for any drafts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.acceptance import accept

ids = st.integers(0, 3)


@given(st.lists(ids, max_size=8), st.lists(ids, min_size=9, max_size=9))
@settings(max_examples=40)
def test_a_chain_earns_the_target_s_own_tokens(drafts: list[int], target: list[int]) -> None:
    asked = []

    def choice_at(row: int) -> int:
        asked.append(row)
        return target[row + 1]

    verified, path = accept(drafts, range(-1, len(drafts) - 1), choice_at)
    assert verified == target[: len(verified)]
    assert len(verified) >= 1
    num_accepted = len(verified) - 1
    assert drafts[:num_accepted] == target[:num_accepted]
    assert num_accepted == len(drafts) or drafts[num_accepted] != target[num_accepted]
    assert path == list(range(num_accepted))
    assert asked == [-1, *path]  # no choice is made that is not needed


@given(st.data())
@settings(max_examples=40)
def test_a_tree_earns_the_longest_agreeing_path(data: st.DataObject) -> None:
    drafts = data.draw(st.lists(ids, max_size=10))
    parents = [data.draw(st.integers(-1, row - 1)) for row in range(len(drafts))]

    def path_to(row: int) -> tuple[int, ...]:
        return () if row < 0 else (*path_to(parents[row]), drafts[row])

    def target(prefix: tuple[int, ...]) -> int:
        return hash((7, prefix)) % 4

    verified, rows = accept(drafts, parents, lambda row: target(path_to(row)))
    said: tuple[int, ...] = ()
    for token_id in verified:
        assert token_id == target(said)
        said += (token_id,)
    assert [drafts[row] for row in rows] == verified[:-1]
    assert said not in {path_to(row) for row in range(len(drafts))}  # it could not have gone further


def test_equal_siblings_are_one_node() -> None:
    choices = {-1: 5, 0: 6, 2: 7}
    assert accept([5, 5, 6], [-1, -1, 1], lambda row: choices[row]) == ([5, 6, 7], [0, 2])
