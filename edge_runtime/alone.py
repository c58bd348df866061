"""How to draft when nobody verifies: token after token, to the end, with guesses that could be an answer."""

from collections.abc import Sequence

from edge_runtime.pacing import Pace

__all__ = ["AlonePace"]


class AlonePace(Pace):
    def wants_another(self, source: str, reach: float, num_drafts: int) -> bool:
        return num_drafts == 0  # each is shown as soon as it is there

    def num_worthwhile(self, source: str, confidences: Sequence[float]) -> int:
        return 0  # repeating the text is a good bet with a verifier at hand, and no answer without one

    def prefers(self, source: str, confidences: Sequence[float], other: str) -> bool:
        return False
