"""Who has the next pass, of those that are ready. Knows credentials and places, no tokens.

A session that was in a pass that failed has one alone. Otherwise turns are fair over credentials, and no more sessions
begin to fill than there are places that nobody is filling: with more long prompts than places each would evict the
others' half-filled caches for ever.
"""

from collections.abc import Mapping

from cloud_verifier.fairness import FairShare
from cloud_verifier.live import Live

__all__ = ["choose_sessions"]


def choose_sessions(ready: Mapping[str, Live], fair: FairShare, slots: int, num_free: int) -> list[str]:
    """Names, at most `slots`. `num_free`: places in the cache that no prompt is half-way into."""
    for name, live in ready.items():
        if live.is_suspect:
            return [name]
    may_go = {name: live for name, live in ready.items() if num_free > 0 or live.is_filling}
    chosen = fair.order(((live.served_s, name, live.credential) for name, live in may_go.items()), slots)
    others = [name for name in chosen if not ready[name].is_filling]
    left_out = set(others[max(0, num_free) :])
    return [name for name in chosen if name not in left_out]
