"""Messages: small, strict, and never a surprise."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.choice import SamplingParams
from outrider.errors import ProtocolError
from outrider.wire import (
    Cancel,
    Draft,
    Fault,
    Limit,
    Open,
    Opened,
    Params,
    Verified,
    decode_down,
    decode_up,
    encode,
    pack_ids,
    unpack_ids,
)

PARAMS = Params.of(SamplingParams(temperature=0.8, top_k=40, top_p=0.9, min_p=0.1, seed=2**63 - 1))
UP = [
    Open("v", "t", PARAMS, 100, -1, pack_ids([1]), pack_ids([5, 6, 7])),
    Draft(3, 17, pack_ids([1, 2, 151935]), b"\x01\xff\x80"),
    Limit(9),
    Cancel(),
]
DOWN = [
    Opened("s", "t", "v", 151936, 4096, 100, 3),
    Verified(3, 17, pack_ids([1]), 0, 4, "stop"),
    Fault("bad_logits", "a sentence", True),
]


@pytest.mark.parametrize("message", UP, ids=lambda m: type(m).__name__)
def test_up_comes_back(message: object) -> None:
    assert decode_up(encode(message)) == message


@pytest.mark.parametrize("message", DOWN, ids=lambda m: type(m).__name__)
def test_down_comes_back(message: object) -> None:
    assert decode_down(encode(message)) == message


def test_params_come_back_whole() -> None:
    assert PARAMS.sampling() == SamplingParams(temperature=0.8, top_k=40, top_p=0.9, min_p=0.1, seed=2**63 - 1)


def test_the_two_directions_are_not_confused() -> None:
    for message in DOWN:
        with pytest.raises(ProtocolError):
            decode_up(encode(message))
    for message in UP:
        with pytest.raises(ProtocolError):
            decode_down(encode(message))


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    try:
        message = decode_up(data)
    except ProtocolError:
        return
    assert encode(message)  # it happened to be a message


@pytest.mark.parametrize("message", [*UP, *DOWN], ids=lambda m: type(m).__name__)
def test_truncated_extended_and_altered_messages_are_refused(message: object) -> None:
    decode = decode_up if message in UP else decode_down
    data = encode(message)
    for length in range(len(data)):
        with pytest.raises(ProtocolError):
            decode(data[:length])
    with pytest.raises(ProtocolError):
        decode(data + b"\x00")
    items = msgspec.msgpack.decode(data)
    with pytest.raises(ProtocolError):
        decode(msgspec.msgpack.encode([*items, *[None] * 10]))


@pytest.mark.parametrize("field", [0, 1])
@pytest.mark.parametrize("value", [-1, 2**31, 2**63, True, "1", 1.5, None])
def test_numbers_out_of_bounds_are_refused(field: int, value: object) -> None:
    items = [2, 3, 17, pack_ids([1]), b""]
    items[1 + field] = value
    with pytest.raises(ProtocolError):
        decode_up(msgspec.msgpack.encode(items))


def test_too_many_drafts_are_refused() -> None:
    assert decode_up(encode(Draft(0, 0, pack_ids([1] * 256))))
    with pytest.raises(ProtocolError):
        decode_up(encode(Draft(0, 0, pack_ids([1] * 257))))


def test_a_nested_bomb_is_refused() -> None:
    with pytest.raises(ProtocolError):
        decode_up(b"\x91" * 100_000)


def test_half_an_id_is_refused() -> None:
    with pytest.raises(ProtocolError):
        unpack_ids(b"\x01\x02\x03")


def test_a_draft_s_length_tells_only_how_many_ids_it_holds() -> None:
    sizes = {len(encode(Draft(3, 500, pack_ids(ids), b"1234"))) for ids in ([0, 1, 2, 3], [151935] * 4)}
    assert len(sizes) == 1
    assert len(encode(Draft(3, 500, pack_ids([151935] * 8), b"12345678"))) <= 64 - 6
