"""Figures of programs that do not run on such a machine, as their authors give them."""

from benchmarks.peers.base import Published

__all__ = ["published"]


def published() -> list[Published]:
    return []
