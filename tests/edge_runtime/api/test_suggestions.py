"""What is remembered of suggestions, and for whom it holds."""

from edge_runtime.api.suggestions import MAX_KEPT, Known, Suggestions

PROMPT = [1, 2, 3]
ANSWER = list(b"return x")


def remembering(stub: bytes = b"", *, is_whole: bool = True) -> Suggestions:
    suggestions = Suggestions(lambda token_id: bytes([token_id]))
    suggestions.keep("target", PROMPT, stub, ANSWER, is_whole=is_whole)
    return suggestions


def test_who_types_along_is_told_the_rest() -> None:
    suggestions = remembering()
    for typed in range(len(ANSWER) + 1):
        known = suggestions.find(PROMPT + ANSWER[:typed], b"")
        assert known.token_ids == (ANSWER[typed:] or ())
    assert suggestions.find([*PROMPT, *ANSWER[:3]], b"urn").token_ids == ANSWER[3:]


def test_who_types_something_else_is_not() -> None:
    suggestions = remembering()
    for prompt, stub in (([*PROMPT, 9], b""), (PROMPT, b"rest"), (PROMPT[:2], b""), ([9, 2, 3], b"")):
        assert suggestions.find(prompt, stub) == Known()


def test_what_had_to_begin_in_some_way_holds_for_more_of_it_alone() -> None:
    suggestions = remembering(b"ret")
    assert suggestions.find(PROMPT, b"re") == Known()
    assert suggestions.find(PROMPT, b"").token_ids == ()
    assert suggestions.find(PROMPT, b"ret").token_ids == ANSWER
    assert suggestions.find(PROMPT, b"retur").token_ids == ANSWER
    assert suggestions.find([*PROMPT, *ANSWER[:1]], b"et").token_ids == ANSWER[1:]
    assert suggestions.find([*PROMPT, *ANSWER[:1]], b"e") == Known()
    assert suggestions.find([*PROMPT, *ANSWER[:3]], b"").token_ids == ANSWER[3:]


def test_an_answer_that_ended_before_what_was_typed_is_only_a_beginning() -> None:
    suggestions = remembering()
    assert suggestions.find(PROMPT, b"return x").is_whole
    known = suggestions.find(PROMPT, b"return x + 1")
    assert (known.token_ids, known.is_whole) == (ANSWER, False)


def test_few_are_kept_the_latest_used_and_of_one_target() -> None:
    suggestions = remembering()
    for number in range(2 * MAX_KEPT):
        suggestions.keep("target", [100 + number], b"", [1], is_whole=True)
        assert suggestions.find(PROMPT, b"").token_ids == ANSWER
    assert len(suggestions) == MAX_KEPT
    suggestions.keep("target", PROMPT, b"", [5], is_whole=True)
    assert suggestions.find(PROMPT, b"").token_ids == [5]
    suggestions.keep("another", [7], b"", [1], is_whole=True)
    assert len(suggestions) == 1
