"""What was suggested lately, by the tokens it followed: who types along a suggestion is told the rest without a pass.

An answer is a function of its prompt's tokens. So where a prompt is an earlier one with the first tokens of its answer
behind it, its answer is the rest of the earlier one, to the bit. An answer that had to begin in some way is also the
answer to who asks for more of the same beginning. Few are kept, and only greedy ones that the target verified.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["MAX_KEPT", "Known", "Suggestions"]

MAX_KEPT = 16


@dataclass(frozen=True, slots=True)
class Known:
    """The tokens that follow a prompt, as far as they are known; `is_whole`: and nothing after them."""

    token_ids: Sequence[int] = ()
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class _Kept:
    prompt_ids: list[int]
    stub: bytes  # what the answer had to begin with
    token_ids: list[int]
    is_whole: bool


class Suggestions:
    """Of one target: those of another are forgotten when `target`, the weights' fingerprint, is heard of. `bytes_of`
    tells what a token adds to a text."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._kept: list[_Kept] = []  # the latest used last
        self.target = ""

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, prompt_ids: list[int], stub: bytes) -> Known:
        """What is known of the answer that begins with `stub`."""
        best, found = Known(), None
        for kept in self._kept:
            known = self._rest(kept, prompt_ids, stub)
            if len(known.token_ids) > len(best.token_ids):
                best, found = known, kept
        if found is not None:
            self._kept.remove(found)
            self._kept.append(found)
        return best

    def keep(
        self, target: str, prompt_ids: list[int], stub: bytes, token_ids: Sequence[int], *, is_whole: bool
    ) -> None:
        """The answer's first tokens; all of it, if it `is_whole`."""
        if target != self.target:
            self._kept.clear()
            self.target = target
        self._kept = [kept for kept in self._kept if (kept.prompt_ids, kept.stub) != (prompt_ids, stub)]
        self._kept.append(_Kept(prompt_ids, stub, list(token_ids), is_whole))
        del self._kept[:-MAX_KEPT]

    def _rest(self, kept: _Kept, prompt_ids: list[int], stub: bytes) -> Known:
        start = len(prompt_ids) - len(kept.prompt_ids)
        if not 0 <= start <= len(kept.token_ids) or kept.prompt_ids != prompt_ids[: len(kept.prompt_ids)]:
            return Known()
        if kept.token_ids[:start] != prompt_ids[len(kept.prompt_ids) :]:
            return Known()
        forced = kept.stub[len(self._text(kept.token_ids[:start])) :]
        rest = kept.token_ids[start:]
        text = self._text(rest)
        size = min(len(text), len(stub))
        if not stub.startswith(forced) or text[:size] != stub[:size]:
            return Known()
        return Known(rest, kept.is_whole and len(text) >= len(stub))

    def _text(self, token_ids: Sequence[int]) -> bytes:
        return b"".join(map(self._bytes_of, token_ids))
