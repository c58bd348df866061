import os
import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from export.corpus import STDLIB, corpus_files, count_tokens
from export.trim import NUM_OCCURRENCES, kept_ids, must_keep
from outrider import catalog
from outrider.errors import InvalidParameter
from outrider.progress import silent


def test_kept_ids_are_the_specials_and_the_most_frequent() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        counts = chance.choices(range(2 * NUM_OCCURRENCES), k=chance.randrange(8, 60))
        special = set(chance.choices(range(70), k=chance.randrange(5)))
        inside = {token_id for token_id in special if token_id < len(counts)}
        num_tokens = chance.randrange(len(inside) + 1, len(counts) + 1)
        kept = kept_ids(np.array(counts), special, num_tokens).tolist()
        weight = [count if count >= NUM_OCCURRENCES else 0 for count in counts]
        others = sorted(set(range(len(counts))) - inside, key=lambda token_id: (-weight[token_id], token_id))
        assert kept == sorted([*inside, *others[: num_tokens - len(inside)]]), f"seed {seed}"


@pytest.mark.parametrize("num_tokens", [0, 2, 9])
def test_a_number_of_tokens_that_cannot_be_is_refused(num_tokens: int) -> None:
    with pytest.raises(InvalidParameter, match=f"{num_tokens} tokens is not between 3 .* and 8"):
        kept_ids(np.ones(8, np.int64), {0, 5, 99}, num_tokens)


def test_tokens_are_counted_over_all_files(tmp_path: Path, gguf_file: Path) -> None:
    folder = catalog.find(str(gguf_file))
    tokenizer = Tokenizer.from_file(str(folder.path / "tokenizer.json"))
    (tmp_path / "text" / "deep").mkdir(parents=True)
    (tmp_path / "text" / "a.txt").write_text("hello hello")
    (tmp_path / "text" / "deep" / "b").write_bytes(b"hello \xff")
    (tmp_path / "text" / ".hidden").write_text("hello" * 50)
    counts = count_tokens(tokenizer, corpus_files([str(tmp_path / "text")]), folder.manifest.n_vocab, silent)
    assert counts[tokenizer.token_to_id("hello")] == 2
    assert counts[tokenizer.token_to_id("\u0120hello")] == 1
    assert must_keep(folder) >= {0, 1, 2}


def test_the_standard_library_is_a_corpus_in_fixed_order() -> None:
    files = corpus_files([STDLIB])
    assert files == corpus_files([STDLIB])
    names = {file.name for file in files}
    assert {"argparse.py", "typing.py"} <= names
    assert not any("site-packages" in file.parts or "test" in file.parts for file in files)


def test_a_corpus_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="no text is found in the corpus"):
        corpus_files([str(tmp_path / "nothing")])


def test_what_cannot_be_read_in_a_corpus_is_left_out_or_named(tmp_path: Path, gguf_file: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("hello")
    (folder / "b.txt").symlink_to(tmp_path / "gone")
    os.mkfifo(folder / "c.txt")
    assert corpus_files([str(folder)]) == [folder / "a.txt"]
    tokenizer = Tokenizer.from_file(str(catalog.find(str(gguf_file)).path / "tokenizer.json"))
    with pytest.raises(InvalidParameter, match=r"b\.txt of the corpus cannot be read"):
        count_tokens(tokenizer, [folder / "b.txt"], 64, silent)


def test_what_answers_are_laid_out_with_is_kept_though_no_corpus_holds_it(gguf_file: Path) -> None:
    folder = catalog.find(str(gguf_file))
    tokenizer = Tokenizer.from_file(str(folder.path / "tokenizer.json"))
    wanted = {tokenizer.token_to_id(mark) for mark in "`*#|-"} | set(folder.manifest.stop_ids)
    assert wanted <= set(kept_ids(np.zeros(folder.manifest.n_vocab, np.int64), must_keep(folder), 128).tolist())
