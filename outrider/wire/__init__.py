"""The messages between a device and a verifier, and nothing about how they travel.

msgpack arrays with an integer tag, decoded strictly: unknown fields, wrong types and values out of bounds are refused
before anything acts on them. Positions are absolute. Token ids travel as 4 little-endian bytes each, so that the length
of a message tells how many tokens it holds and nothing of which; padding hides that, too (`framing.py`).

    up      Open, Draft, Limit, Cancel
    down    Opened, Verified, Load, Fault
"""

# What its modules say is theirs is the package's: each name stands in one list.
from outrider.wire import coding, messages, packing, params
from outrider.wire.coding import *  # noqa: F403
from outrider.wire.fields import MAX_DRAFTS, MAX_LOGPROBS, MAX_POSITION
from outrider.wire.messages import *  # noqa: F403
from outrider.wire.packing import *  # noqa: F403
from outrider.wire.params import *  # noqa: F403

__all__ = ["MAX_DRAFTS", "MAX_LOGPROBS", "MAX_POSITION"]
__all__ += coding.__all__ + messages.__all__ + packing.__all__ + params.__all__
