"""Who has the next pass, of those that are ready. Knows credentials and places, no tokens.

A session that was in a pass that failed has one alone. Otherwise turns are fair over credentials, and no more sessions
begin to fill than there are places that nobody is filling: with more long prompts than places each would evict the
others' half-filled caches for ever. For the same reason those that are in the cache go first for a while: a turn each,
in order, would find every cache evicted just before it is needed.
"""

from collections.abc import Callable, Mapping

from cloud_verifier.fairness import FairShare
from cloud_verifier.live import Live

__all__ = ["choose_sessions"]


def choose_sessions(
    ready: Mapping[str, Live],
    fair: FairShare,
    slots: int,
    *,
    num_free: int,
    has_place: Callable[[str], bool],
    hold_s: float,
) -> list[str]:
    """Names, at most `slots`. `num_free`: places in the cache that no prompt is half-way into. `hold_s`: so much
    longer than the others a session must have waited that would evict one of them."""
    for name, live in ready.items():
        if live.is_suspect:
            return [name]
    may_go = {name: live for name, live in ready.items() if num_free > 0 or live.is_filling}
    waiting = (
        (live.served_s + (0.0 if has_place(name) else hold_s), name, live.credential) for name, live in may_go.items()
    )
    chosen = fair.order(waiting, slots)
    others = [name for name in chosen if not ready[name].is_filling]
    left_out = set(others[max(0, num_free) :])
    return [name for name in chosen if name not in left_out]
