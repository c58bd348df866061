"""Whether to try the verifier now: a circuit breaker for the link.

    closed ── failures in a row ──> open ── its wait is over ──> half open ── success ──> closed, on probation
                                     ^───────────── failure ────────┘

It opens late and trusts again late (hysteresis): after it closes, a single failure opens it anew until it has been
closed for a while, and every opening waits longer than the one before. Each wait is the one before in full, and a
uniformly random part of its own (full jitter): however a link flaps, attempts come no closer than the waits grow, and
devices that lost the same verifier come back spread out. Pure: knows a clock and no link; for one thread.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from outrider.errors import InvalidParameter

__all__ = ["Breaker", "BreakerPolicy"]

TICK_S = 1e-6  # less than this is no wait
MAX_ASKED_S = 300.0  # a verifier may ask for no longer wait


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Raises InvalidParameter for a number that is not positive, and for bounds out of order."""

    failures: int = 3  # in a row, to open it
    first_s: float = 0.5  # bound of the first wait; each next one is twice the last
    longest_s: float = 16.0
    probe_s: float = 30.0  # an attempt of which nothing is heard for so long has failed
    calm_s: float = 60.0  # closed for so long, it is trusted as at first

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise InvalidParameter(f"{name} is {getattr(self, name)}; give a number above 0")
        if self.first_s > self.longest_s:
            raise InvalidParameter(f"first_s is {self.first_s}, above longest_s; give less")


class Breaker:
    """`clock` is monotonic, in seconds. Whoever is told to go on says how it went: `succeeded` or `failed`."""

    def __init__(
        self,
        policy: BreakerPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        self._policy = policy or BreakerPolicy()
        self._clock = clock
        self._random = chance or random.Random()  # noqa: S311  it spreads load, it hides nothing
        self._failures = 0
        self._bound_s = 0.0  # of the latest wait; 0 while the link is trusted
        self._wait_s = 0.0
        self._since_s = clock()  # of the state
        self.state: Literal["closed", "open", "half_open"] = "closed"
        self.num_openings = 0

    @property
    def wait_s(self) -> float:
        """Seconds until an attempt may be made: 0 now. Never longer than was drawn, whatever the clock did."""
        if self.state == "closed":
            return 0.0
        whole_s = self._wait_s if self.state == "open" else self._policy.probe_s
        elapsed_s = self._clock() - self._since_s
        if elapsed_s < 0:  # the clock was set back
            self._since_s += elapsed_s
            return whole_s
        left_s = whole_s - elapsed_s
        return left_s if left_s > TICK_S else 0.0

    def may_try(self) -> bool:
        """Whether to use the link now. True while half open is said to one asker alone, until that one reports."""
        if self.state == "half_open" and self.wait_s == 0:
            self.failed()  # the one who asked was never heard of again
        if self.wait_s > 0:
            return False
        if self.state == "open":
            self._enter("half_open")
        return True

    def succeeded(self) -> None:
        """Something was heard from the verifier. Success of an attempt older than an opening counts as well."""
        self._failures = 0
        if self.state != "closed":
            self._enter("closed")
        elif self._clock() - self._since_s >= self._policy.calm_s:
            self._bound_s = 0.0

    def failed(self, retry_after_s: float = 0.0) -> None:
        """An attempt came to nothing; the verifier asks for none before `retry_after_s`."""
        if self.state == "closed" and self._clock() - self._since_s >= self._policy.calm_s:
            self._bound_s = 0.0
        self._failures += 1
        is_trusted = self.state == "closed" and self._bound_s == 0
        if self.state == "open" or (is_trusted and self._failures < self._policy.failures):
            return
        before_s, self._bound_s = self._bound_s, self._next_bound_s()
        self._wait_s = max(before_s + self._random.uniform(0, self._bound_s), min(retry_after_s, MAX_ASKED_S))
        self.num_openings += self.state == "closed"
        self._enter("open")

    def network_changed(self) -> None:
        """The system says there is another network, or one again: do not sit out a long wait.

        At least the first bound still lies between attempts.
        """
        if self.state == "open":
            soon_s = self._policy.first_s + self._random.uniform(0, self._policy.first_s)
            self._wait_s = min(self._wait_s, soon_s)

    def _next_bound_s(self) -> float:
        return min(2 * self._bound_s or self._policy.first_s, self._policy.longest_s)

    def _enter(self, state: Literal["closed", "open", "half_open"]) -> None:
        self.state = state
        self._since_s = self._clock()
