"""Drafts of the verifier's own, for a session whose device has none waiting: looked up in the session's own tokens.

They need no round trip and next to no time: a token is read once, in a few microseconds, and no more than a piece of a
text at a time, so that no pass waits for a long prompt. What they need is memory, 500 to 1,000 bytes a token: so of a
long text only the end is read, and the reading is begun anew when the room is full. Knows tokens; no engine, no device
and no pace.
"""

from collections.abc import Sequence

from outrider.lookup import Continuation, SuffixAutomaton

__all__ = ["MOST", "OwnDrafts"]

MOST = 8192  # tokens held of a session
PIECE = 256  # tokens read at a time; a prompt is read while the engine is filled with it


class OwnDrafts:
    """Of one session, whose list only grows; it is given each time. `size`: tokens of it that are held at once."""

    def __init__(self, size: int = MOST) -> None:
        self.size = size
        self._text = SuffixAutomaton()
        self._start = 0  # where in the list the text begins

    def read(self, token_ids: list[int]) -> bool:
        """Read on. Whether the text now ends where the list does."""
        if len(token_ids) - self._start > self.size:
            self._text = SuffixAutomaton()
            self._start = len(token_ids) - self.size // 2
        text = self._text
        begin = self._start + len(text.token_ids)
        for token_id in token_ids[begin : begin + PIECE]:
            text.append(token_id)
        return self._start + len(text.token_ids) == len(token_ids)

    def propose(self, token_ids: list[int], num_drafts: int, after: Sequence[int] = ()) -> Continuation:
        """What may follow the list, and the drafts `after` it: at most `num_drafts`; nothing while there is more to
        read."""
        if num_drafts < 1 or not self.read(token_ids):
            return Continuation()
        text = self._text
        end = len(text.token_ids)
        for token_id in after:
            text.append(token_id)
        found = text.propose(num_drafts)
        text.truncate(end)
        return found

    def check_integrity(self, token_ids: list[int]) -> None:
        """Raises AssertionError when something else was read than the list says, or too much is held."""
        held = self._text.token_ids
        if held != token_ids[self._start : self._start + len(held)]:
            raise AssertionError("drafts would come from another text than the session's")
        if len(held) > self.size:
            raise AssertionError("more is held to draft from than may be")
