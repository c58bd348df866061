from pathlib import Path

import pytest

from export.recipe import Recipe, Trim, load_recipe, make_recipe
from outrider import catalog
from outrider.errors import InvalidParameter


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "r.toml"
    file.write_text(text)
    return file


def test_a_recipe_is_read(tmp_path: Path) -> None:
    text = 'kind = "recipe"\nsummary = "s"\nsource = "m"\nformat = "onnx"\ntarget = "t"\n[trim]\nnum_tokens = 9\n'
    expected = Recipe(source="m", format="onnx", target="t", trim=Trim(num_tokens=9, corpus=["stdlib"]))
    assert load_recipe(write(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'kind = "recipe"\nsource = "m"\nquantisation = "int4"',
            "unknown key quantisation = 'int4'; known here: source",
        ),
        (
            'kind = "recipe"\nsource = "m"\n[trim]\nnum_tokens = 9\ntop = 3',
            "unknown key trim.top = 3; known here: num_tokens",
        ),
        ('kind = "card"\nsource = "m"', "not a recipe: kind = 'card'"),
        ('kind = "recipe"\nsource = "m"\nquantization = "q4_0"', "quantization 'q4_0' is not one of onnx's"),
        ('kind = "recipe"\nsource = "m"', "nothing to do for m"),
        ('kind = "recipe"\nsource = "m"\nformat = "exe"', "format 'exe' is none; use one of onnx, gguf"),
        ('kind = "recipe"\nquantization = "int4"', "missing required field `source`"),
        ('kind = "recipe"\nsource = "m"\nformat = "gguf"\nquantization = "q4_0"\nbuilder = "fused"', "only for ONNX"),
        ('kind = "recipe"\nsource = "m"\nquantization = "int4"\nblock_size = 48', "block_size 48 is not one"),
        ('kind = "recipe"\nsource = "m"\n[trim]\nnum_tokens = 0', "at least one token"),
        ('kind = "recipe"\nsource = "m"\ntrim = 5', "Expected `object"),
        ("kind = ", "cannot be read as TOML"),
    ],
)
def test_a_wrong_recipe_is_named_with_key_and_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        load_recipe(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"no\.toml cannot be read"):
        load_recipe(tmp_path / "no.toml")


def test_options_make_a_recipe() -> None:
    assert make_recipe("m") == Recipe(source="m", format="onnx", quantization="int4")
    assert make_recipe("m", format="gguf") == Recipe(source="m", format="gguf", quantization="q4_0")
    assert make_recipe("m", trim=7).quantization is None
    with pytest.raises(InvalidParameter, match="add --trim"):
        make_recipe("m", corpus=["x"])
    with pytest.raises(InvalidParameter, match="'exe'"):
        make_recipe("m", format="exe")


def test_every_shipped_recipe_leads_to_a_card() -> None:
    recipes = {name: load_recipe(file) for name, file in catalog.recipes().items()}
    assert len(recipes) == 6
    for recipe in recipes.values():
        assert recipe.target is None or recipe.target in recipes.keys() | catalog.cards().keys()
        for _ in recipes:
            recipe = recipes.get(recipe.source, recipe)
        assert recipe.source in catalog.cards()
