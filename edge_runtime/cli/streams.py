"""The standard streams as commands may count on them: all are there, and none but standard output can fail a command.

Imports nothing that takes time: it comes before everything else.
"""

import os
import sys
from typing import Any

__all__ = ["prepare_streams"]


class Notes:
    """Standard error. Once it takes no more, as on a full disk or with nobody to read it, what is said there is lost;
    what was asked for is still done, and the exit status tells whether it was."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            self._lose()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        """What the stream still holds would be tried again at the exit, and change its status."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def prepare_streams() -> None:
    """A stream that the caller closed becomes the null device: its number would be the next file's."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    if not isinstance(sys.stderr, Notes):
        sys.stderr = Notes(sys.stderr)
