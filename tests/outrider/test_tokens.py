import json
import random
from pathlib import Path
from typing import Any

import pytest

from outrider import catalog
from outrider.errors import InvalidModel, InvalidParameter
from outrider.manifest import ModelFolder, Source, file_sha256
from outrider.tokens import StreamDecoder, TextCodec, fingerprint, parse_tokenizer
from tests.toy_gguf import spm_metadata, toy_metadata, write_model

TEXTS = [
    "hello hello  hello",
    "def f(x):\n\treturn x**2  # ünï\r\n\r\n   pass\n",
    "日本語のテキスト、中文。 한국어",
    "👩‍👩‍👧‍👦🏳️‍🌈 emoji 🎉",
    "1234567890 3.14159 ١٢٣",
    "   lead  and   trailing   ",
    "a\x00b\x7f",
    "",
]


def install(tmp_path: Path, metadata: dict[str, Any]) -> ModelFolder:
    file = write_model(tmp_path / "m" / "m.gguf", metadata)
    return catalog.install_gguf(file, file.parent, name="m", licence="none", source=Source("m", file_sha256(file)))


@pytest.mark.parametrize(
    "metadata", [toy_metadata(), spm_metadata(), spm_metadata(tokenizer__ggml__add_space_prefix=True)]
)
@pytest.mark.parametrize("text", TEXTS)
def test_decode_gives_the_text_back(text: str, metadata: dict[str, Any], tmp_path: Path) -> None:
    codec = TextCodec(install(tmp_path, metadata))
    ids = codec.encode(text)
    assert codec.decode(ids) == text
    assert codec.tokenizer.decode(ids) == text


def test_merges_are_followed(tmp_path: Path) -> None:
    codec = TextCodec(install(tmp_path, toy_metadata()))
    assert [codec.tokenizer.id_to_token(i) for i in codec.encode("hello hello")] == ["hello", "\u0120hello"]


def test_sentence_piece_merges_follow_the_scores(tmp_path: Path) -> None:
    codec = TextCodec(install(tmp_path, spm_metadata()))
    tokens = [codec.tokenizer.id_to_token(i) for i in codec.encode("hello hello é")]
    assert tokens == ["<s>", "hello", "\u2581hello", "\u2581", "<0xC3>", "<0xA9>"]


@pytest.mark.parametrize("metadata", [toy_metadata(), spm_metadata()])
def test_stream_gives_whole_characters_only(metadata: dict[str, Any], tmp_path: Path) -> None:
    codec = TextCodec(install(tmp_path, metadata))
    for text in TEXTS:
        stream = StreamDecoder(codec)
        pieces = [stream.feed(token_id) for token_id in codec.encode(text)]
        assert "".join(pieces) + stream.flush() == text
        assert not any("\ufffd" in piece for piece in pieces)


def test_stream_and_decode_agree_on_any_ids(tmp_path: Path) -> None:
    codec = TextCodec(install(tmp_path, toy_metadata()))
    chance = random.Random(1)
    for _ in range(100):
        ids = [chance.randrange(280) for _ in range(40)]
        stream = StreamDecoder(codec)
        assert "".join(map(stream.feed, ids)) + stream.flush() == codec.decode(ids)


def test_broken_bytes_become_the_replacement_character(tmp_path: Path) -> None:
    codec = TextCodec(install(tmp_path, toy_metadata()))
    half = codec.encode("é")[:1]
    stream = StreamDecoder(codec)
    assert stream.feed(half[0]) == ""
    assert stream.flush() == "\ufffd"
    assert codec.decode(half) == "\ufffd"


def test_control_tokens_and_unknown_ids_have_no_text(tmp_path: Path) -> None:
    codec = TextCodec(install(tmp_path, toy_metadata()))
    assert codec.encode("<|im_start|>hello<tool>")[0] == 1
    assert codec.decode(codec.encode("<|im_start|>hello<tool>")) == "hello<tool>"
    assert codec.decode([10_000, 0]) == ""


def test_chat(tmp_path: Path) -> None:
    codec = TextCodec(install(tmp_path, toy_metadata()))
    ids = codec.encode_chat([{"role": "user", "content": "hello"}])
    assert ids == codec.encode("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
    assert ids.count(1) == 2


def test_chat_without_a_template_is_plain_text(tmp_path: Path) -> None:
    codec = TextCodec(install(tmp_path, spm_metadata()))
    messages = [{"role": "system", "content": "he"}, {"role": "user", "content": "hello"}]
    assert codec.encode_chat(messages) == codec.encode("he\n\nhello")


@pytest.mark.parametrize("file", ["tokenizer.json", "chat_template.jinja"])
def test_a_file_that_the_manifest_does_not_pin_is_refused(file: str, tmp_path: Path) -> None:
    folder = install(tmp_path, toy_metadata())
    (folder.path / file).write_text((folder.path / file).read_text() + " ")
    with pytest.raises(InvalidModel, match="not the file its manifest names"):
        TextCodec(folder)


def test_half_a_surrogate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter):
        TextCodec(install(tmp_path, toy_metadata())).encode("\ud800")


def test_bad_tokenizer_is_refused() -> None:
    with pytest.raises(InvalidModel, match=r"tokenizer\.json"):
        parse_tokenizer("{}")


def test_fingerprint_leaves_padding_out_and_sees_a_changed_token(tmp_path: Path) -> None:
    folder = install(tmp_path, toy_metadata())
    content = json.loads((folder.path / "tokenizer.json").read_text())
    tokens = folder.manifest.n_vocab
    assert fingerprint(parse_tokenizer(json.dumps(content))) == folder.manifest.tokenizer_fingerprint
    content["model"]["vocab"] |= {"[PAD7]": tokens + 7, "<unused3>": tokens + 8}
    assert fingerprint(parse_tokenizer(json.dumps(content))) == folder.manifest.tokenizer_fingerprint
    content["model"]["vocab"] |= {"new": tokens + 9}
    assert fingerprint(parse_tokenizer(json.dumps(content))) != folder.manifest.tokenizer_fingerprint


@pytest.mark.weights
@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"])
def test_real_tokenizers_agree_with_the_native_one(name: str) -> None:
    import llama_cpp

    folder = catalog.find(name)
    codec = TextCodec(folder)
    native = llama_cpp.Llama(str(folder.model_file), vocab_only=True, verbose=False)
    chat = codec.encode_chat([{"role": "user", "content": "Write a poem."}])
    start = codec.encode("<|im_start|>assistant\n")
    assert chat[-len(start) :] == start
    assert native.detokenize(chat, special=True).decode().endswith("<|im_start|>assistant\n")
    for text in TEXTS:
        ids = codec.encode(text)
        assert ids == native.tokenize(text.encode(), add_bos=False, special=True)
        assert codec.decode(ids) == text
        stream = StreamDecoder(codec)
        assert "".join(map(stream.feed, ids)) + stream.flush() == text
    native.close()
