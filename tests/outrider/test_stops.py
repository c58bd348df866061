"""Stop strings, wherever the text is cut."""

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from outrider.errors import InvalidParameter
from outrider.stops import StopStrings

NUM_CASES = 1500


def cases() -> Iterator[tuple[str, list[str], random.Random]]:
    """Texts of few letters, so that many stop strings begin in them and some are there."""
    for seed in range(NUM_CASES):
        chance = random.Random(seed)
        letters = chance.choice(["ab", "ab<"])
        stops = ["".join(chance.choices(letters, k=chance.randrange(1, 6))) for _ in range(chance.randrange(5))]
        yield "".join(chance.choices(letters, k=chance.randrange(25))), stops, chance


def by_definition(text: str, stops: list[str]) -> tuple[str, bool]:
    """Before the first stop string to be complete; of those that end together, the longest."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


def test_any_cut_of_a_text_shows_the_same() -> None:
    for text, stops, chance in cases():
        cuts = chance.choices(range(len(text) + 1), k=chance.randrange(12))
        said = f"{text!r}, {stops}, {cuts}"
        matcher = StopStrings(stops)
        shown = ""
        for start, end in pairwise([0, *sorted(cuts), len(text)]):
            shown += matcher.feed(text[start:end])
            so_far = by_definition(text[:end], stops)[0]
            assert so_far.startswith(shown), said  # nothing is ever shown that must go again
        shown += matcher.flush()
        assert (shown, matcher.is_hit) == by_definition(text, stops), said


def test_no_more_is_held_back_than_could_become_a_stop() -> None:
    for text, stops, _ in cases():
        matcher = StopStrings(stops)
        held = text[len(matcher.feed(text)) :]
        assert matcher.is_hit or not held or any(stop.startswith(held) for stop in stops), f"{text!r}, {stops}"


def test_without_stop_strings_text_passes() -> None:
    matcher = StopStrings([])
    assert [matcher.feed("a"), matcher.feed("<b"), matcher.flush()] == ["a", "<b", ""]


@pytest.mark.parametrize("stops", [[""], ["a", ""], ["a" * 257], ["a"] * 17])
def test_bounds(stops: list[str]) -> None:
    with pytest.raises(InvalidParameter):
        StopStrings(stops)
