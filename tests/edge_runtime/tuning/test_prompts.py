"""Prompts of a file: a JSON object a line, each prompt once, some searched on and others held out."""

import json
from pathlib import Path

import pytest

from edge_runtime.tuning.prompts import load_prompts, split
from outrider.errors import InvalidParameter


def test_a_file_is_split_without_a_prompt_on_both_sides(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    lines = [{"prompt": f"number {number % 20}", "kind": "ab"[number % 2]} for number in range(30)]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    prompts = load_prompts(str(file))
    assert len(prompts) == 20  # ten were there twice
    searched, held_out = split(prompts)
    assert not set(searched) & set(held_out)
    assert set(searched) | set(held_out) == set(prompts)
    assert [prompt.kind for prompt in searched[:4]] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no JSON", "line 1 of .* is no prompt"),
        ('{"prompt": 3}', "line 1 of .* is no prompt"),
        ('{"prompt": "one"}\n' * 9, "1 different prompts; give at least 8"),
        ("", "0 different"),
        ("\xff", "line 1 of .* is no prompt"),
        ('\n{"prompt": "\xff"}', "line 2 of .* is no prompt"),
        ('{"prompt": "%s"}\n' % ("long " * 300_000), "larger than 1 MiB"),
        ("".join(f'{{"prompt": "{n}", "kind": "{n % 4}"}}\n' for n in range(8)), "leaves 4 prompts"),
        ("".join(f'{{"prompt": "{n}", "kind": "{n}"}}\n' for n in range(20)), "leaves 0 prompts"),
    ],
)
def test_files_that_will_not_do_are_told(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidParameter, match=words):
        load_prompts(str(file))


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(InvalidParameter, match="give code, chat, both, or a file"):
        load_prompts("cod")
