"""When to try again, and when to give up: waits that grow, spread at random, and start over with every step forward.

Full jitter (a wait is uniform between 0 and its bound), so that devices that lost the same verifier do not all come
back at once. Knows nothing of what is tried.
"""

import asyncio
import random
from dataclasses import dataclass

from outrider.errors import OutriderError

__all__ = ["Retry", "Retrying"]

MAX_WAIT_S = 30.0  # however long a verifier asks for


@dataclass(frozen=True, slots=True)
class Retry:
    """`first_attempts` before anything was ever heard from the verifier, `attempts` in a row after that."""

    first_attempts: int = 3
    attempts: int = 12
    base_s: float = 0.05
    cap_s: float = 2.0


class Retrying:
    """One generation's count of failures in a row."""

    def __init__(self, policy: Retry) -> None:
        self._policy = policy
        self._failures = 0
        self._has_heard = False

    def progress(self) -> None:
        """Something was heard."""
        self._failures = 0
        self._has_heard = True

    async def pause(self, error: OutriderError) -> None:
        """Wait before the next attempt. Raises `error` when it may not be retried, or was often enough."""
        self._failures += 1
        most = self._policy.attempts if self._has_heard else self._policy.first_attempts
        if not error.may_retry or self._failures >= most:
            raise error
        bound_s = min(self._policy.cap_s, self._policy.base_s * 2 ** (self._failures - 1))
        least_s = min(error.retry_after_ms / 1000, MAX_WAIT_S)
        await asyncio.sleep(least_s + random.uniform(0, bound_s))  # noqa: S311  it spreads load, it hides nothing
