"""Stop strings, wherever the text is cut."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.errors import InvalidParameter
from outrider.stops import StopStrings

TEXT = st.text("ab<>", max_size=40)
STOPS = st.lists(st.text("ab<>", min_size=1, max_size=5), max_size=4)


def by_definition(text: str, stops: list[str]) -> tuple[str, bool]:
    """Before the first stop string to be complete; of those that end together, the longest."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(text=TEXT, stops=STOPS, cuts=st.lists(st.integers(0, 40), max_size=12))
@settings(max_examples=40)
def test_any_cut_of_a_text_shows_the_same(text: str, stops: list[str], cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    matcher = StopStrings(stops)
    shown = ""
    for start, end in pairwise(places):
        shown += matcher.feed(text[start:end])
        so_far = by_definition(text[:end], stops)[0]
        assert so_far.startswith(shown)  # nothing is ever shown that must go again
    shown += matcher.flush()
    assert (shown, matcher.is_hit) == by_definition(text, stops)


@given(text=TEXT, stops=STOPS)
@settings(max_examples=40)
def test_no_more_is_held_back_than_could_become_a_stop(text: str, stops: list[str]) -> None:
    matcher = StopStrings(stops)
    shown = matcher.feed(text)
    held = text[len(shown) :]
    assert matcher.is_hit or not held or any(stop.startswith(held) for stop in stops)


def test_without_stop_strings_text_passes() -> None:
    matcher = StopStrings([])
    assert [matcher.feed("a"), matcher.feed("<b"), matcher.flush()] == ["a", "<b", ""]


@pytest.mark.parametrize("stops", [[""], ["a", ""], ["a" * 257], ["a"] * 17])
def test_bounds(stops: list[str]) -> None:
    with pytest.raises(InvalidParameter):
        StopStrings(stops)
