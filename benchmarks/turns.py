"""What taking turns gives on a known text: draft so many, send, wait for what became of them. Arithmetic, no clock."""

from collections.abc import Callable

from benchmarks.simulation import Text

__all__ = ["best_length", "turns_ms"]

MAX_LENGTH = 24


def turns_ms(text: Text, num_drafts: int, rtt_ms: float, pass_ms: Callable[[int], float], draft_ms: float) -> float:
    """From the first token's arrival to the last one's."""
    elapsed_ms, place, end = 0.0, 1, len(text.agrees)
    while place < end:
        count = min(num_drafts, end - place - 1)
        elapsed_ms += count * draft_ms + rtt_ms + pass_ms(1 + count)
        while count and text.agrees[place]:
            place, count = place + 1, count - 1
        place += 1
    return elapsed_ms


def best_length(text: Text, rtt_ms: float, pass_ms: Callable[[int], float], draft_ms: float) -> int:
    """The number of drafts a turn that is best for this very text, known only in hindsight."""
    return min(
        range(1, MAX_LENGTH + 1),
        key=lambda num_drafts: turns_ms(text, num_drafts, rtt_ms, pass_ms, draft_ms),
    )
