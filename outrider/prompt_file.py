"""Prompts of one's own in a file: a JSON object a line, `prompt` and perhaps `kind`. Knows not who asks them."""

from pathlib import Path

import msgspec

from outrider.errors import InvalidParameter

__all__ = ["FilePrompt", "read_prompt_file"]

MOST_BYTES = 2**20


class FilePrompt(msgspec.Struct, frozen=True):
    prompt: str
    kind: str = "own"


def read_prompt_file(file: Path) -> dict[int, FilePrompt]:
    """By the numbers of their lines; other fields and empty lines are passed over.

    Raises InvalidParameter for a file that cannot be read or is too large, and for a line that is something else.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidParameter(f"{file} cannot be read ({error.strerror}); give a file of prompts") from None
    if len(content) > MOST_BYTES:
        raise InvalidParameter(f"{file} is larger than {MOST_BYTES >> 20} MiB; give fewer prompts")
    prompts = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            prompts[number] = read = msgspec.json.decode(line, type=FilePrompt)
        except (ValueError, RecursionError) as error:
            raise InvalidParameter(
                f'line {number} of {file} is no prompt ({error}); write objects like {{"prompt": "..."}}'
            ) from None
        if not read.prompt.strip() or not read.kind.strip():
            raise InvalidParameter(f"line {number} of {file} has an empty prompt or kind; fill it in or take it out")
    return prompts
