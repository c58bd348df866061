"""Builds a Hugging Face `tokenizer.json` from the vocabulary that a GGUF file carries.

Two families are known: byte-level BPE ("gpt2") with the word splitters named in SPLITTERS, and SentencePiece BPE
("llama"), whose merges follow from the scores. Anything else is refused rather than guessed. Knows no file layout
beyond the metadata it is given and writes nothing.
"""

from typing import Any

from outrider.errors import InvalidModel

__all__ = ["special_token", "tokenizer_json"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

# Qwen2: contractions, words with one leading mark, single digits, marks, line ends, white space
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

# `tokenizer.ggml.pre` -> the normalizer and the splitters before BPE
SPLITTERS: dict[str, tuple[dict[str, Any] | None, list[dict[str, Any]]]] = {
    "qwen2": (
        {"type": "NFC"},
        [
            {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": False},
            BYTE_LEVEL | {"use_regex": False},
        ],
    ),
    "smollm": (None, [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]),
    "gpt-2": (None, [BYTE_LEVEL]),
    "default": (None, [BYTE_LEVEL]),
}


def tokenizer_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer as the object that `tokenizer.json` holds. Raises InvalidModel when it cannot be built."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise InvalidModel(
            f"its tokenizer is of the kind {kind!r}, and only byte-level BPE and SentencePiece BPE can be read "
            "from a GGUF file; use the model's Hugging Face folder"
        )
    tokens = _list_of(metadata, "tokenizer.ggml.tokens", str)
    types = _list_of(metadata, "tokenizer.ggml.token_type", int, default=[NORMAL] * len(tokens))
    if len(types) != len(tokens):
        raise InvalidModel(f"it has {len(tokens)} tokens and {len(types)} token types; download it again")
    vocab = {token: i for i, token in enumerate(tokens) if types[i] != UNUSED}
    if len(vocab) != len(tokens) - types.count(UNUSED):
        raise InvalidModel("two of its token ids stand for the same text; use the model's Hugging Face folder")
    parts = _byte_level(metadata, vocab) if kind == "gpt2" else _sentence_piece(metadata, tokens, types, vocab)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added_token(token, i, special=types[i] == CONTROL)
            for token, i in vocab.items()
            if types[i] in (CONTROL, USER_DEFINED)
        ],
        "post_processor": _start_token(metadata, tokens),
        **parts,
    }


def special_token(metadata: dict[str, Any], role: str) -> str | None:
    """The text of the token with that role ("bos", "eos", "unknown", ...), or None where there is none."""
    token_id = metadata.get(f"tokenizer.ggml.{role}_token_id")
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    return tokens[token_id] if isinstance(token_id, int) and 0 <= token_id < len(tokens) else None


def _list_of(metadata: dict[str, Any], key: str, kind: type, default: list[Any] | None = None) -> list[Any]:
    value = metadata.get(key, default)
    if not isinstance(value, list) or not value or not isinstance(value[0], kind):
        raise InvalidModel(f"it holds no usable {key}; use the model's Hugging Face folder")
    return value


def _byte_level(metadata: dict[str, Any], vocab: dict[str, int]) -> dict[str, Any]:
    splitter = metadata.get("tokenizer.ggml.pre", "default")
    if splitter not in SPLITTERS:
        raise InvalidModel(
            f"its tokenizer splits words in the way {splitter!r}, which is not known here (known: "
            f"{', '.join(SPLITTERS)}); use the model's Hugging Face folder"
        )
    merges = [merge.split(" ") for merge in _list_of(metadata, "tokenizer.ggml.merges", str)]
    for merge in merges:
        if len(merge) != 2 or not {*merge, "".join(merge)} <= vocab.keys():
            raise InvalidModel(f"its tokenizer merges {merge} into no token; download it again")
    normalizer, splitters = SPLITTERS[splitter]
    return {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitters},
        "decoder": BYTE_LEVEL | {"add_prefix_space": True},
        "model": _bpe(vocab, merges),
    }


def _sentence_piece(
    metadata: dict[str, Any], tokens: list[str], types: list[int], vocab: dict[str, int]
) -> dict[str, Any]:
    scores = _list_of(metadata, "tokenizer.ggml.scores", float)
    if len(scores) != len(tokens):
        raise InvalidModel(f"it has {len(tokens)} tokens and {len(scores)} scores; download it again")
    pieces = {token: i for token, i in vocab.items() if types[i] == NORMAL}
    # SentencePiece joins the pair whose result scores highest: merges in the order of falling scores do the same
    pairs = [
        (-scores[i], len(token[:cut]), token[:cut], token[cut:])
        for token, i in pieces.items()
        for cut in range(1, len(token))
        if token[:cut] in pieces and token[cut:] in pieces
    ]
    pairs.sort()
    has_prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    to_mark = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, to_mark]}
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if has_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": prepend if has_prefix else to_mark,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(vocab, [[left, right] for _, _, left, right in pairs])
        | {"byte_fallback": True, "fuse_unk": True, "unk_token": special_token(metadata, "unknown")},
    }


def _bpe(vocab: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges,
    }


def _added_token(token: str, token_id: int, *, special: bool) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _start_token(metadata: dict[str, Any], tokens: list[str]) -> dict[str, Any] | None:
    """Puts the start token before a text, where the model wants it."""
    bos = special_token(metadata, "bos")
    wanted = metadata.get("tokenizer.ggml.add_bos_token", metadata["tokenizer.ggml.model"] == "llama")
    if not wanted or bos is None:
        return None
    piece = {"SpecialToken": {"id": bos, "type_id": 0}}
    text = [{"Sequence": {"id": name, "type_id": type_id}} for name, type_id in (("A", 0), ("B", 1))]
    return {
        "type": "TemplateProcessing",
        "single": [piece, text[0]],
        "pair": [piece, *text],
        "special_tokens": {bos: {"id": bos, "ids": [tokens.index(bos)], "tokens": [bos]}},
    }
