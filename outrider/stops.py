"""Stop strings in a stream of text: the text before the first one, and nothing that could still become one.

Which one ends the text does not depend on how the text was cut into pieces: it is the first to be complete, and of
those that end together the longest. Knows no tokens.
"""

from collections.abc import Sequence

from outrider.errors import InvalidParameter

__all__ = ["StopStrings"]

MAX_STOPS = 16
MAX_STOP_LENGTH = 256  # characters, of each


class StopStrings:
    """Raises InvalidParameter for more than 16 strings, and for one that is empty or has more than 256 characters.

    >>> stops = StopStrings(["END"])
    >>> [stops.feed(piece) for piece in ("to the EN", "emy: E", "ND of it")], stops.is_hit
    (['to the ', 'ENemy: ', ''], True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if len(stops) > MAX_STOPS:
            raise InvalidParameter(f"{len(stops)} stop strings were given; give at most {MAX_STOPS}")
        for stop in stops:
            if not 0 < len(stop) <= MAX_STOP_LENGTH:
                raise InvalidParameter(f"a stop string has {len(stop)} characters; give 1 to {MAX_STOP_LENGTH}")
        self._stops = list(stops)
        self._held = ""
        self.is_hit = False
        self.rest = ""  # what came behind the stop string, with it

    def feed(self, text: str) -> str:
        """What may be shown now that `text` has come; nothing after a stop string."""
        if self.is_hit:
            return ""
        text = self._held + text
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            self.is_hit = True
            self._held = ""
            end, start = min(found)
            self.rest = text[end:]
            return text[:start]
        num_held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]

    def flush(self) -> str:
        """What was held back, at the text's end: no stop string came of it."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that `stop` begins with, short of all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if stop.startswith(text[-length:])), 0)
