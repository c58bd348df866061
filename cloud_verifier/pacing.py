"""How many of a session's drafts a pass takes: as many as are expected to pay, and none once too many did not.

Two rules. The session's own: the number with the best expected tokens for its time, by how its drafts fared so far. And
a guard for each credential, over all its sessions: a running balance of time spent against what plain decoding would
have spent on the same tokens. Above a slack of eight plain passes no drafts are taken; each plain pass earns 2 % back.
So whatever a drafter sends, its credential costs at most 2 % and that slack more than one that drafts nothing. In a
pass that others share both rules go by the session's part of it (`shared_pass.py`). Drafts of the verifier's own go by
the same two rules and the same balance. Knows no tokens and no engine.
"""

from collections.abc import Callable, Sequence

from outrider.worth import Calibration, PassCost, most_worthwhile

__all__ = ["DEVICE", "OWN", "UNKNOWN_COST", "UNKNOWN_MS", "DraftGuard", "SessionPace"]

SLACK_PASSES = 8.0
EARNED_BACK = 0.02  # of a plain pass
RATE_FADE = 0.9
UNKNOWN_MS = {rows: 1 + 0.05 * (rows - 1) for rows in range(1, 33)}  # where nothing was measured, in plain passes
UNKNOWN_COST = PassCost(UNKNOWN_MS)
DEVICE, OWN = "device", "lookup"  # who drafts: their drafts of one confidence are not alike


class DraftGuard:
    """One credential's balance, in milliseconds; positive where drafts cost more than they brought."""

    def __init__(self, pass_ms: Callable[[int], float] = UNKNOWN_COST) -> None:
        self._pass_ms = pass_ms
        self.balance_ms = 0.0
        self.num_rejected = 0  # of the device's drafts

    @property
    def allows_drafts(self) -> bool:
        return self.balance_ms <= SLACK_PASSES * self._pass_ms(1)

    @property
    def allows_own(self) -> bool:
        """The verifier's own drafts leave half of the slack to the device's."""
        return self.balance_ms <= SLACK_PASSES / 2 * self._pass_ms(1)

    def observe(
        self,
        num_drafted: int,
        num_accepted: int,
        num_tokens: int,
        num_own: int = 0,
        cost_ms: Callable[[int], float] | None = None,
    ) -> None:
        """A pass checked so many drafts, the last `num_own` of them the verifier's own."""
        cost_ms = cost_ms or self._pass_ms
        plain_ms = cost_ms(1)
        self.num_rejected += max(0, num_drafted - num_own - num_accepted)
        self.balance_ms += cost_ms(1 + num_drafted) - num_tokens * plain_ms
        if num_drafted == 0:
            self.balance_ms -= EARNED_BACK * plain_ms
        # What was gained is gained: it buys no more than one slack of losses later.
        self.balance_ms = max(self.balance_ms, -SLACK_PASSES * self._pass_ms(1))


class SessionPace:
    """One session's own rule. `guard` is its credential's."""

    def __init__(self, guard: DraftGuard, pass_ms: Callable[[int], float] = UNKNOWN_COST) -> None:
        self._guard = guard
        self._pass_ms = pass_ms
        self._calibration = Calibration()
        self._tokens = 0.0
        self._elapsed_ms = 0.0

    @property
    def allows_drafts(self) -> bool:
        return self._guard.allows_drafts

    @property
    def allows_own(self) -> bool:
        return self._guard.allows_own

    def num_drafts(self, drafts: Sequence[tuple[str, float]], cost_ms: Callable[[int], float] | None = None) -> int:
        """How many of these drafts (who made it, how sure they were) to take, first ones first. `cost_ms`: what rows
        cost this session in this pass, where it is not alone in it."""
        if not drafts or not self._guard.allows_drafts:
            return 0
        cost_ms = cost_ms or self._pass_ms
        plain = 1 / cost_ms(1)
        rate = max(plain, self._tokens / self._elapsed_ms) if self._elapsed_ms else plain
        chances = [self._calibration.chance(source, confidence) for source, confidence in drafts]
        return most_worthwhile(chances, rate, cost_ms)[0]

    def observe(
        self,
        drafts: Sequence[tuple[str, float]],
        num_accepted: int,
        num_tokens: int,
        elapsed_ms: float,
        cost_ms: Callable[[int], float] | None = None,
    ) -> None:
        """A pass took these drafts; `elapsed_ms` since the session's last pass ended, its part where it is shared."""
        cost_ms = cost_ms or self._pass_ms
        num_own = sum(source == OWN for source, _ in drafts)
        self._guard.observe(len(drafts), num_accepted, num_tokens, num_own, cost_ms)
        self._calibration.observe(drafts, num_accepted)
        self._tokens = RATE_FADE * self._tokens + num_tokens
        self._elapsed_ms = RATE_FADE * self._elapsed_ms + max(elapsed_ms, cost_ms(1 + len(drafts)))
