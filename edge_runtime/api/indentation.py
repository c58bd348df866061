"""Where a block of code ends by its indentation: before the first line that stands further left. Knows no tokens."""

__all__ = ["Indentation"]


class Indentation:
    """`least`: spaces or tabs that each line has, but the first and blank ones; 0 lets all text through.

    >>> indentation = Indentation(4)
    >>> [indentation.feed(text) for text in ("a\\n", "    b\\n\\n", "  c")], indentation.is_hit
    (['a', '\\n    b', ''], True)
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._held = ""  # the end of a line, and blanks after it
        self.is_hit = False

    def feed(self, text: str) -> str:
        """What may be shown now that `text` has come; nothing from a line on that stands too far left."""
        if not self._least:
            return text
        told = ""
        for character in text:
            if self.is_hit:
                break
            if character == "\n" or (self._held and character in " \t"):
                self._held += character
            elif self._held and len(self._held) - self._held.rindex("\n") - 1 < self._least:
                self._held, self.is_hit = "", True
            else:
                told, self._held = told + self._held + character, ""
        return told

    def flush(self) -> str:
        """What was held back, at the text's end."""
        held, self._held = self._held, ""
        return held
