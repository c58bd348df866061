"""The messages between a device and a verifier, and nothing about how they travel.

msgpack arrays with an integer tag, decoded strictly: unknown fields, wrong types and values out of bounds are refused
before anything acts on them. Positions are absolute. Token ids travel as 4 little-endian bytes each, so that the length
of a message tells how many tokens it holds and nothing of which; padding hides that, too (`framing.py`).

    up      Open, Draft, Limit, Cancel
    down    Opened, Verified, Load, Fault
"""

from outrider.wire.coding import MAX_MESSAGE_BYTES, STREAM_PATH, SUBPROTOCOL, decode_down, decode_up, encode
from outrider.wire.fields import MAX_DRAFTS, MAX_LOGPROBS, MAX_POSITION
from outrider.wire.messages import (
    Cancel,
    Down,
    Draft,
    Fault,
    Limit,
    Load,
    LocalDraft,
    Logprobs,
    Open,
    Opened,
    Up,
    Verified,
)
from outrider.wire.packing import pack_ids, pack_parents, unpack_ids, unpack_parents
from outrider.wire.params import Params, Search

__all__ = [
    "MAX_DRAFTS",
    "MAX_LOGPROBS",
    "MAX_MESSAGE_BYTES",
    "MAX_POSITION",
    "STREAM_PATH",
    "SUBPROTOCOL",
    "Cancel",
    "Down",
    "Draft",
    "Fault",
    "Limit",
    "Load",
    "LocalDraft",
    "Logprobs",
    "Open",
    "Opened",
    "Params",
    "Search",
    "Up",
    "Verified",
    "decode_down",
    "decode_up",
    "encode",
    "pack_ids",
    "pack_parents",
    "unpack_ids",
    "unpack_parents",
]
