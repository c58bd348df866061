"""How a message travels: one frame, ended and padded, so that its size tells little. Knows nothing of what is in it.

Padded, a frame does not tell how many tokens it holds: every one is as long as the longest draft needs, and what is
longer (an Open) is rounded up to whole pages.
"""

from outrider.errors import ProtocolError
from outrider.wire import SUBPROTOCOL, Down, Up, encode

__all__ = ["FRAME_BYTES", "PAGE_BYTES", "from_frame", "to_frame"]

FRAME_BYTES = 192  # a padded frame: a pass's 31 drafts, a byte of confidence each, and the fields around them
PAGE_BYTES = 4096  # longer messages are padded to a multiple of this
END = b"\x80"  # stands after the message, before the zeros that pad it


def to_frame(message: Up | Down, *, is_padded: bool) -> bytes:
    """A message as it travels: encoded, ended, and padded to one of very few sizes."""
    data = encode(message) + END
    if not is_padded:
        return data
    size = FRAME_BYTES if len(data) <= FRAME_BYTES else -(-len(data) // PAGE_BYTES) * PAGE_BYTES
    return data.ljust(size, b"\0")


def from_frame(frame: bytes) -> bytes:
    """The encoded message in a frame, padded or not. Raises ProtocolError for a frame without an end."""
    data = frame.rstrip(b"\0")
    if data[-1:] != END:
        raise ProtocolError(f"a frame does not follow {SUBPROTOCOL} (it has no end); check both sides' versions")
    return data[:-1]
