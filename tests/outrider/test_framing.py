"""Frames: a message comes back from one, and its size tells no more than it must."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.choice import SamplingParams
from outrider.errors import ProtocolError
from outrider.framing import FRAME_BYTES, PAGE_BYTES, from_frame, to_frame
from outrider.wire import Draft, Open, Params, decode_up, encode, pack_ids


@given(st.lists(st.integers(0, 2**32 - 1), max_size=256), st.booleans())
def test_a_message_comes_back(token_ids: list[int], is_padded: bool) -> None:
    """Also one whose own last bytes are zeros, or the byte that ends it."""
    for tail in (b"", b"\x00", b"\x80", b"\x80\x00"):
        draft = Draft(0, 7, pack_ids(token_ids), bytes(len(token_ids)), tail)
        assert decode_up(from_frame(to_frame(draft, is_padded=is_padded))) == draft


def test_a_pass_of_drafts_has_the_size_of_a_draft_of_nothing() -> None:
    for count in range(32):
        full = Draft(2**31 - 1, 2**24, pack_ids([2**32 - 1] * count), b"\xff" * count)
        assert len(to_frame(full, is_padded=True)) == FRAME_BYTES
        assert len(to_frame(full, is_padded=False)) == len(encode(full)) + 1


@pytest.mark.parametrize("length", [50, 900, 1100, 5000])
def test_what_is_longer_takes_whole_pages(length: int) -> None:
    message = Open("v", "t", Params.of(SamplingParams()), 2**24, 0, b"", pack_ids(range(length)))
    frame = to_frame(message, is_padded=True)
    assert len(frame) % PAGE_BYTES == 0
    assert 0 <= len(frame) - len(encode(message)) - 1 < PAGE_BYTES


@pytest.mark.parametrize("frame", [b"", b"\0" * FRAME_BYTES, b"\x93\x02\x00"])
def test_a_frame_without_end_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match="no end"):
        from_frame(frame)
