from typing import Any

import pytest

from outrider.errors import InvalidModel
from outrider.gguf_tokenizer import special_token, tokenizer_json
from tests.toy_gguf import spm_metadata, toy_metadata


def test_tokens_get_their_kinds() -> None:
    built = tokenizer_json(toy_metadata())
    assert [(token["content"], token["special"]) for token in built["added_tokens"]] == [
        ("<|endoftext|>", True),
        ("<|im_start|>", True),
        ("<|im_end|>", True),
        ("<tool>", False),
    ]
    assert "[PAD0]" not in built["model"]["vocab"]
    assert built["post_processor"] is None


def test_start_token_where_the_model_wants_one() -> None:
    single = tokenizer_json(toy_metadata(tokenizer__ggml__add_bos_token=True))["post_processor"]["single"]
    assert single[0] == {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    assert tokenizer_json(spm_metadata())["post_processor"] is not None
    assert tokenizer_json(spm_metadata(tokenizer__ggml__add_bos_token=False))["post_processor"] is None


REFUSED: dict[str, dict[str, Any]] = {
    "of the kind 'plamo2'": toy_metadata(tokenizer__ggml__model="plamo2"),
    "of the kind None": toy_metadata(tokenizer__ggml__model=None),
    "splits words in the way 'viking'": toy_metadata(tokenizer__ggml__pre="viking"),
    "no usable tokenizer.ggml.tokens": toy_metadata(tokenizer__ggml__tokens=None),
    "no usable tokenizer.ggml.merges": toy_metadata(tokenizer__ggml__merges=None),
    "no usable tokenizer.ggml.scores": spm_metadata(tokenizer__ggml__scores="x"),
    "2 token types": toy_metadata(tokenizer__ggml__token_type=[1, 1]),
    "1 scores": spm_metadata(tokenizer__ggml__scores=[1.0]),
    "merges": toy_metadata(tokenizer__ggml__merges=["h e", "x y"]),
    "stand for the same text": toy_metadata(tokenizer__ggml__tokens=["a", "a"], tokenizer__ggml__token_type=[1, 1]),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_be_read_is_refused_with_a_sentence(sentence: str) -> None:
    with pytest.raises(InvalidModel, match=sentence):
        tokenizer_json(REFUSED[sentence])


def test_special_token_outside_the_vocabulary_is_none() -> None:
    assert special_token(toy_metadata(), "eos") == "<|im_end|>"
    assert special_token(toy_metadata(tokenizer__ggml__eos_token_id=10**6), "eos") is None
    assert special_token(toy_metadata(), "eot") is None
