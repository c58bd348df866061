"""Refuses, before any native code reads them, grammars whose work has no bound of its own in llguidance.

It follows references by recursion: a chain of a few thousand overruns a thread's stack, which ends the process. And a
multiple's automaton has as many states as the number, which takes minutes for one of nine digits. Knows no model.
"""

import json
import math
from decimal import Decimal

from outrider.errors import InvalidParameter

__all__ = ["check_bounds"]

MAX_RULES = 1500  # 8 MB of stack hold 2,600 levels
MAX_REFERENCES = 500  # 8 MB hold 900 levels
MAX_MULTIPLE = 10_000  # 70 ms
PLACES = 6  # of a multiple, before and after the point


def check_bounds(kind: str, text: str) -> None:
    """`kind` as in `Grammar`. Raises InvalidParameter."""
    if kind == "json_schema":
        _check_schema(text)
    elif kind == "lark":
        if text.count(":") > MAX_RULES:  # a rule has one, a schema within it one a key
            raise InvalidParameter(f"the grammar has over {MAX_RULES} colons; make it of fewer rules")
        if "%json" in text and ("multipleOf" in text or "\\u" in text):
            raise InvalidParameter("a schema within a grammar may hold neither multipleOf nor \\u; leave it out")


def _check_schema(text: str) -> None:
    num_references = 0
    multiples: list[Decimal] = []

    def look(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal num_references
        for key, value in pairs:
            num_references += key in ("$ref", "$dynamicRef", "$recursiveRef")
            if key == "multipleOf" and isinstance(value, int | Decimal):
                multiples.append(Decimal(value))
        return dict(pairs)

    try:
        json.loads(text, object_pairs_hook=look, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise InvalidParameter("the grammar cannot be used (its schema is no JSON, or too deep); correct it") from None
    if num_references > MAX_REFERENCES:
        raise InvalidParameter(f"the schema has over {MAX_REFERENCES} references; write out what it refers to")
    if _states(multiples) > MAX_MULTIPLE:
        raise InvalidParameter(f"the schema's multipleOf, taken together, is over {MAX_MULTIPLE}; give smaller ones")


def _states(multiples: list[Decimal]) -> float:
    """What an automaton for all of these at once has: their least common multiple, in units of the last place."""
    if any(abs(number.adjusted()) > PLACES or (number * 10**PLACES) % 1 for number in multiples):
        return math.inf
    scaled = [int(number * 10**PLACES) for number in multiples]
    unit: int = 10**PLACES
    while any(number % unit for number in scaled):
        unit //= 10
    return math.lcm(*scaled) // unit
