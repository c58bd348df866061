"""A receipt is valid as it was signed, and in no other way."""

import hashlib
import sys
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_verifier.signing import Signer
from edge_runtime.links import InProcessLink
from outrider.choice import SamplingParams
from outrider.errors import InvalidReceipt, MissingExtra
from outrider.receipt import DOMAIN, Receipt, Run, Statement, check, key_name, state, to_sign
from tests.signing import PROMPT, SAMPLED, generate, signer, signing_loop


@pytest.fixture(scope="module")
def own() -> Signer:
    return signer()


@pytest.fixture(scope="module")
def data(own: Signer) -> bytes:
    loop = signing_loop(own)
    try:
        truth = generate(InProcessLink(loop)).token_ids
        return generate(InProcessLink(loop), drafts=[*truth[:5], (truth[5] + 1) % 16]).receipt()
    finally:
        loop.close()


def test_a_receipt_is_valid_and_says_what_it_covers(data: bytes, own: Signer) -> None:
    receipt = check(data, own.public_key.hex())
    statement = receipt.statement
    assert statement.target == receipt.models.target == "t"
    assert statement.params == {"temperature": 1.0, "top_p": 0.95, "seed": 3}
    assert (statement.start, len(statement.token_ids), statement.finish) == (3, 12, "length")
    assert statement.context_sha256 == hashlib.sha256(b"\1\0\0\0\2\0\0\0\3\0\0\0").hexdigest()
    assert (receipt.counts.drafted, receipt.counts.accepted, receipt.counts.corrected) == (5, 4, 8)
    assert receipt.provenance == [Run("target", 1), Run("scripted", 4), Run("target", 7)]
    assert receipt.energy.joules is None
    assert check(data, own.public_key.hex().upper()) == receipt
    assert b"\n" not in data[:-1]


def test_every_byte_of_the_signed_part_counts(data: bytes) -> None:
    """Each bit of each: what then still reads as a receipt is refused."""
    signed = bytes(check(data).signed)
    begin = data.index(signed)
    for place in range(begin, begin + len(signed)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            with pytest.raises(InvalidReceipt):
                check(bytes(changed))


def other(value: object) -> object:
    """Another value of the same kind."""
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, list):
        return [*value[:-1], value[-1] + 1]
    if isinstance(value, dict):
        return {**value, "seed": 4}
    assert isinstance(value, int)
    return value + 1


@pytest.mark.parametrize("name", Statement.__struct_fields__)
def test_every_signed_field_counts(data: bytes, name: str) -> None:
    receipt = check(data)
    changed = msgspec.structs.replace(receipt.statement, **{name: other(getattr(receipt.statement, name))})
    with pytest.raises(InvalidReceipt, match="was changed"):
        check(rewritten(receipt, signed=msgspec.Raw(to_sign(changed))))


@pytest.mark.parametrize(
    "change",
    [
        lambda params: {**params, "temperature": 0.5},
        lambda params: {**params, "top_p": 0.5},
        lambda params: {**params, "top_k": 5},
        lambda params: {**params, "min_p": 0.1},
        lambda params: {name: value for name, value in params.items() if name != "seed"},
        lambda params: {},
    ],
)
def test_every_parameter_counts(data: bytes, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    receipt = check(data)
    changed = msgspec.structs.replace(receipt.statement, params=change(receipt.statement.params))
    with pytest.raises(InvalidReceipt, match="was changed"):
        check(rewritten(receipt, signed=msgspec.Raw(to_sign(changed))))


def test_tokens_may_not_be_left_out_added_or_moved(data: bytes) -> None:
    receipt = check(data)
    ids = receipt.statement.token_ids
    for token_ids in (ids[:-1], [*ids, 0], [*ids[1:], ids[0]], []):
        changed = msgspec.structs.replace(receipt.statement, token_ids=token_ids)
        with pytest.raises(InvalidReceipt, match="was changed"):
            check(rewritten(receipt, signed=msgspec.Raw(to_sign(changed))))


def rewritten(receipt: Receipt, **changes: object) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(receipt, **changes))


def test_figures_may_not_contradict_what_was_signed(data: bytes) -> None:
    receipt = check(data)
    counts, runs = receipt.counts, receipt.provenance
    assert check(rewritten(receipt)) == receipt
    fewer = rewritten(receipt, counts=msgspec.structs.replace(counts, drafted=0))
    assert check(fewer).counts.accepted == counts.accepted  # what was shown offline and then agreed with was in no pass
    for name in ("prompt", "tokens", "accepted", "corrected", "provisional"):
        more = msgspec.structs.replace(counts, **{name: getattr(counts, name) + 1})
        with pytest.raises(InvalidReceipt, match="contradict"):
            check(rewritten(receipt, counts=more))
    for changes in (
        {"provenance": runs[:-1]},
        {"provenance": [Run("target", 12)]},
        {"provenance": [Run("scripted", 4, is_verified=False), Run("target", 8)]},
        {"earlier_ids": [1]},
        {"models": msgspec.structs.replace(receipt.models, target="u")},
    ):
        with pytest.raises(InvalidReceipt, match="contradict"):
            check(rewritten(receipt, **changes))


def test_another_key_is_not_accepted(data: bytes, own: Signer) -> None:
    receipt = check(data)
    stranger = signer()
    with pytest.raises(InvalidReceipt, match="another key"):
        check(data, stranger.public_key.hex())
    with pytest.raises(InvalidReceipt, match="was changed"):
        check(rewritten(receipt, public_key=stranger.public_key.hex()))
    forged = rewritten(receipt, public_key=stranger.public_key.hex(), signature=stranger.sign(receipt.statement).hex())
    check(forged)  # a key of its own proves nothing ...
    with pytest.raises(InvalidReceipt, match="another key"):
        check(forged, own.public_key.hex())  # ... which is why it is compared
    assert key_name(own.public_key.hex()) != key_name(stranger.public_key.hex())


@pytest.mark.parametrize(
    "changes",
    [
        {"public_key": ""},
        {"public_key": "00"},
        {"public_key": "no digits"},
        {"public_key": "00" * 32},
        {"signature": ""},
        {"signature": "ff" * 64},
        {"signature": "é"},
    ],
)
def test_malformed_keys_and_signatures(data: bytes, changes: dict[str, str]) -> None:
    with pytest.raises(InvalidReceipt, match="was changed"):
        check(rewritten(check(data), **changes))


def test_an_unsigned_receipt_is_not_valid() -> None:
    loop = signing_loop(None)
    try:
        generated = generate(InProcessLink(loop))
    finally:
        loop.close()
    assert (generated.opened.public_key, generated.signature) == (b"", b"")
    with pytest.raises(InvalidReceipt, match="nobody signed"):
        check(generated.receipt())


@given(junk=st.binary(max_size=300), cut=st.integers(0, 2000))
def test_what_is_no_receipt_is_refused(data: bytes, junk: bytes, cut: int) -> None:
    for wrong in (junk, data[:cut], data[:cut] + junk, b"[" * cut, b'{"signed":' * cut):
        if wrong.strip() != data.strip():
            with pytest.raises(InvalidReceipt):
                check(wrong)


@pytest.mark.parametrize(
    "params",
    ['{"seed":1e400}', f'{{"seed":{2**80}}}', f'{{"seed":{"[" * 900}1{"]" * 900}}}', r'{"\ud800":1}', "[]", "null"],
)
def test_strange_values_are_refused(data: bytes, params: str) -> None:
    signed = bytes(check(data).signed)
    begin, end = signed.index(b'"params":') + 9, signed.index(b',"start"')
    with pytest.raises(InvalidReceipt):
        check(data.replace(signed, signed[:begin] + params.encode() + signed[end:]))


def test_the_signature_means_nothing_without_its_domain(data: bytes, own: Signer) -> None:
    receipt = check(data)
    bare = own._key.sign(bytes(receipt.signed)).hex()
    with pytest.raises(InvalidReceipt, match="was changed"):
        check(rewritten(receipt, signature=bare))
    assert own._key.sign(DOMAIN + bytes(receipt.signed)).hex() == receipt.signature


def test_equal_parameters_are_written_alike() -> None:
    """Whole numbers where fractions belong, and a zero below zero."""
    exact = state("t", "v", SamplingParams(temperature=1.0, min_p=0.0), PROMPT, [1], "stop")
    loose = state("t", "v", SamplingParams(temperature=1, min_p=-0.0), PROMPT, [1], "stop")
    assert to_sign(exact) == to_sign(loose)
    assert to_sign(exact) != to_sign(state("t", "v", SAMPLED, PROMPT, [1], "stop"))


def test_without_the_library_it_says_what_to_install(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules, "cryptography"]:
        if name.partition(".")[0] == "cryptography":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"outrider\[server\]"):
        check(data)
