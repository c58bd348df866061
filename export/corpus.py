"""The text that says which tokens a drafter needs, and how often each occurs in it. Knows no model."""

import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from outrider.errors import InvalidParameter
from outrider.progress import Progress

__all__ = ["STDLIB", "corpus_files", "count_tokens"]

STDLIB = "stdlib"  # the running interpreter's standard library: code and English prose that every machine has
# Folders of it that are tests, tables or relics rather than text as people write it.
NOT_TEXT = frozenset(
    {"__pycache__", "dist-packages", "encodings", "idlelib", "lib2to3", "site-packages", "test", "tests"}
)
BATCH_CHARACTERS = 1 << 20


def corpus_files(corpus: Sequence[str]) -> list[Path]:
    """The text files of the corpus, in an order that depends on their names alone. Raises InvalidParameter."""
    files: list[Path] = []
    for name in corpus:
        root = Path(sysconfig.get_path("stdlib")) if name == STDLIB else Path(name)
        if root.is_file():
            files.append(root)
            continue
        below = (path for path in root.rglob("*.py" if name == STDLIB else "*") if path.is_file())
        found = sorted(
            path
            for path in below
            if not any(part.startswith(".") for part in path.relative_to(root).parts)
            and (name != STDLIB or NOT_TEXT.isdisjoint(path.relative_to(root).parts))
        )
        if not found:
            raise InvalidParameter(f"no text is found in the corpus {name}; name a file or a folder that holds text")
        files += found
    return files


def count_tokens(tokenizer: Tokenizer, files: Sequence[Path], n_vocab: int, progress: Progress) -> NDArray[np.int64]:
    """How often each id occurs in the files, shape (n_vocab,). Broken UTF-8 is read as replacement signs."""
    counts = np.zeros(n_vocab, np.int64)
    stage = "count the tokens of the corpus"
    done = 0
    for texts in batches(files):
        for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            ids = np.asarray(encoding.ids, np.int64)
            counts += np.bincount(ids[ids < n_vocab], minlength=n_vocab)
        done += len(texts)
        progress(stage, done, len(files))
    return counts


def batches(files: Sequence[Path]) -> Iterator[list[str]]:
    """The texts of the files, gathered so that a batch is worth handing over and memory stays small."""
    texts: list[str] = []
    size = 0
    for file in files:
        texts.append(file.read_text(encoding="utf-8", errors="replace"))
        size += len(texts[-1])
        if size >= BATCH_CHARACTERS:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts
