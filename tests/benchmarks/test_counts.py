"""The gate on counts: passes, drafts and bytes of fixed work are those that are written down, and a change is told."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import cloud_verifier.pacing
import cloud_verifier.turn
import edge_runtime.links.websocket
from edge_runtime.ahead import AheadPace
from edge_runtime.pacing import Pace
from outrider.worth import most_worthwhile
from tests.benchmarks.counts import (
    DRAFTED,
    PASSES,
    SAME_WEIGHTS,
    UP,
    WEIGHTS_FILE,
    WORKS,
    Work,
    ahead,
    in_turns,
    judge,
    many,
    measured,
    on_weights,
    written,
)


def test_counts_are_as_written() -> None:
    sentences = judge(written(), measured(*WORKS))
    assert not sentences, "\n".join(sentences)


@pytest.mark.weights
def test_counts_on_a_real_model_are_as_written() -> None:
    sentences = judge(written(WEIGHTS_FILE), measured(on_weights), SAME_WEIGHTS)
    assert not sentences, "\n".join(sentences)


def one_too_many(chances: Sequence[float], *others: Any) -> tuple[int, float]:
    best, value = most_worthwhile(chances, *others)
    return min(best + 1, len(chances)), value


def one_more(wants_another: Callable[..., bool]) -> Callable[..., bool]:
    def wanting(self: Pace, source: str, reach: float, num_drafts: int) -> bool:
        return wants_another(self, source, reach, max(0, num_drafts - 1)) or num_drafts == 0

    return wanting


def in_vain(frame: Callable[..., bytes]) -> Callable[..., bytes]:
    return lambda message, *, is_padded: frame(message, is_padded=is_padded) + b"\0"


REGRESSIONS: dict[str, tuple[object, str, Callable[[Any], Any], Work, str]] = {
    "the verifier takes one draft too many": (
        cloud_verifier.pacing,
        "most_worthwhile",
        lambda _: one_too_many,
        ahead,
        DRAFTED,
    ),
    "the device drafts one too many in turns": (Pace, "wants_another", one_more, in_turns, DRAFTED),
    "the device drafts without measure ahead": (
        AheadPace,
        "wants_another",
        lambda _: lambda self, source, reach, num_drafts: num_drafts < 4,
        many,
        UP,
    ),
    "a message is a byte longer": (edge_runtime.links.websocket, "to_frame", in_vain, in_turns, UP),
    "a pass takes no more than one draft": (
        cloud_verifier.turn,
        "MAX_DRAFTS_PER_PASS",
        lambda _: 1,
        in_turns,
        PASSES,
    ),
}


@pytest.mark.parametrize("name", list(REGRESSIONS))
def test_a_planted_regression_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, attribute, change, work, what = REGRESSIONS[name]
    monkeypatch.setattr(where, attribute, change(getattr(where, attribute)))
    expected = written()
    sentences: list[str] = []
    with contextlib.closing(work()) as counted:
        for case, counts in counted:
            sentences += judge({case: expected[case]}, {case: counts})
            if any(sentence.startswith("worse, ") and f" {what}, " in sentence for sentence in sentences):
                return
    raise AssertionError(f"nobody was told: {sentences}")


def test_sentences_say_which_and_by_how_much() -> None:
    assert judge({"a": {PASSES: 0.5}}, {"a": {PASSES: 0.5}}) == []
    assert judge({"a": {PASSES: 0.5}}, {"a": {PASSES: 0.6}}) == [
        "worse, a: 0.6 passes a token, 0.5 is written, 20.0% more; find out why"
    ]
    assert judge({"a": {PASSES: 0.5}}, {"a": {PASSES: 0.4}}) == [
        "better, a: 0.4 passes a token, 0.5 is written, 20.0% fewer; "
        "write it down: python -m tests.benchmarks.counts --write"
    ]
    assert judge({"a": {UP: 0.0}}, {"a": {UP: 3.0}}) == ["worse, a: 3 bytes up a token, 0 is written; find out why"]
    [sentence] = judge({}, {"b": {}})
    assert "{'b'}" in sentence
