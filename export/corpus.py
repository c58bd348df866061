"""The text that says which tokens a drafter needs, and how often each occurs in it. Knows no model."""

import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from outrider.errors import InvalidParameter
from outrider.progress import Progress

__all__ = ["STDLIB", "corpus_files", "count_tokens", "layout_text"]

STDLIB = "stdlib"  # the running interpreter's standard library: code and English prose that every machine has
# Folders of it that are tests, tables or relics rather than text as people write it.
NOT_TEXT = frozenset(
    {"__pycache__", "dist-packages", "encodings", "idlelib", "lib2to3", "site-packages", "test", "tests"}
)
BATCH_CHARACTERS = 1 << 20

# Source code holds little of what answers are laid out with, and a fence that is missing costs a draft in every answer.
LAYOUT = (
    "Here is:\n\n```\nx\n```\n- **a**: `b`\n  ```\n   ```bash\n    ```\n* *a*\n    - b\n\n",
    "# A\n\n## B\n\n### C\n\n#### D\n\n1. **a** - b\n2. c\n\n---\n\n> d\n\n***\n\n### 1. **a**\n\n",
    "| a | b |\n|---|---|\n| :--- | ---: |\n|----|-----|\n- [ ] a\n- [x] b\n[a](https://b)\n![a](b)\n",
    "**Note:** a\n\n**Answer:**\n\n$$x$$ \\(x\\) \\[x\\] $x$\n\n",
)
LANGUAGES = (
    "bash c cpp csharp css go html java javascript json markdown php python ruby rust sh sql swift text ts xml yaml"
)


def corpus_files(corpus: Sequence[str]) -> list[Path]:
    """The text files of the corpus, in an order that depends on their names alone. Raises InvalidParameter.

    Names that begin with a dot are left out, as are files of the standard library that are no source.
    """
    files: list[Path] = []
    for name in corpus:
        if name == STDLIB:
            found = [file for file in below(Path(sysconfig.get_path("stdlib")), NOT_TEXT) if file.suffix == ".py"]
        else:
            found = [Path(name)] if Path(name).is_file() else list(below(Path(name), frozenset()))
        if not found:
            raise InvalidParameter(f"no text is found in the corpus {name}; name a file or a folder that holds text")
        files += found
    return files


def below(root: Path, left_out: frozenset[str]) -> Iterator[Path]:
    """All files under `root`, folders named in `left_out` aside; no link that leads nowhere, and no pipe."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in left_out)
        paths = (Path(folder, name) for name in sorted(files) if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def count_tokens(tokenizer: Tokenizer, files: Sequence[Path], n_vocab: int, progress: Progress) -> NDArray[np.int64]:
    """How often each id occurs in the files, shape (n_vocab,). Broken UTF-8 is read as replacement signs.

    Raises InvalidParameter for a file that cannot be read.
    """
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
        try:
            texts.append(file.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise InvalidParameter(f"{file} of the corpus cannot be read ({error.strerror}); take it out") from None
        size += len(texts[-1])
        if size >= BATCH_CHARACTERS:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def layout_text() -> str:
    """Markdown as answers use it: fences in many languages, lists, headings, tables, formulas."""
    return "".join(LAYOUT) + "".join(f"```{language}\nx\n```\n\n" for language in LANGUAGES.split())
