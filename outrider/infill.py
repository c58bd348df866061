"""Text between two others, for models that were trained to fill gaps: the prompt, written with the model's own marks.

Which marks, the tokenizer's control tokens tell. `gap_prompt` is for editors, which ask at every key: what a key
changes stands at the end of the prompt, so that all before it is found in the caches. Knows nothing of how the answer
is made.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from outrider.errors import InvalidParameter
from outrider.tokens import TextCodec

__all__ = ["Gap", "GapPrompt", "asks_for_middle", "gap_prompt", "infill_ids", "infill_stop_ids"]

# Before the text in front of the gap, before that behind it, and where the middle begins.
MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
)
# Before a project's name, and before a file's; models that have none of these are told of one file alone.
PROJECT_MARKS = ("<|repo_name|>", "<repo_name>")
FILE_MARKS = ("<|file_sep|>", "<file_sep>")
# What such models say behind a middle: another gap, another file.
ENDS = ("<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<fim_pad>", "<file_sep>", "<repo_name>")
BLOCK = re.compile(r"^(?=[^\s#)\]}])", re.MULTILINE)  # a line that is not indented, and closes nothing
MAX_BEGUN = 2000  # characters of a block that stand behind the suffix
BEGUN_STEP = 500  # by which its start moves where a single line is longer
MAX_STUB = 64
SEEN = 1000  # characters in which the last piece is looked for


@dataclass(frozen=True, slots=True)
class Gap:
    """Text before and behind the cursor, and other files of the project by name, the most useful last."""

    prefix: str
    suffix: str
    files: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class GapPrompt:
    """The ids, and the last piece of the text before the cursor: it is not in the ids, and the answer begins with it.

    A word that is half typed is cut off so, and the model may write it in the tokens that it would have chosen itself.
    """

    ids: list[int]
    stub: str
    is_cut: bool  # something had to be left out


def infill_ids(codec: TextCodec, prefix: str, suffix: str) -> list[int]:
    """The prompt that asks for the text between. Raises InvalidParameter where the model has no marks for it."""
    before, behind, middle = _marks(codec)
    return [before, *codec.encode(prefix, is_start=False), behind, *codec.encode(suffix, is_start=False), middle]


def asks_for_middle(codec: TextCodec, token_ids: Sequence[int]) -> bool:
    """Whether a prompt ends where a middle begins: some clients write the marks themselves."""
    control_ids = codec.control_ids
    return bool(token_ids) and token_ids[-1] in {control_ids.get(middle) for _, _, middle in MARKS}


def infill_stop_ids(codec: TextCodec) -> list[int]:
    """Tokens that end the middle, besides those that end any answer."""
    control_ids = codec.control_ids
    return [control_ids[mark] for mark in (*ENDS, *(mark for marks in MARKS for mark in marks)) if mark in control_ids]


def gap_prompt(codec: TextCodec, gap: Gap, room: int, *, has_stub: bool = True) -> GapPrompt:
    """The prompt in at most about `room` tokens: other files, the text before the block that the cursor is in, the text
    behind the cursor, the middle's mark, and the block as far as it is written.

    To the model the middle began with the block. While that is typed neither the text before it nor the suffix is read
    again. Where the room is short, the oldest files go, then the prefix's start, in steps, so that it stays where it
    is from key to key. Raises InvalidParameter where the model has no marks.
    """
    before, behind, middle = _marks(codec)
    stub = _last_piece(codec, gap.prefix) if has_stub else ""
    head = gap.prefix[: len(gap.prefix) - len(stub)]
    start = _block_start(head)
    whole_begun = codec.encode(head[start:], is_start=False)
    begun = _kept_end(whole_begun, max(0, room - 3))
    room = max(0, room - len(begun) - 3)
    suffix = codec.encode(gap.suffix, is_start=False)
    prefix = codec.encode(head[:start], is_start=False)
    kept_suffix = suffix[: max(room // 4, room - len(prefix))]
    kept_prefix = _kept_end(prefix, room - len(kept_suffix))
    files, num_left_out = _files(codec, gap.files, room - len(kept_suffix) - len(kept_prefix))
    ids = [*files, before, *kept_prefix, behind, *kept_suffix, middle, *begun]
    kept = ((begun, whole_begun), (kept_prefix, prefix), (kept_suffix, suffix))
    is_cut = num_left_out > 0 or any(len(part) < len(whole) for part, whole in kept)
    return GapPrompt(ids, stub, is_cut)


def _marks(codec: TextCodec) -> tuple[int, int, int]:
    control_ids = codec.control_ids
    for marks in MARKS:
        if control_ids.keys() >= set(marks):
            before, behind, middle = (control_ids[mark] for mark in marks)
            return before, behind, middle
    raise InvalidParameter("suffix needs a model that fills gaps, and this one has no marks for them; leave it out")


def _block_start(text: str) -> int:
    """Where the last block begins, or the last line where that is far; amid a line that is longer still."""
    starts = [match.start() for match in BLOCK.finditer(text)]
    if starts and len(text) - starts[-1] <= MAX_BEGUN:
        return starts[-1]
    too_long = len(text) - MAX_BEGUN
    return max(text.rfind("\n") + 1, -(-too_long // BEGUN_STEP) * BEGUN_STEP)


def _last_piece(codec: TextCodec, text: str) -> str:
    """What the tokenizer cuts off last before it looks for tokens: a word, signs, a space. No token crosses its start.

    Letters beyond ASCII are left where they are: a token may end inside one.
    """
    cutter = codec.tokenizer.pre_tokenizer
    if cutter is None:
        return ""
    seen = text[-SEEN:]
    pieces = cutter.pre_tokenize_str(seen)
    piece = seen[pieces[-1][1][0] :] if len(pieces) > 1 else ""
    return piece if piece.isascii() and len(piece) <= MAX_STUB else ""


def _kept_end(ids: list[int], room: int) -> list[int]:
    """The end of a list that grows: what is dropped grows by a quarter of the room at a time."""
    if len(ids) <= room:
        return ids
    step = max(1, room // 4)
    return ids[-(-(len(ids) - room) // step) * step :]


def _files(codec: TextCodec, files: Sequence[tuple[str, str]], room: int) -> tuple[list[int], int]:
    """The last files that fit, as the model knows projects, and how many were left out."""
    control_ids = codec.control_ids
    mark = next((control_ids[mark] for mark in FILE_MARKS if mark in control_ids), None)
    if mark is None or not files:
        return [], len(files)
    project = next((control_ids[mark] for mark in PROJECT_MARKS if mark in control_ids), None)
    opening = [] if project is None else [project, *codec.encode("project\n", is_start=False)]
    ending = [mark, *codec.encode("this file\n", is_start=False)]
    room -= len(opening) + len(ending)
    kept: list[list[int]] = []
    for name, text in reversed(files):
        ids = [mark, *codec.encode(f"{name}\n{text}", is_start=False)]
        if len(ids) > room:
            break
        room -= len(ids)
        kept.append(ids)
    if not kept:
        return [], len(files)
    return [*opening, *(token_id for ids in reversed(kept) for token_id in ids), *ending], len(files) - len(kept)
