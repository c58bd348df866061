"""Who goes next: the credential that has had least of the verifier, and of its sessions the one that waited longest.

Start-time fair queueing: every credential has a virtual time that grows with what it was served; one that was idle
starts at the others' time, so nobody saves up. Knows names and numbers only.
"""

from collections import deque
from collections.abc import Iterable

__all__ = ["FairShare"]


class FairShare:
    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._now = 0.0

    def order(self, ready: Iterable[tuple[float, str, str]], count: int) -> list[str]:
        """The first `count` names of `ready`, each given as (waiting since, name, credential)."""
        waiting: dict[str, deque[str]] = {}
        for _, name, credential in sorted(ready):  # of credentials that had as much, the longest waiting is the first
            waiting.setdefault(credential, deque()).append(name)
        if not waiting:
            return []
        times = {credential: max(self._served.get(credential, 0.0), self._now) for credential in waiting}
        self._now = min(times.values())
        self._served.update(times)
        chosen: list[str] = []
        while waiting and len(chosen) < count:
            credential = min(waiting, key=times.__getitem__)
            chosen.append(waiting[credential].popleft())
            times[credential] += 1.0  # as if served, for this choice only
            if not waiting[credential]:
                del waiting[credential]
        return chosen

    def charge(self, credential: str, cost: float) -> None:
        """`credential` was served; `cost` in plain passes."""
        self._served[credential] = self._served.get(credential, self._now) + cost

    def forget(self, credential: str) -> None:
        """Its last session ended. Coming back it starts where the others are, but never earlier than it had got."""
        if self._served.get(credential, 0.0) <= self._now:
            self._served.pop(credential, None)
