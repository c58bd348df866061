"""Grammars over the toy's ids: what is allowed, to the end and back; what is no grammar is told before anything."""

import json
import re
import sys

import numpy as np
import pytest

from outrider.constraint import MAX_GRAMMAR, Constraint, Grammar, GrammarCompiler, check_grammar
from outrider.errors import GrammarFailed, InvalidParameter, MissingExtra
from tests.sampling import HARD, JSON, LARK, REGEX, STOP, TEXTS, replayed, text_of, toy_compiler, toy_tokenizer


def ids_of(text: str) -> list[int]:
    return [TEXTS.index(char) for char in text]


def allowed(grammar: Grammar, text: str) -> str:
    mask = replayed(grammar, ids_of(text)).allowed()
    assert mask is not None
    assert mask.shape == (16,)
    return "".join("." if token_id == STOP else TEXTS[token_id] for token_id in np.flatnonzero(mask))


@pytest.mark.parametrize(
    ("grammar", "text", "want"),
    [
        (Grammar("regex", "ab|ac?"), "", "a"),
        (Grammar("regex", "ab|ac?"), "a", "bc."),
        (Grammar("regex", "ab|ac?"), "ab", "."),
        (LARK, "ab:", "0123"),
        (LARK, "ab:1", ",."),
        (JSON, "", "{"),
        (JSON, '{"', "a"),
        (JSON, '{"a":', "0123"),
        (JSON, '{"a":1,"b":["a', '"abcd'),
        (JSON, '{"a":1,"b":[]}', "."),
    ],
)
def test_what_may_come_next(grammar: Grammar, text: str, want: str) -> None:
    assert allowed(grammar, text) == want


def test_after_its_end_or_a_breach_it_says_nothing_until_that_is_taken_back() -> None:
    for more, is_violated in (([STOP], False), ([STOP, 3, STOP], False), ([0], True), ([0, STOP, 5], True)):
        constraint = replayed(REGEX, ids_of("a" * 8 + "2,"))
        for token_id in more:
            constraint.append(token_id)
        assert constraint.allowed() is None
        assert constraint.is_violated is is_violated
        constraint.truncate(9)
        assert not constraint.is_violated
        assert constraint.allowed().tolist() == replayed(REGEX, ids_of("a" * 8 + "2")).allowed().tolist()


def test_an_early_stop_is_a_breach() -> None:
    assert replayed(REGEX, [*ids_of("aaaa"), STOP]).is_violated


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_drawn_from_what_is_allowed_follows_the_grammar(seed: int) -> None:
    random = np.random.default_rng(seed)
    for grammar in (JSON, LARK, REGEX):
        constraint, answer = toy_compiler()(grammar), []
        while not answer or answer[-1] != STOP:
            answer.append(int(random.choice(np.flatnonzero(constraint.allowed()))))
            constraint.append(answer[-1])
        text = text_of(answer)
        if grammar is JSON:
            assert set(json.loads(text)) == {"a", "b"}
        else:
            assert re.fullmatch(r"([a-d]+:[0-3])(,[a-d]+:[0-3])*" if grammar is LARK else grammar.text, text)


BAD = [
    Grammar("json_schema", "{"),
    Grammar("json_schema", "[]"),
    Grammar("json_schema", '{"type": "objekt"}'),
    Grammar("json_schema", '{"type":"array","items":' * 1000 + "{}" + "}" * 1000),
    Grammar("json_schema", '{"type": "string", "pattern": "(?=a)"}'),
    Grammar("json_schema", '{"$ref": "http://127.0.0.1:9/schema"}'),  # nothing is fetched
    Grammar("json_schema", '{"$ref": "file:///etc/passwd"}'),
    Grammar("lark", "start: nothing"),
    Grammar("lark", 'begin: "a"'),
    Grammar("regex", "("),
]


@pytest.mark.parametrize("grammar", BAD, ids=lambda grammar: grammar.text[:30])
def test_a_bad_grammar_is_told_with_and_without_a_model(grammar: Grammar) -> None:
    with pytest.raises(InvalidParameter, match="correct it"):
        check_grammar(grammar)
    with pytest.raises(InvalidParameter, match="correct it"):
        toy_compiler()(grammar)


@pytest.mark.parametrize("grammar", [JSON, LARK, REGEX])
def test_a_good_one_passes(grammar: Grammar) -> None:
    check_grammar(grammar)


@pytest.mark.parametrize(("kind", "text"), [("yaml", "a"), ("", "a"), ("lark", ""), ("regex", "a" * (MAX_GRAMMAR + 1))])
def test_bounds(kind: str, text: str) -> None:
    with pytest.raises(InvalidParameter):
        Grammar(kind, text)


def follow(constraint: Constraint, num_tokens: int) -> None:
    for _ in range(num_tokens):
        assert constraint.allowed() is not None
        constraint.append(TEXTS.index("a"))


def test_a_grammar_too_hard_to_follow_is_an_error_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any text has very many readings under it; following them all stops at a bound."""
    monkeypatch.setattr("outrider.constraint.MAX_ITEMS", 200)
    constraint = toy_compiler()(HARD)
    follow(constraint, 10)
    with pytest.raises(GrammarFailed):
        follow(constraint, 1000)
    constraint.truncate(3)
    with pytest.raises(GrammarFailed):
        constraint.allowed()


def test_a_model_without_a_stop_token_keeps_to_no_grammar() -> None:
    with pytest.raises(InvalidParameter, match="no stop token"):
        GrammarCompiler(toy_tokenizer, 16, [])(REGEX)


def test_without_the_library_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=r"outrider\[constraint\]"):
        check_grammar(REGEX)


def chain(length: int) -> str:
    return "start: r0\n" + "".join(f"r{n}: r{n + 1}\n" for n in range(length)) + f'r{length}: "a"\n'


def references(length: int) -> Grammar:
    parts = {f"d{n}": {"items": {"$ref": f"#/$defs/d{n + 1}"}} for n in range(length)}
    return Grammar("json_schema", json.dumps({"$defs": {**parts, f"d{length}": {}}, "$ref": "#/$defs/d0"}))


def schema(*multiples: str, more: str = "") -> str:
    parts = ",".join(f'{{"multipleOf":{each}}}' for each in multiples)
    return f'{{"type":"number","allOf":[{parts}]{more}}}'


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("lark", chain(3300)),
        references(1200),
        Grammar("json_schema", schema("123456789")),
        Grammar("json_schema", schema("997", "991")),
        Grammar("json_schema", schema("0.001", "99")),
        Grammar("json_schema", schema("1e999999999")),
        Grammar("json_schema", schema("1", more=',"multipleOf":99991,"multipleOf":2')),
        Grammar("json_schema", schema("1").replace('multipleOf":1', 'multiple\\u004ff":99991')),
        Grammar("lark", 'start: %json {"type":"integer","multipleOf":99991}'),
    ],
    ids=lambda grammar: grammar.text[:40],
)
def test_what_would_stop_the_verifier_or_end_it_is_refused_before_it_is_read(grammar: Grammar) -> None:
    with pytest.raises(InvalidParameter, match=r"multiple|references|colons"):
        check_grammar(grammar)


def test_within_the_bounds_all_is_read() -> None:
    for multiples in (["1"], ["0.01"], ["2", "3", "4"], ["0.5", "10"], ["5.00"]):
        check_grammar(Grammar("json_schema", schema(*multiples)))
    for grammar in (Grammar("lark", chain(1400)), references(498)):
        check_grammar(grammar)
        assert toy_compiler()(grammar).allowed() is not None
