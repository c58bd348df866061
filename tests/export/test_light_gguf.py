"""A GGUF file without its tokenizer's lists says all else as before."""

from pathlib import Path

import pytest
from gguf import GGUFReader

from export.light_gguf import drop_token_lists
from outrider.errors import InvalidModel
from outrider.gguf_header import read_header
from tests.export.models import TOKENS


def test_all_but_the_lists_stays(gguf_file: Path, tmp_path: Path) -> None:
    light = tmp_path / "light.gguf"
    drop_token_lists(gguf_file, light)
    before, after = read_header(gguf_file), read_header(light)
    lists = {key for key, value in before.metadata.items() if isinstance(value, list)}
    assert "tokenizer.ggml.tokens" in lists
    kept = {key: value for key, value in before.metadata.items() if key not in lists}
    assert after.metadata == {"llama.vocab_size": len(TOKENS), **kept}
    tensors = {tensor.name: tensor for tensor in GGUFReader(light).tensors}
    for tensor in GGUFReader(gguf_file).tensors:
        found = tensors.pop(tensor.name)
        assert found.tensor_type == tensor.tensor_type
        assert found.data.tobytes() == tensor.data.tobytes()
    assert not tensors
    again = tmp_path / "again.gguf"
    drop_token_lists(light, again)
    assert again.read_bytes() == light.read_bytes()


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no")
    with pytest.raises(InvalidModel):
        drop_token_lists(tmp_path / "file", tmp_path / "light")
