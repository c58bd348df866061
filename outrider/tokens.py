"""Text to token ids and back, on the device: the tokenizer, the vocabulary's fingerprint, text from a stream of ids.

Works on the `tokenizer.json` of a model folder, with the `tokenizers` library alone. Ids become bytes and bytes become
text, so a character split over many tokens comes out once and whole, and a long stream costs the same per token as a
short one. Knows nothing about models, sessions or how a template is rendered (`chat_template.py`).
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from outrider.chat_template import render_chat
from outrider.errors import InvalidModel, InvalidParameter
from outrider.manifest import CHAT_TEMPLATE, TOKENIZER, ModelFolder

__all__ = ["TOKENIZER_CONFIG", "StreamDecoder", "TextCodec", "fingerprint", "parse_tokenizer"]

TOKENIZER_CONFIG = "tokenizer_config.json"
PADDING = re.compile(r"\[PAD\d+\]|<unused\d+>|")
SPACE_MARK = "\u2581"


def parse_tokenizer(text: str) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` holds. Raises InvalidModel."""
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001 - the library raises the bare class
        raise InvalidModel(f"its {TOKENIZER} cannot be read ({error}); pull or export the model again") from None


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 over the table of ids and their texts: equal fingerprints, equal text for every id.

    Entries that only fill the table up are left out: some formats carry them and some do not.
    """
    digest = hashlib.sha256()
    for token, token_id in sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda entry: entry[1]):
        if not PADDING.fullmatch(token):
            # formats differ in whether a piece of spaces is written with spaces or with the mark that stands for one
            data = token.replace(SPACE_MARK, " ").encode()
            digest.update(token_id.to_bytes(4, "little") + len(data).to_bytes(4, "little") + data)
    return digest.hexdigest()


class TextCodec:
    """Tokenizer and chat template of one model folder. Raises InvalidModel unless both are as its manifest says."""

    def __init__(self, folder: ModelFolder) -> None:
        self.tokenizer = parse_tokenizer(_pinned_text(folder, TOKENIZER))
        self._template = _pinned_text(folder, CHAT_TEMPLATE) if (folder.path / CHAT_TEMPLATE).exists() else None
        config = json.loads(_pinned_text(folder, TOKENIZER_CONFIG)) if TOKENIZER_CONFIG in folder.manifest.files else {}
        self._marks = {role: _token_text(config.get(role)) for role in ("bos_token", "eos_token")}
        self._pieces = _Pieces(self.tokenizer)

    @property
    def prefix(self) -> bytes:
        """What encoding puts before a text: a space in some vocabularies, nothing in others."""
        return self._pieces.prefix

    @property
    def control_ids(self) -> dict[str, int]:
        """The control tokens by what they are written as, and the one that ends an answer as "eos_token" as well."""
        added = self.tokenizer.get_added_tokens_decoder()
        written = {token.content: token_id for token_id, token in added.items() if token.special}
        end = self._marks["eos_token"]
        return written | ({"eos_token": written[end]} if end in written else {})

    def bytes_of(self, token_id: int) -> bytes:
        """What the token adds to the text: part of a character, perhaps; nothing for control tokens."""
        return self._pieces.of(token_id)

    def encode(self, text: str, *, is_start: bool = True) -> list[int]:
        """The ids of `text`, with the start token where the model wants one and the text `is_start` of the list.
        Raises InvalidParameter."""
        return self._ids(text, add_special_tokens=is_start)

    @property
    def template(self) -> str:
        """The chat template; empty where the model has none."""
        return self._template or ""

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """The ids of a conversation, up to where the model is to answer.

        Each message has a `role` and a `content`; `tools` as for `render_chat`. A model without a chat template gets
        the contents as plain text. Raises InvalidModel when the template fails or asks for too much, InvalidParameter
        for bad text.
        """
        if self._template is None:
            return self.encode("\n\n".join(message["content"] for message in messages))
        return self._ids(render_chat(self._template, messages, tools=tools, **self._marks), add_special_tokens=False)

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of `token_ids`; control tokens and ids without text give nothing, broken bytes give U+FFFD."""
        data = b"".join(map(self._pieces.of, token_ids))
        return data.removeprefix(self._pieces.prefix).decode("utf-8", "replace")

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidParameter("the text holds half a character (a lone surrogate); send it as UTF-8") from None
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids


class StreamDecoder:
    """Text from ids that come one at a time, after a prompt: nothing is emitted before its last byte is there."""

    def __init__(self, codec: TextCodec) -> None:
        self._pieces = codec._pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """The text that `token_id` completes; empty while a character is still open."""
        return self._decoder.decode(self._pieces.of(token_id))

    def flush(self) -> str:
        """What is left of an unfinished character, as U+FFFD; the decoder may be used again."""
        return self._decoder.decode(b"", final=True)


class _Pieces:
    """The bytes of each token id. `prefix` is what encoding puts before a text and decoding a whole text takes away."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = tokenizer.get_added_tokens_decoder()
        self._cache: dict[int, bytes] = {}
        kinds = _decoder_kinds(json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder else None)
        self._is_byte_level = "ByteLevel" in kinds
        if not self._is_byte_level and not kinds & {"ByteFallback", "Metaspace"}:
            raise InvalidModel("its tokenizer is neither byte-level nor SentencePiece, and only those can be decoded")
        self.prefix = b" " if kinds & {"Strip", "Metaspace"} else b""

    def of(self, token_id: int) -> bytes:
        found = self._cache.get(token_id)
        if found is None:
            found = self._cache[token_id] = self._look_up(token_id)
        return found

    def _look_up(self, token_id: int) -> bytes:
        if token_id in self._added:
            content: str = self._added[token_id].content
            return b"" if self._added[token_id].special else content.encode()
        token: str | None = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        if self._is_byte_level:
            return bytes(BYTE_OF[char] for char in token) if BYTE_OF.keys() >= set(token) else token.encode()
        if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", token):
            return bytes([int(token[3:5], 16)])
        return token.replace(SPACE_MARK, " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes each byte as one visible character: itself, or the next free one from U+0100."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


BYTE_OF = _byte_alphabet()


def _decoder_kinds(decoder: dict[str, Any] | None) -> set[str]:
    if decoder is None:
        return set()
    return {decoder["type"]}.union(*(_decoder_kinds(inner) for inner in decoder.get("decoders", [])))


def _pinned_text(folder: ModelFolder, name: str) -> str:
    """The file's text, if it is the file that the manifest names by hash. Raises InvalidModel."""
    try:
        data = (folder.path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() == folder.manifest.files.get(name):
            return data.decode()
    except FileNotFoundError:
        raise InvalidModel(f"{folder.path} holds no {name}; pull or export the model again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModel(f"{folder.path / name} cannot be read ({error}); pull or export the model again") from None
    raise InvalidModel(f"{folder.path / name} is not the file its manifest names; pull or export the model again")


def _token_text(value: Any) -> str:
    """A token in `tokenizer_config.json` is a text, an object with a `content`, or nothing."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""
