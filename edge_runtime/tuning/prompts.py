"""Prompts to measure with: our own of two kinds, or a file's; some to search on, others to prove the result on."""

from pathlib import Path

import msgspec

from outrider.errors import InvalidParameter
from outrider.prompt_file import read_prompt_file

__all__ = ["LEAST_HELD_OUT", "Prompt", "load_prompts", "split"]

SEARCHED = 4  # prompts of a kind; the rest are held out
LEAST_HELD_OUT = 6  # of all kinds: fewer say nothing with 95 % confidence

CODE = [
    "Write a Python function that merges two sorted lists into one, without using sorted.",
    "Write a Python class for a stack that also gives its smallest element in constant time, with docstrings.",
    "Add type hints to this function:\n```python\ndef group(words):\n    found = {}\n    for word in words:\n"
    "        found.setdefault(word[0], []).append(word)\n    return found\n```",
    "Write a SQL query for the three customers who spent most in 2023, from tables customers and orders.",
    "Write a Python generator that yields the lines of a file backwards, without reading it whole.",
    "Rename the variable x to total in this function and give it whole again:\n```python\ndef mean(values):\n"
    "    x = 0\n    for value in values:\n        x += value\n    return x / len(values)\n```",
    "Write a JavaScript function that waits until the user has stopped typing before it calls a callback.",
    "Write pytest tests for a function `is_leap(year)` that knows the Gregorian calendar.",
    "Write a Python function that parses a duration such as 1h30m into seconds and refuses anything else.",
    "Find the mistake and correct it:\n```python\ndef last(items, count):\n"
    "    return items[len(items) - count - 1:]\n```",
    "Write a small command-line program in Python that counts words in the files it is given, most frequent first.",
    "Turn this loop into a comprehension:\n```python\nsquares = []\nfor n in range(100):\n    if n % 3 == 0:\n"
    "        squares.append(n * n)\n```",
]
CHAT = [
    "What should I look at when I rent a flat in a town that I do not know?",
    "Explain to a child why the moon does not fall down.",
    "Write a friendly note that tells the neighbours about a party on Saturday.",
    "Summarise in one sentence: The library will close for six weeks in summer. The roof is being renewed, and the "
    "reading room gets new lamps. Books can be returned at the town hall; those already borrowed till autumn.",
    "Translate into Spanish: The train leaves from platform four at half past nine, and the dining car is at its end.",
    "Which is better for a short trip with luggage, a bus or a train? Give reasons for both.",
    "How does a vaccine work? Answer in a short paragraph.",
    "A recipe for four needs 300 g of flour and 2 eggs. What does one for ten need? Show the steps.",
    "Give me three ideas for a present for a grandmother who likes her garden.",
    "Correct the grammar: Yesterday I have went to the market and buyed some apple for she.",
    "Who was Ada Lovelace, and why is she remembered?",
    "Plan an evening without screens for a family with two children.",
]
OWN = {"code": {"code": CODE}, "chat": {"chat": CHAT}, "both": {"code": CODE, "chat": CHAT}}


class Prompt(msgspec.Struct, frozen=True):
    kind: str
    text: str


def load_prompts(which: str) -> list[Prompt]:
    """Our own ("code", "chat", "both"), or those of a file: a JSON object a line, with `prompt` and perhaps `kind`.

    Each once. Raises what `read_prompt_file` does, and InvalidParameter for too few to prove anything on.
    """
    if which in OWN:
        return [Prompt(kind, text) for kind, texts in OWN[which].items() for text in texts]
    if not Path(which).exists():
        raise InvalidParameter(f"there is no file {which}; give code, chat, both, or a file of prompts")
    prompts = list(dict.fromkeys(Prompt(each.kind, each.prompt) for each in read_prompt_file(Path(which)).values()))
    least = LEAST_HELD_OUT + 2
    if len(prompts) < least:
        raise InvalidParameter(f"{which} holds {len(prompts)} different prompts; give at least {least}")
    if (num_held_out := len(split(prompts)[1])) < LEAST_HELD_OUT:
        raise InvalidParameter(
            f"{which} leaves {num_held_out} prompts to prove a setting on, as of each kind some are searched on; "
            f"give more of a kind, so that {LEAST_HELD_OUT} are left"
        )
    return prompts


def split(prompts: list[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """Those to search on and those held out; no prompt is in both. Kinds take turns in each.

    Of each kind the first third, at most `SEARCHED`, is searched on.
    """
    kinds = {prompt.kind: [other for other in prompts if other.kind == prompt.kind] for prompt in prompts}
    searched, held_out = [], []
    for of_kind in kinds.values():
        count = min(SEARCHED, max(1, len(of_kind) // 3))
        searched.append(of_kind[:count])
        held_out.append(of_kind[count:])
    return _in_turns(searched), _in_turns(held_out)


def _in_turns(groups: list[list[Prompt]]) -> list[Prompt]:
    longest = max(map(len, groups))
    return [group[number] for number in range(longest) for group in groups if number < len(group)]
