"""Text between two others, for models that were trained to fill gaps: the prompt, written with the model's own marks.

Which marks, the tokenizer's control tokens tell. Knows nothing of how the answer is made.
"""

from outrider.errors import InvalidParameter
from outrider.tokens import TextCodec

__all__ = ["infill_ids", "infill_stop_ids"]

# Before the text in front of the gap, before that behind it, and where the middle begins.
MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
)
# What such models say behind a middle: another gap, another file.
ENDS = ("<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<fim_pad>", "<file_sep>", "<repo_name>")


def infill_ids(codec: TextCodec, prefix: str, suffix: str) -> list[int]:
    """The prompt that asks for the text between. Raises InvalidParameter where the model has no marks for it."""
    control_ids = codec.control_ids
    for marks in MARKS:
        if control_ids.keys() >= set(marks):
            before, behind, middle = (control_ids[mark] for mark in marks)
            ids = [before, *codec.encode(prefix, is_start=False), behind, *codec.encode(suffix, is_start=False), middle]
            return ids
    raise InvalidParameter("suffix needs a model that fills gaps, and this one has no marks for them; leave it out")


def infill_stop_ids(codec: TextCodec) -> list[int]:
    """Tokens that end the middle, besides those that end any answer."""
    control_ids = codec.control_ids
    return [control_ids[mark] for mark in (*ENDS, *(mark for marks in MARKS for mark in marks)) if mark in control_ids]
