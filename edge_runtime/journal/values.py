"""What the journal holds, as values, and the checksums of its rows: SQLite notices a torn page, not a changed byte."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from outrider.choice import SamplingParams
from outrider.search import SearchParams

__all__ = ["STOPPED", "Asked", "Conversation", "Generation", "checksum", "token_rows"]

STOPPED = "stopped"  # how an answer has ended that nobody wanted to hear out


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the target's answer follows from, and the words a person would know it by."""

    prompt_ids: list[int]
    max_tokens: int
    params: SamplingParams = msgspec.field(default_factory=SamplingParams)
    stop_ids: list[int] = []
    target: str = ""  # fingerprint of the weights; "" when none was known, as offline
    vocabulary: str = ""  # fingerprint of the tokenizer
    messages: list[dict[str, str]] = []  # the conversation that the prompt was made of
    stop: list[str] = []  # the answer ends before the first of these
    search: SearchParams = msgspec.field(default_factory=SearchParams)

    def __repr__(self) -> str:
        """Without what was said: it may end in a log."""
        return f"Asked({len(self.prompt_ids)} tokens, {len(self.messages)} messages)"


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation as it stood when it was read. `finish` None: not finished, or what finished it was retracted."""

    id: int
    conversation: str
    started_s: float  # seconds since 1970
    asked: Asked
    target: str  # fingerprint of the weights that verified it; "" when none did
    token_ids: list[int] = field(repr=False)  # the answer so far
    num_verified: int  # of them, from the left
    finish: str | None
    stopped_at: int | None = None  # tokens that it had when nobody wanted to hear it out

    @property
    def verified_ids(self) -> list[int]:
        return self.token_ids[: self.num_verified]

    @property
    def provisional_ids(self) -> list[int]:
        return self.token_ids[self.num_verified :]

    @property
    def max_tokens(self) -> int:
        """Of the whole answer: what was asked for; of one that was stopped, what was there then."""
        return self.stopped_at or self.asked.max_tokens

    @property
    def frontier(self) -> int:
        """The position after the last verified token."""
        return len(self.asked.prompt_ids) + self.num_verified

    @property
    def end(self) -> int:
        """The position after the last token."""
        return len(self.asked.prompt_ids) + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Conversation:
    name: str
    started_s: float
    num_generations: int
    num_unfinished: int
    num_provisional: int  # tokens that wait for the target's word


def token_rows(
    generation: int, position: int, token_ids: Iterable[int], *, is_verified: bool
) -> list[tuple[int, int, int, int, int]]:
    """Rows of the token table: generation, position, token id, state, checksum."""
    rows = [(generation, at, token_id, int(is_verified)) for at, token_id in enumerate(token_ids, position)]
    return [(*row, checksum(*row)) for row in rows]


def checksum(*values: object) -> int:
    return zlib.crc32(repr(values).encode())
