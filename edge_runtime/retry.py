"""When to try again, and when to give up: waits that grow, spread at random, and start over with every step forward.

Full jitter (a wait is uniform between 0 and its bound), so that devices that lost the same verifier do not all come
back at once. Knows nothing of what is tried.
"""

import asyncio
import random
import time
from dataclasses import dataclass

from outrider.errors import OutriderError

__all__ = ["Retry", "Retrying"]

MAX_WAIT_S = 30.0  # however long a verifier asks for


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
    """One generation's count of failures in a row."""

    def __init__(self, policy: Retry) -> None:
        self._policy = policy
        self._failures = 0
        self._has_heard = False
        self._heard_s = time.monotonic()

    def progress(self) -> None:
        """Something was heard."""
        self._failures = 0
        self._has_heard = True
        self._heard_s = time.monotonic()

    async def pause(self, error: OutriderError) -> None:
        """Wait before the next attempt. Raises `error` when it may not be retried, or was often enough."""
        self._failures += 1
        most = self._policy.attempts if self._has_heard else self._policy.first_attempts
        is_late = time.monotonic() - self._heard_s > self._policy.give_up_s
        if not error.may_retry or self._failures >= most or is_late:
            raise error
        bound_s = min(self._policy.cap_s, self._policy.base_s * 2 ** (self._failures - 1))
        least_s = min(error.retry_after_ms / 1000, MAX_WAIT_S)
        await asyncio.sleep(least_s + random.uniform(0, bound_s))  # noqa: S311  it spreads load, it hides nothing
