"""What an answer may look like: a JSON schema, a grammar or a regular expression, as the ids allowed at each place.

A `Constraint` follows one answer. It allows a set of ids after the tokens so far; a stop id ends it, and then, as after
a token that it does not allow, it says nothing until that token is taken back. The work is llguidance's, loaded with
the first grammar. Knows no logits and no sessions; whoever runs a model hands it the model's tokenizer.
"""

import functools
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from outrider.errors import GrammarFailed, InvalidParameter, MissingExtra
from outrider.grammar_bounds import check_bounds

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["GRAMMAR_KINDS", "MAX_GRAMMAR", "Constrain", "Constraint", "Grammar", "GrammarCompiler", "check_grammar"]

GRAMMAR_KINDS = ("json_schema", "lark", "regex")
MAX_GRAMMAR = 2**16  # characters
# Readings of an answer that are followed at once. Bounds the time of a token (50 ms where it was measured), which the
# verifier's other sessions wait for; an object with 250 optional properties is within it.
MAX_ITEMS = 1000
MAX_COMPILED = 16  # grammars kept for the next answer that follows them
# Between a JSON answer's parts. Without an end to it, a model that has nothing to say says spaces.
JSON_OPTIONS = {"whitespace_pattern": r"[ \t\r\n]{1,40}"}


@dataclass(frozen=True, slots=True)
class Grammar:
    """`kind` is "json_schema", "lark" (llguidance's dialect) or "regex". Raises InvalidParameter for another, and for a
    text that is empty or longer than 65,536 characters; whether it is a grammar, `check_grammar` tells."""

    kind: str
    text: str

    def __post_init__(self) -> None:
        if self.kind not in GRAMMAR_KINDS:
            raise InvalidParameter(f"a grammar's kind is {self.kind!r}; give one of {', '.join(GRAMMAR_KINDS)}")
        if not 0 < len(self.text) <= MAX_GRAMMAR:
            raise InvalidParameter(f"a grammar has {len(self.text)} characters; give 1 to {MAX_GRAMMAR}")


class Constraint(Protocol):
    """Follows one answer, token by token and back. Lengths count the answer's tokens."""

    def allowed(self) -> "NDArray[np.bool_] | None":
        """For each id whether it may come next; None where anything may. Raises GrammarFailed."""

    def append(self, token_id: int) -> None:
        """The answer goes on with this token, allowed or not."""

    def truncate(self, length: int) -> None:
        """The answer is cut back to this length."""

    @property
    def is_violated(self) -> bool:
        """Whether the answer holds a token that was not allowed."""


Constrain: TypeAlias = Callable[[Grammar], Constraint]


def check_grammar(grammar: Grammar) -> None:
    """Raises InvalidParameter for what is no grammar of its kind, MissingExtra without llguidance. Needs no model."""
    if problem := _llguidance().LLMatcher.validate_grammar(_source(grammar)):
        raise _invalid(problem)


class GrammarCompiler:
    """Makes constraints for one model. `n_vocab` is the width of its logits. `tokenizer_json` gives its
    `tokenizer.json`, and is asked with the first grammar, which takes a second or so longer than later ones."""

    def __init__(self, tokenizer_json: Callable[[], str], n_vocab: int, stop_ids: Sequence[int]) -> None:
        self._tokenizer_json = tokenizer_json
        self._n_vocab = n_vocab
        self._stop_ids = frozenset(stop_ids)
        self._tokenizer: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._compiled = functools.lru_cache(MAX_COMPILED)(self._compile)  # an app asks with the same one again

    def __call__(self, grammar: Grammar) -> Constraint:
        """Raises InvalidParameter, MissingExtra."""
        return _GrammarConstraint(self._compiled(grammar).deep_copy(), self._n_vocab, self._stop_ids)

    def _compile(self, grammar: Grammar) -> "LLMatcher":
        library = _llguidance()
        if not self._stop_ids:
            raise InvalidParameter("this model has no stop token, so no grammar can end an answer; leave it out")
        source = _source(grammar)
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = library.LLTokenizer(
                    self._tokenizer_json(), n_vocab=self._n_vocab, eos_token=sorted(self._stop_ids)
                )
        if problem := library.LLMatcher.validate_grammar(source, self._tokenizer):
            raise _invalid(problem)
        limits = library.LLParserLimits(max_items_in_row=MAX_ITEMS, verbose_errors=False)
        matcher: LLMatcher = library.LLMatcher(self._tokenizer, source, log_level=0, limits=limits)
        return matcher


class _GrammarConstraint:
    """The matcher holds the answer up to the first token that ended it or was not allowed: it takes neither."""

    def __init__(self, matcher: "LLMatcher", n_vocab: int, stop_ids: Collection[int]) -> None:
        self._matcher = matcher
        self._n_vocab = n_vocab
        self._stop_ids = stop_ids
        self._length = 0
        self._num_matched = 0
        self.is_violated = False

    def allowed(self) -> NDArray[np.bool_] | None:
        bits = np.frombuffer(b"" if self._is_over else self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():  # the library's bounds on its work were met; there is no way back
            raise GrammarFailed("the grammar is too complex to follow; make it simpler")
        if self._is_over:
            return None
        return np.unpackbits(bits, count=self._n_vocab, bitorder="little").view(np.bool_)

    @property
    def _is_over(self) -> bool:
        return self._num_matched < self._length

    def append(self, token_id: int) -> None:
        if not self._is_over:
            if token_id in self._stop_ids:
                self.is_violated = not self._matcher.is_accepting()
            elif self._matcher.try_consume_tokens([token_id]):
                self._num_matched += 1
            else:
                self.is_violated = True
        self._length += 1

    def truncate(self, length: int) -> None:
        if length >= self._length:
            return
        self._length = length
        if length < self._num_matched:
            self._matcher.rollback(self._num_matched - length)
            self._num_matched = length
        if length == self._num_matched:
            self.is_violated = False


def _llguidance() -> ModuleType:
    try:
        import llguidance
    except ImportError:
        raise MissingExtra(
            'grammars need a library that is not installed; run: pip install "outrider[constraint]"'
        ) from None
    return llguidance


def _source(grammar: Grammar) -> str:
    """The grammar in llguidance's own form."""
    matcher = _llguidance().LLMatcher
    check_bounds(grammar.kind, grammar.text)
    try:
        if grammar.kind == "json_schema":
            return str(matcher.grammar_from_json_schema(grammar.text, overrides=JSON_OPTIONS))
        if grammar.kind == "lark":
            return str(matcher.grammar_from_lark(grammar.text))
        return str(matcher.grammar_from_regex(grammar.text))
    except ValueError as error:
        raise _invalid(str(error)) from None


def _invalid(problem: str) -> InvalidParameter:
    first_line = problem.strip().partition("\n")[0].rstrip(":")[:200]
    return InvalidParameter(f"the grammar cannot be used ({first_line}); correct it")
