"""What one generation did, in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Report"]


@dataclass(slots=True)
class Report:
    """Counts and times of one generation. Rates leave the prompt out: they run from the first token on."""

    target: str = ""  # fingerprint of the weights that answered
    num_prompt: int = 0
    num_reused: int = 0  # tokens that were in the verifier's cache when the list was opened last
    num_tokens: int = 0  # verified
    num_provisional: int = 0  # tokens that the answer ends in and that nobody verified yet
    num_retracted: int = 0  # provisional tokens that were taken back
    num_passes: int = 0  # of the verifier, for this generation
    num_drafted: int = 0  # drafts that a pass looked at
    num_accepted: int = 0
    num_reopened: int = 0  # attempts to have the list opened again after a loss
    bytes_up: int = 0
    bytes_down: int = 0
    rtt_ms: float | None = None  # to the verifier and back, as measured when the link was opened last; None: not yet
    first_token_ms: float = 0.0
    total_ms: float = 0.0
    accepted_by: dict[str, int] = field(default_factory=dict)  # drafter -> its drafts that were accepted

    def add_pass(self, num_tokens: int, num_drafted: int, accepted_by: Sequence[str], total_ms: float) -> None:
        """One pass of the verifier that ended `total_ms` after the beginning; `accepted_by`: each draft's maker."""
        self.num_passes += 1
        self.num_tokens += num_tokens
        self.num_drafted += num_drafted
        self.num_accepted += len(accepted_by)
        for source in accepted_by:
            self.accepted_by[source] = self.accepted_by.get(source, 0) + 1
        self.total_ms = total_ms
        self.first_token_ms = self.first_token_ms or total_ms

    @property
    def tokens_per_s(self) -> float:
        """Tokens after the first, over the time after the first."""
        elapsed_ms = self.total_ms - self.first_token_ms
        return 1000 * (self.num_tokens - 1) / elapsed_ms if self.num_tokens > 1 and elapsed_ms > 0 else 0.0

    @property
    def tokens_per_pass(self) -> float:
        return self.num_tokens / self.num_passes if self.num_passes else 0.0

    @property
    def acceptance(self) -> float:
        return self.num_accepted / self.num_drafted if self.num_drafted else 0.0

    @property
    def bytes_per_token(self) -> float:
        return (self.bytes_up + self.bytes_down) / self.num_tokens if self.num_tokens else 0.0
