"""Every number a device may send: out of its bounds it is a fault, and touches neither engine nor other sessions.

A field that is added to the stream's protocol is found here by itself; the REST doors' have `test_rest.py`.
"""

import math
import random
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from outrider.choice import SamplingParams
from outrider.errors import OutriderError, ProtocolError
from outrider.wire import (
    Cancel,
    Draft,
    Fault,
    Limit,
    Open,
    Opened,
    Up,
    Verified,
    decode_down,
    decode_up,
    encode,
    pack_ids,
)
from tests.cloud_verifier.sockets import ToyService, hear, last_word, say, toy_service
from tests.cloud_verifier.test_verifier import PROMPT, open_message, target_alone

VALID: dict[type, Up] = {
    Open: open_message(),
    Draft: Draft(0, len(PROMPT), pack_ids([1])),
    Limit: Limit(40),
    Cancel: Cancel(),
}
Path = tuple[int, ...]  # where in the message's array; the tag is item 0


def numbers(kind: inspect.Type, path: Path) -> Iterator[tuple[Path, inspect.IntType | inspect.FloatType]]:
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        yield path, kind
    elif isinstance(kind, inspect.StructType):
        first = 0 if kind.tag is None else 1
        for index, field in enumerate(kind.fields):
            yield from numbers(field.type, (*path, first + index))


FIELDS = [(message, path, kind) for message in VALID for path, kind in numbers(inspect.type_info(message), ())]
INTS = [field for field in FIELDS if isinstance(field[2], inspect.IntType)]
FLOATS = [field for field in FIELDS if isinstance(field[2], inspect.FloatType)]


def altered(message: type, path: Path, value: object) -> bytes:
    items = msgspec.msgpack.decode(encode(VALID[message]))
    place = items
    for index in path[:-1]:
        place = place[index]
    place[path[-1]] = value
    return msgspec.msgpack.encode(items)


def name(field: tuple[type, Path, inspect.Type]) -> str:
    return f"{field[0].__name__}{list(field[1])}"


@pytest.mark.parametrize(("decode", "message"), [(decode_up, VALID[Open]), (decode_down, Fault("v", "v"))])
def test_text_that_is_no_text_is_refused(decode: Callable[[bytes], object], message: Up | Fault) -> None:
    data = encode(message).replace(b"\xa1v", b"\xa1\xff")
    assert data != encode(message)
    with pytest.raises(ProtocolError):
        decode(data)


def test_the_fields_are_found() -> None:
    assert set(VALID) == set(Up.__args__)
    assert len(INTS) == 10
    assert len(FLOATS) == 6


@pytest.mark.parametrize("field", INTS, ids=name)
def test_every_whole_number_has_bounds_and_they_are_held(field: tuple[type, Path, inspect.IntType]) -> None:
    message, path, kind = field
    assert kind.ge is not None, "no least value"
    assert kind.le is not None, "no greatest value"
    for value in (kind.ge, kind.le):
        decode_up(altered(message, path, value))
    wrong = [kind.ge - 1, kind.le + 1, -(2**31), -(2**63), 2**31, 2**63, 2**64 - 1, True, False, "1", 1.5, math.nan]
    wrong += [math.inf, None, b"1", [], {}]
    if kind.ge <= -1:
        wrong.append(kind.ge - 2**40)
    for value in wrong:
        if isinstance(value, int) and not isinstance(value, bool) and kind.ge <= value <= kind.le:
            continue
        with pytest.raises(ProtocolError):
            decode_up(altered(message, path, value))


@given(st.sampled_from(INTS), st.integers(-(2**63), 2**64 - 1))
def test_whole_numbers_anywhere(field: tuple[type, Path, inspect.IntType], value: int) -> None:
    message, path, kind = field
    data = altered(message, path, value)
    if kind.ge <= value <= kind.le:
        decode_up(data)
    else:
        with pytest.raises(ProtocolError):
            decode_up(data)


@pytest.mark.parametrize("field", FLOATS, ids=name)
def test_other_numbers_are_finite_and_bounded(field: tuple[type, Path, inspect.FloatType]) -> None:
    message, path, kind = field
    least = kind.gt if kind.ge is None else kind.ge
    for value in (math.nan, math.inf, -math.inf, least - 0.1, 1e308, True, "1", None, b"", []):
        with pytest.raises(OutriderError):
            decode_up(altered(message, path, value)).params.sampling()


@pytest.fixture(scope="module")
def service() -> Iterator[ToyService]:
    with toy_service() as service:
        yield service


BAD_IDS = [16, 2**31 - 1, 2**31, 2**32 - 1]  # ids are unsigned 32-bit; -1 is 2**32 - 1


def biased(token_id: int) -> bytes:
    params = msgspec.structs.replace(VALID[Open].params, bias_ids=pack_ids([token_id]), biases=[1.0])
    return encode(msgspec.structs.replace(VALID[Open], params=params))


def lies() -> list[tuple[str, bytes, str]]:
    """(name, message, code): one for every whole number at each edge, and for every list of ids."""
    found = [
        (f"{name(field)}={value!r}", altered(field[0], field[1], value), "protocol")
        for field in INTS
        for value in (field[2].ge - 1, field[2].le + 1, 2**63, True, "1", math.nan)
    ]
    for bad in BAD_IDS:
        found += [
            (f"prompt {bad}", encode(open_message([1, bad])), "invalid_token"),
            (f"bias {bad}", biased(bad), "invalid_token"),
            (f"stop {bad}", encode(open_message(stop_ids=pack_ids([bad]))), "invalid_token"),
            (f"draft {bad}", encode(Draft(0, len(PROMPT), pack_ids([bad]))), "invalid_token"),
        ]
    for half in (b"\1", b"\1\0\0", b"\1\0\0\0\2"):
        found += [
            (f"prompt {half!r}", encode(open_message(token_ids=half)), "protocol"),
            (f"stop {half!r}", encode(open_message(stop_ids=half)), "protocol"),
            (f"draft {half!r}", encode(Draft(0, len(PROMPT), half)), "protocol"),
        ]
    return found


def test_a_lie_in_any_field_is_a_fault_and_moves_neither_engine_nor_others(service: ToyService) -> None:
    """Over sockets; beside a session that waits, and then goes on as if nothing had been said."""
    seed = 7
    print("seed", seed)
    said = lies()
    random.Random(seed).shuffle(said)
    with service.stream() as other:
        say(other, open_message(patience_ms=-1))
        assert isinstance(hear(other), Opened)
        assert isinstance(hear(other), Verified)
        passes = service.engine.num_passes
        for told, message, code in said:
            is_first = message[1] == 1  # an Open; all else needs a session, one that waits for drafts at its limit
            with service.stream() as stream:
                if not is_first:
                    say(stream, open_message(patience_ms=-1))
                    assert isinstance(hear(stream), Opened)
                    assert isinstance(hear(stream), Verified)
                    passes += 1
                stream.send(message + b"\x80")
                fault = last_word(stream)[1]
                assert isinstance(fault, Fault), told
                assert (fault.code, fault.may_retry) == (code, False), told
        assert service.engine.num_passes == passes
        truth = target_alone()
        say(other, Draft(0, len(PROMPT) + 1, pack_ids(truth[1:9])))
        tokens: list[int] = []
        while len(tokens) < 5:
            message = hear(other)
            assert isinstance(message, Verified)
            tokens += [
                int.from_bytes(message.token_ids[i : i + 4], "little") for i in range(0, len(message.token_ids), 4)
            ]
        assert tokens == truth[1 : 1 + len(tokens)]


def test_the_greatest_id_is_served(service: ToyService) -> None:
    with service.stream() as stream:
        say(stream, open_message([1, 15], stop_ids=pack_ids([15]), params=SamplingParams()))
        assert isinstance(last_word(stream)[1], Verified)


def test_no_probabilities_travel() -> None:
    """The only fractions a device sends are the sampling's own parameters."""
    params = 1 + Open.__struct_fields__.index("params")  # after the tag
    assert FLOATS
    assert all(field[0] is Open and field[1][0] == params for field in FLOATS)
