"""When to try again, and when to give up: waits that grow, spread at random, and start over with every step forward.

Full jitter (a wait is uniform between 0 and its bound), so that devices that lost the same verifier do not all come
back at once. Who can wait, because the drafter answers meanwhile, heeds the breaker as well and never gives up on a
link. Knows nothing of what is tried.
"""

import asyncio
import random
import time
from dataclasses import dataclass

from edge_runtime.breaker import Breaker
from outrider.errors import LinkError, OutriderError, Refused

__all__ = ["Retry", "Retrying"]

MAX_WAIT_S = 30.0  # however long a verifier asks for
LOOK_S = 1.0  # a breaker may change its mind, and a sleeping machine's clock stands still


@dataclass(frozen=True, slots=True)
class Retry:
    """`first_attempts` before anything was ever heard from the verifier, `attempts` in a row after that.

    However slow they are, none begins later than `give_up_s` after something was heard.
    """

    first_attempts: int = 3
    attempts: int = 40
    base_s: float = 0.05
    cap_s: float = 2.0
    give_up_s: float = 300.0


class Retrying:
    """One generation's count of failures in a row. `is_patient` heeds the breaker and outlasts any loss of the link."""

    def __init__(self, policy: Retry, breaker: Breaker | None = None, *, is_patient: bool = False) -> None:
        self._policy = policy
        self._breaker = breaker or Breaker()
        self.is_patient = is_patient
        self._failures = 0
        self._wait_s = 0.0
        self._has_heard = False
        self._heard_s = time.monotonic()

    def heard(self) -> None:
        """Something came from the verifier."""
        self._failures = 0
        self._has_heard = True
        self._heard_s = time.monotonic()
        self._breaker.succeeded()

    def failed(self, error: OutriderError) -> None:
        """Raises `error` when it may not be tried again, or was often enough."""
        is_of_link = isinstance(error, LinkError) or (isinstance(error, Refused) and error.may_retry)
        if is_of_link:
            self._breaker.failed(error.retry_after_ms / 1000)
        self._failures += 1
        if not (self.is_patient and is_of_link):
            most = self._policy.attempts if self._has_heard else self._policy.first_attempts
            is_late = time.monotonic() - self._heard_s > self._policy.give_up_s
            if not error.may_retry or self._failures >= most or is_late:
                raise error
        bound_s = min(self._policy.cap_s, self._policy.base_s * 2 ** min(self._failures - 1, 32))
        least_s = min(error.retry_after_ms / 1000, MAX_WAIT_S)
        self._wait_s = least_s + random.uniform(0, bound_s)  # noqa: S311  it spreads load, it hides nothing

    async def turn(self) -> None:
        """Wait until the next attempt may be made."""
        wait_s, self._wait_s = self._wait_s, 0.0
        await asyncio.sleep(wait_s)
        while self.is_patient and not self._breaker.may_try():  # noqa: ASYNC110  a clock's state, not an event
            await asyncio.sleep(min(self._breaker.wait_s, LOOK_S))
