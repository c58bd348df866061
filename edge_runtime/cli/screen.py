"""One answer as it is written: plain text where it goes to a file or a pipe, told apart by provenance on a terminal.

On a terminal provisional text is dim; where the target differs, what it does not confirm is struck, and the target goes
on from there. With `has_colors` drafts that were verified are green, too. Elsewhere provisional text is held back until
it is verified, or the answer has ended in it. Writes text to standard output, notes to standard error; to a terminal no
control characters of the answer's.
"""

import os
import sys

from edge_runtime.answer import Answering, Piece
from edge_runtime.cli.output import STEERING, console
from edge_runtime.events import Alone, Retracted, Token

__all__ = ["LEGEND", "Screen"]

DIM, STRUCK, DRAFTED, NORMAL = "\x1b[2m", "\x1b[2;9m", "\x1b[32m", "\x1b[0m"
LEGEND = (
    f"{DRAFTED}drafted and verified{NORMAL}, the target's own words, "
    f"{DIM}provisional{NORMAL}, {STRUCK}taken back{NORMAL}"
)


class Screen:
    """`text` and `tokens` are the answer so far, written or not; of `is_silent` nothing is."""

    def __init__(self, *, is_silent: bool = False, has_colors: bool = False) -> None:
        self.text = ""
        self.tokens: list[Token] = []
        self._is_silent = is_silent
        self._is_terminal = sys.stdout.isatty()
        self._has_colors = has_colors and not os.environ.get("NO_COLOR")
        self._held: list[tuple[int, str]] = []  # positions and their text, not written yet

    def take(self, event: Answering) -> None:
        if isinstance(event, Alone):
            if not self._is_silent:
                said = f"outrider: {event.reason}; meanwhile the drafter answers alone"
                console.print(said, style="dim")
        elif isinstance(event, Retracted):
            self._retract(event)
        elif isinstance(event, Piece):
            self._take_piece(event)

    def _retract(self, event: Retracted) -> None:
        self.tokens = [token for token in self.tokens if token.position < event.position]
        self._held = [(position, text) for position, text in self._held if position < event.position]
        void, self.text = self.text[event.num_chars :], self.text[: event.num_chars]
        if self._is_terminal:
            self._write("\n")
            console.print("outrider: the target says something else:", style="dim")
            self._write(self.text[self.text.rfind("\n") + 1 :])
            self._write(void, STRUCK)

    def _take_piece(self, piece: Piece) -> None:
        token = piece.token
        self.text += piece.text
        if token is None:
            self.end()
            self._write(piece.text)
        elif not token.is_verified:
            self.tokens.append(token)
            if self._is_terminal:
                self._write(piece.text, DIM)
            else:
                self._held.append((token.position, piece.text))
        else:
            self.tokens = [*(other for other in self.tokens if other.position != token.position), token]
            while self._held and self._held[0][0] <= token.position:
                self._write(self._held.pop(0)[1])
            self._write(piece.text, DRAFTED if self._has_colors and token.drafted_by else "")

    def end(self) -> None:
        """What is still held back is the answer's end, verified or not."""
        self._write("".join(text for _, text in self._held))
        self._held = []

    def _write(self, text: str, style: str = "") -> None:
        if text and not self._is_silent:
            if self._is_terminal:
                text = text.translate(STEERING)
            is_styled = style and self._is_terminal
            sys.stdout.write(f"{style}{text}{NORMAL}" if is_styled else text)
            sys.stdout.flush()
