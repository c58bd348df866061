"""Text as bytes that two vocabularies share, with marks where control tokens stand: ids to bytes and bytes to ids.

Knows one vocabulary and which of its control tokens the other one has too; no model and no list.
"""

import re
from collections.abc import Mapping

from outrider.tokens import TextCodec

__all__ = ["MarkedText", "begins_text", "is_inside", "last_seam", "shared_controls"]

# A mark is 0xFF and two bytes with its number. 0xFF is never part of UTF-8, and as a stray byte it is written 0xFE.
MARK = re.compile(rb"\xff[\x80-\xbf]{2}")
MAX_MARKS = 64 * 64
# No splitter of words looks beyond a single space between two words, or beyond a control token.
SEAM = re.compile(rb"(?<=\S) (?=[^\s\xff])|(?<=\xff[\x80-\xbf]{2})")
LONGEST_TAIL = 256  # bytes: text without a seam in so many is cut where a character begins


def shared_controls(target: TextCodec, drafter: TextCodec) -> tuple[dict[int, int], dict[int, int]]:
    """The control tokens of the target and of the drafter that the other one has too, written alike or of the same
    role, each with the number of their mark."""
    of_target, of_drafter = target.control_ids, drafter.control_ids
    target_marks: dict[int, int] = {}
    marks: dict[int, int] = {}
    for name, token_id in of_target.items():  # what they are written as comes before their roles
        if name in of_drafter and token_id not in target_marks and len(marks) < MAX_MARKS:
            target_marks[token_id] = marks.setdefault(of_drafter[name], len(marks))
    return target_marks, marks


def last_seam(data: bytes | bytearray, end: int) -> int:
    """Where text before `end` may be cut so that what follows is tokenized alone: the last such place, or about
    LONGEST_TAIL bytes before `end`, where a character begins."""
    start = max(0, end - LONGEST_TAIL)
    seam = max((match.start() for match in SEAM.finditer(data, start, end)), default=start)
    while is_inside(data, seam):
        seam -= 1
    return seam


def is_inside(data: bytes | bytearray, position: int) -> bool:
    """Whether a character, or a mark, goes on there."""
    return 0 < position < len(data) and data[position] & 0xC0 == 0x80


def begins_text(data: bytes | bytearray) -> bool:
    """Whether what comes next is the first text at all, or after a mark: vocabularies with a prefix put it there."""
    return not data or data[-3:-2] == b"\xff"


def _mark(number: int) -> bytes:
    return bytes((0xFF, 0x80 | number >> 6, 0x80 | number & 63))


class MarkedText:
    """`codec` becomes its own: control tokens that are written out in a text are no longer taken for control tokens."""

    def __init__(self, codec: TextCodec, marks: Mapping[int, int]) -> None:
        self._codec = codec
        self._marks = {token_id: _mark(number) for token_id, number in marks.items()}
        self._ids = {mark: token_id for token_id, mark in reversed(self._marks.items())}
        self._bytes = dict(self._marks)  # of each id that was asked for
        self.beginning = codec.encode("")  # the start token, where the model wants one
        self.prefix = codec.prefix
        codec.tokenizer.encode_special_tokens = True

    def bytes_of(self, token_id: int) -> bytes:
        """Text or a mark; nothing for a control token that the other vocabulary lacks."""
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = self._codec.bytes_of(token_id).replace(b"\xff", b"\xfe")
        return found

    def is_mark(self, token_id: int) -> bool:
        return token_id in self._marks

    def tokens(self, data: bytes) -> list[tuple[int, int]]:
        """The ids of `data`, which begins at a seam, and where in it each ends.

        Half a character has none, nor have bytes that are no text.
        """
        found: list[tuple[int, int]] = []
        start = 0
        for mark in MARK.finditer(data):
            self._add_text(found, data, start, mark.start())
            found.append((self._ids[mark.group()], mark.end()))
            start = mark.end()
        self._add_text(found, data, start, len(data))
        return found

    def _add_text(self, found: list[tuple[int, int]], data: bytes, start: int, end: int) -> None:
        while start < end:
            try:
                text = data[start:end].decode()
            except UnicodeDecodeError as error:
                self._add_text(found, data, start, start + error.start)
                start += error.end
            else:
                return self._add_whole(found, text, start, end)

    def _add_whole(self, found: list[tuple[int, int]], text: str, start: int, end: int) -> None:
        prefix = self.prefix.decode()
        is_prefixed = bool(prefix) and text.startswith(prefix)
        ids = self._codec.tokenizer.encode(text[len(prefix) :] if is_prefixed else text, add_special_tokens=False).ids
        if prefix and not is_prefixed:
            start -= len(prefix)
        for token_id in ids:  # a vocabulary that rewrites text (NFC) may write it longer or shorter: these only guide
            start = min(start + len(self.bytes_of(token_id)), end)
            found.append((token_id, start))
        if ids:
            found[-1] = (ids[-1], end)
