"""What the user says, message by message: from a line editor on a terminal, from lines elsewhere.

A message is a line. It goes on after a backslash at the line's end, and between lines of three quotes. The editor, with
its history, takes line breaks by Alt-Enter and by pasting; it is an extra, without it the system's line is read.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from outrider.errors import InvalidParameter

__all__ = ["MessageReader"]

QUOTES = '"""'


class MessageReader:
    """`said` is what the user may go back to; `commands` are completed."""

    def __init__(self, said: Iterable[str], commands: Sequence[str]) -> None:
        self.is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._line = (_editor(said, commands) or _plain_line) if self.is_terminal else _piped_line

    def read(self, prompt: str) -> str:
        """The next message. Raises EOFError at the end, KeyboardInterrupt, InvalidParameter for no text."""
        try:
            message = self._line(prompt)
            if message.strip().startswith(QUOTES):
                return self._quoted(message.strip().removeprefix(QUOTES))
            while message.endswith("\\"):
                message = f"{message[:-1]}\n{self._line('... ')}"
            return message
        except UnicodeDecodeError:
            raise InvalidParameter("standard input is not UTF-8 text; convert it first") from None

    def _quoted(self, message: str) -> str:
        """Up to the closing quotes, or the end of all input."""
        while not message.rstrip().endswith(QUOTES):
            try:
                message = f"{message}\n{self._line('... ')}"
            except EOFError:
                return message.strip("\n")
        return message.rstrip().removesuffix(QUOTES).strip("\n")


def _piped_line(prompt: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _plain_line(prompt: str) -> str:
    with suppress(ImportError):
        import readline  # noqa: F401  lets input() edit its line, where the system has it
    return input(prompt)


def _editor(said: Iterable[str], commands: Sequence[str]) -> Callable[[str], str] | None:
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    except ImportError:
        return None
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        history=InMemoryHistory(list(said)),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        key_bindings=keys,
    )
    return session.prompt
