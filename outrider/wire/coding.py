"""Messages to bytes and back, strictly; and where a stream of them is spoken."""

from typing import TypeVar

import msgspec

from outrider.errors import InvalidParameter, ProtocolError
from outrider.rejection import REJECTION
from outrider.wire.messages import Down, Open, Up

__all__ = ["MAX_MESSAGE_BYTES", "STREAM_PATH", "SUBPROTOCOL", "decode_down", "decode_up", "encode"]

SUBPROTOCOL = "outrider.v1"
STREAM_PATH = "/v1/stream"
MAX_MESSAGE_BYTES = 8 * 2**20  # an Open with two million tokens; every other message is far smaller

T = TypeVar("T")


def _stays_here(thing: object) -> object:
    """What an encoder and a decoder make of what only a link within the process carries."""
    raise InvalidParameter("acceptance by rejection needs target and drafter in one process; leave it out here")


_encoder = msgspec.msgpack.Encoder(enc_hook=_stays_here)
_up_decoder: msgspec.msgpack.Decoder[Up] = msgspec.msgpack.Decoder(Up)
_down_decoder: msgspec.msgpack.Decoder[Down] = msgspec.msgpack.Decoder(Down)


def encode(message: Up | Down) -> bytes:
    return _encoder.encode(message)


def decode_up(data: bytes) -> Up:
    """What a device said. Raises ProtocolError for anything that is not exactly one valid message, InvalidParameter
    for an acceptance that needs what does not travel."""
    message = _decode(_up_decoder, data)
    if isinstance(message, Open) and message.params.acceptance == REJECTION:
        _stays_here(message)
    return message


def decode_down(data: bytes) -> Down:
    """What a verifier said. Raises ProtocolError for anything that is not exactly one valid message."""
    return _decode(_down_decoder, data)


def _decode(decoder: "msgspec.msgpack.Decoder[T]", data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"a message does not follow {SUBPROTOCOL} ({error}); check both sides' versions") from None
