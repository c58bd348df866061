"""Messages: small, strict, and never a surprise."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from outrider.choice import SamplingParams
from outrider.constraint import Grammar
from outrider.errors import InvalidParameter, ProtocolError
from outrider.rejection import distribution
from outrider.wire import (
    Cancel,
    Draft,
    Fault,
    Limit,
    LocalDraft,
    Open,
    Opened,
    Params,
    Search,
    Verified,
    decode_down,
    decode_up,
    encode,
    pack_ids,
    unpack_ids,
)

SAMPLING = SamplingParams(
    temperature=0.8,
    top_k=40,
    top_p=0.9,
    min_p=0.1,
    seed=2**63 - 1,
    repetition_penalty=1.3,
    frequency_penalty=-2.0,
    presence_penalty=0.1,
    logit_bias=((151935, -100.0), (0, 1 / 3)),
    min_tokens=7,
    grammar=Grammar("regex", "(ja|nein|ő)*"),
    num_prompt=2**24,
)
PARAMS = Params.of(SAMPLING)
UP = [
    Open("v", "t", PARAMS, 100, -1, pack_ids([1]), pack_ids([5, 6, 7])),
    Open("v", "t", PARAMS, 100, -1, pack_ids([1]), pack_ids([5]), search=Search(4, -0.5, 1)),
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
    assert decode_up(encode(UP[0])).params.sampling() == SAMPLING
    assert Params.of(SamplingParams()).sampling() == SamplingParams()


def test_what_rejection_needs_does_not_travel() -> None:
    rejecting = replace(UP[0], params=Params.of(SamplingParams(temperature=1.0, acceptance="rejection")))
    with pytest.raises(InvalidParameter, match="rejection"):
        decode_up(encode(rejecting))
    drawn_from = distribution(np.zeros(3, np.float32), SamplingParams(temperature=1.0))
    draft = LocalDraft(3, 17, pack_ids([1]), distributions=[drawn_from])
    with pytest.raises(InvalidParameter, match="rejection"):
        encode(draft)
    assert "0.33" not in repr(draft)


def test_params_of_an_older_device_leave_the_rest_at_rest() -> None:
    items = msgspec.msgpack.decode(encode(UP[0]))
    items[3] = items[3][:5]
    old = decode_up(msgspec.msgpack.encode(items)).params.sampling()
    assert old == SamplingParams(temperature=0.8, top_k=40, top_p=0.9, min_p=0.1, seed=2**63 - 1)
    assert not old.adjusts


NO_NUMBER = [True, "1", None, [], float("nan"), float("inf"), 2**64 - 1]
OUT_OF_BOUNDS = {  # by their place in Params
    "temperature": (0, [-0.1, 100.1, *NO_NUMBER]),
    "top_k": (1, [-1, 2**31, 1.5, *NO_NUMBER]),
    "top_p": (2, [0.0, 1.1, *NO_NUMBER]),
    "min_p": (3, [-0.1, 1.1, *NO_NUMBER]),
    "seed": (4, [-1, 2**63, 1.5, *NO_NUMBER]),
    "repetition_penalty": (5, [0.0, -1.0, 100.1, *NO_NUMBER]),
    "frequency_penalty": (6, [-2.1, 2.1, *NO_NUMBER]),
    "presence_penalty": (7, [-2.1, 2.1, *NO_NUMBER]),
    "bias_ids": (8, [bytes(4 * 1025), [1], "1", None]),
    "biases": (9, [[0.0] * 1025, [100.1, 0.0], [-100.1, 0.0], *[[value, 0.0] for value in NO_NUMBER], b"", None]),
    "min_tokens": (10, [-1, 2**24 + 1, 1.5, *NO_NUMBER]),
    "grammar_kind": (11, ["x" * 17, b"", 1, None]),
    "grammar": (12, ["x" * 65537, b"", 1, None]),
    "num_prompt": (13, [-1, 2**24 + 1, 1.5, *NO_NUMBER]),
    "acceptance": (14, ["x" * 17, "perhaps", "rejection", b"", 1, None]),
}


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_params_out_of_bounds_are_refused(name: str) -> None:
    place, values = OUT_OF_BOUNDS[name]
    for value in values:
        items = msgspec.msgpack.decode(encode(UP[0]))
        assert len(items[3]) == len(OUT_OF_BOUNDS)
        items[3][place] = value
        with pytest.raises((ProtocolError, InvalidParameter)):
            pytest.fail(f"{value!r} is let in: {decode_up(msgspec.msgpack.encode(items)).params.sampling()}")


@pytest.mark.parametrize(
    ("place", "values"),
    [
        (0, [0, 17, -1, 1.5, *NO_NUMBER]),
        (1, [10.5, -10.5, *NO_NUMBER]),
        (2, [0, 17, -1, 1.5, 2, *NO_NUMBER]),
    ],
    ids=["beams", "length penalty", "answers"],
)
def test_searches_out_of_bounds_are_refused(place: int, values: list[object]) -> None:
    for value in values:
        items = msgspec.msgpack.decode(encode(UP[1]))
        assert items[-1] == [4, -0.5, 1]
        items[-1][place] = value
        with pytest.raises((ProtocolError, InvalidParameter)):
            pytest.fail(f"{value!r} is let in: {decode_up(msgspec.msgpack.encode(items)).search.params()}")


@given(st.data())
def test_whatever_params_are_let_in_are_sampling_params_and_come_back(data: st.DataObject) -> None:
    """Or they are refused with an error of ours: nothing in between."""
    number = st.floats() | st.integers(-(2**63), 2**64 - 1)
    few = st.lists(number, max_size=3)
    values = [number] * 8 + [st.binary(max_size=12), few, number, st.sampled_from(["", "regex"]), st.text(), number]
    values.append(st.sampled_from(["coupled", "rejection"]))
    items = msgspec.msgpack.decode(encode(UP[0]))
    for place in data.draw(st.sets(st.integers(0, 14), max_size=4)):
        items[3][place] = data.draw(values[place])
    try:
        params = decode_up(msgspec.msgpack.encode(items)).params
        sampling = params.sampling()
    except (ProtocolError, InvalidParameter):
        return
    assert Params.of(sampling) == params


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
def test_numbers_out_of_bounds_are_refused(field: int) -> None:
    for value in (-1, 2**31, 2**63, True, "1", 1.5, None):
        items = [2, 3, 17, pack_ids([1]), b""]
        items[1 + field] = value
        with pytest.raises(ProtocolError):
            pytest.fail(f"{value!r} is let in: {decode_up(msgspec.msgpack.encode(items))}")


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
