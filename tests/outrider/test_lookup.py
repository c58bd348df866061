import random

import numpy as np
import pytest

from outrider.lookup import MAX_RENEWED, Continuation, SuffixAutomaton, confidence
from outrider.past_texts import MAX_MATCH, PastTexts

NUM_CASES = 300


def few(chance: random.Random, most: int, num_ids: int = 4) -> list[int]:
    """A list of up to so many ids, few of them different."""
    return chance.choices(range(num_ids), k=chance.randrange(most + 1))


def slow_lookup(tokens: list[int], num_drafts: int) -> tuple[list[int], int]:
    """The definition, word by word."""
    for matched in range(len(tokens) - 1, 1, -1):
        for end in range(len(tokens) - 1, matched - 1, -1):
            if tokens[end - matched : end] == tokens[-matched:]:
                following = tokens[end:]
                return [following[n % len(following)] for n in range(num_drafts)], matched
    return [], 0


def slow_confidence(tokens: list[int], matched: int, drafts: list[int]) -> float:
    ends = [end for end in range(matched, len(tokens)) if tokens[end - matched : end] == tokens[-matched:]]
    return confidence(matched, len(ends), sum(tokens[end] == drafts[0] for end in ends))


def test_it_finds_the_most_recent_longest_match() -> None:
    for seed in range(NUM_CASES):
        chance = random.Random(seed)
        tokens, num_drafts = few(chance, 40, chance.randrange(1, 6)), chance.randrange(1, 13)
        found = SuffixAutomaton(tokens).propose(num_drafts)
        assert (found.token_ids, found.matched) == slow_lookup(tokens, num_drafts), tokens
        assert len(found.confidences) == len(found.token_ids)
        assert all(0 < value < 1 for value in found.confidences)
        if found.matched:
            assert found.confidences[0] == slow_confidence(tokens, found.matched, found.token_ids), tokens


def test_a_text_that_was_rewound_is_as_if_it_had_never_been_longer() -> None:
    for seed in range(NUM_CASES // 3):
        chance = random.Random(seed)
        automaton = SuffixAutomaton()
        tokens: list[int] = []
        for _ in range(chance.randrange(12)):
            back, more = chance.randrange(9), few(chance, 12)
            tokens = tokens[: max(0, len(tokens) - back)] + more
            automaton.truncate(max(0, len(automaton.token_ids) - back))
            for token_id in more:
                automaton.append(token_id)
            assert automaton.token_ids == tokens
            assert vars(automaton) == vars(SuffixAutomaton(tokens)), f"seed {seed}"


def test_drafts_go_on_from_a_list_that_agrees_with_them() -> None:
    for seed in range(NUM_CASES):
        tokens = few(random.Random(seed), 40)
        automaton = SuffixAutomaton(tokens)
        drafts = automaton.propose(8).token_ids
        for number, token_id in enumerate(drafts):
            automaton.append(token_id)
            assert automaton.propose(8).token_ids[: 7 - number] == drafts[number + 1 :], tokens


def test_endless_repetition_stays_right_and_cheap() -> None:
    """Of so many ends only the longest are renewed: matches are still the longest, and what followed really did."""
    tokens = [1, 2] + [7] * (3 * MAX_RENEWED)
    automaton = SuffixAutomaton(tokens)
    assert max(len(ends) for _, _, ends in automaton._log) == MAX_RENEWED
    assert automaton.propose(3).token_ids == [7, 7, 7]
    assert automaton.propose(3).matched == 3 * MAX_RENEWED - 1
    automaton.append(1)
    automaton.append(2)
    assert automaton.propose(4).token_ids == [7, 7, 7, 7]
    automaton.truncate(0)
    assert vars(automaton) == vars(SuffixAutomaton())


def test_states_stay_within_twice_the_tokens() -> None:
    chance = random.Random(1)
    automaton = SuffixAutomaton(chance.randrange(2) for _ in range(5000))
    assert len(automaton._link) <= 2 * 5000


def test_confidence_grows_with_the_match_and_with_how_often_it_went_on_so() -> None:
    assert confidence(2, 1, 1) < confidence(4, 1, 1) < confidence(8, 1, 1) < 1
    assert confidence(3, 1, 1) < confidence(3, 2, 2) < confidence(3, 9, 9) < 1
    assert confidence(3, 4, 1) < confidence(3, 4, 2) < confidence(3, 4, 4)
    # 1, 2 was followed by 3 twice and by 4 once, most recently; then 4 went on in one way only.
    found = SuffixAutomaton([1, 2, 3, 1, 2, 3, 1, 2, 4, 5, 1, 2]).propose(2)
    assert found == Continuation([4, 5], [confidence(2, 3, 1), confidence(3, 1, 1)], 2)


def past_by_definition(texts: list[list[int]], tail: list[int], num_drafts: int) -> Continuation:
    for matched in range(len(tail), 1, -1):
        ends = [
            (text, end)
            for text in texts
            for end in range(matched, len(text) + 1)
            if text[end - matched : end] == tail[-matched:]
        ]
        followed = [text[end : end + num_drafts] for text, end in ends if end < len(text)]
        if followed:
            ids = followed[-1]
            agreed = sum(other[0] == ids[0] for other in followed)
            later = [confidence(matched + n, agreed, agreed) for n in range(1, len(ids))]
            return Continuation(ids, [confidence(matched, len(followed), agreed), *later], matched)
        if ends:
            break
    return Continuation()


def test_past_texts_are_searched_as_the_definition_says() -> None:
    for seed in range(NUM_CASES):
        chance = random.Random(seed)
        texts, tail = [few(chance, 12) for _ in range(chance.randrange(7))], few(chance, 10)
        assert PastTexts(texts).propose(tail, 3) == past_by_definition(texts, tail, 3), f"{texts}, {tail}"


def test_a_match_in_past_texts_counts_up_to_a_length() -> None:
    text = list(range(100))
    past = PastTexts([text, [500, *text[:50], 600]])
    assert past.propose(text[:50], 1).matched == MAX_MATCH
    assert past.propose(text[:50], 1).token_ids == [600]
    assert past.propose(text[:60], 2).token_ids == [60, 61]


def test_past_texts_hold_eight_bytes_a_token() -> None:
    past = PastTexts(np.random.default_rng(1).integers(0, 1000, (100, 100)).tolist())
    assert past.num_bytes <= 8 * (100 * 100 + 101)


@pytest.mark.parametrize("texts", [[], [[]], [[5]]])
def test_little_past_says_nothing(texts: list[list[int]]) -> None:
    assert PastTexts(texts).propose([5, 5, 5], 4) == Continuation()
    assert PastTexts([[1, 2, 3]]).propose([1, 2], 0) == Continuation()
    assert PastTexts([[1, 2, 3]]).propose([], 3) == Continuation()
