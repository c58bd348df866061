"""Lists of token ids, and a tree's parents, as the bytes that messages hold."""

from collections.abc import Iterable

import numpy as np

from outrider.errors import ProtocolError

__all__ = ["pack_ids", "pack_parents", "unpack_ids", "unpack_parents"]

ID, PARENT = np.dtype("<u4"), np.dtype("<i2")


def pack_ids(token_ids: Iterable[int]) -> bytes:
    """Token ids as they travel: 4 little-endian bytes each."""
    return np.fromiter(token_ids, ID).tobytes()


def unpack_ids(data: bytes) -> list[int]:
    """The inverse of `pack_ids`. Raises ProtocolError when bytes are left over."""
    if len(data) % 4:
        raise ProtocolError(f"token ids take 4 bytes each, but {len(data)} bytes came; check both sides' versions")
    return np.frombuffer(data, ID).tolist()  # type: ignore[no-any-return]


def pack_parents(parents: Iterable[int]) -> bytes:
    """A tree's parents as they travel: 2 little-endian bytes each, -1 as 0xFFFF."""
    return np.fromiter(parents, PARENT).tobytes()


def unpack_parents(data: bytes, num_drafts: int) -> list[int] | None:
    """The inverse of `pack_parents`; None for a chain. Raises ProtocolError when they are no tree of `num_drafts`."""
    if not data:
        return None
    parents: list[int] = np.frombuffer(data[: len(data) // 2 * 2], PARENT).tolist()
    if 2 * num_drafts != len(data) or any(not -1 <= parent < row for row, parent in enumerate(parents)):
        raise ProtocolError("the parents of a draft are no tree; name each token's parent, earlier than itself")
    return parents
