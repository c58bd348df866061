"""Other programs that a user might run instead, behind one contract (`base.py`)."""

from benchmarks.peers.base import Peer, Published

__all__ = ["all_peers", "published"]


def all_peers() -> list[Peer]:
    return []


def published() -> list[Published]:
    return []
