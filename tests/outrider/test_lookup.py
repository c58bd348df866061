from hypothesis import given
from hypothesis import strategies as st

from outrider.lookup import MAX_MATCH, propose_by_lookup


def slow_lookup(tokens: list[int], num_drafts: int) -> tuple[list[int], int]:
    """The definition, word by word."""
    for matched in range(MAX_MATCH, 1, -1):
        for end in range(len(tokens) - 1, matched - 1, -1):
            if len(tokens) > matched and tokens[end - matched : end] == tokens[-matched:]:
                following = tokens[end:]
                return [following[n % len(following)] for n in range(num_drafts)], matched
    return [], 0


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 12))
def test_it_finds_the_most_recent_longest_match(tokens: list[int], num_drafts: int) -> None:
    assert propose_by_lookup(tokens, num_drafts) == slow_lookup(tokens, num_drafts)
