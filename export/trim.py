"""A trimmed vocabulary for drafters: which token ids the output layer keeps, and how a built model is cut to them.

The output layer is the widest product of a small model, and most of its rows are never the answer. A drafter may miss
them: the verifier decides, so the text stays the target's. Which rows matter is counted over a corpus. Knows no engine.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.corpus import corpus_files, count_tokens, layout_text
from outrider.errors import InvalidParameter, UsageError
from outrider.manifest import TOKENIZER, ModelFolder
from outrider.progress import Progress

__all__ = ["EMBEDDINGS", "ID_MAP", "check_trim", "kept_ids", "must_keep", "trim"]

ID_MAP = "id_map.npy"
EMBEDDINGS = "embeddings.npy"
# A token that the corpus holds less often than this is noise: its merge rank, learnt from far more text, says more.
NUM_OCCURRENCES = 3


def trim(
    full: ModelFolder, output: Path, num_tokens: int, corpus: Sequence[str], progress: Progress
) -> NDArray[np.int32]:
    """Write the model of `full` into the folder `output` with an output layer of `num_tokens` rows, and its id map.

    Returns the map: logits column -> token id, ascending, so that a tie falls to the same token as in the full model.
    """
    if full.manifest.id_map is not None:
        raise UsageError(f"{full.name} has a trimmed vocabulary already; trim the model it was made from")
    tokenizer = Tokenizer.from_file(str(full.path / TOKENIZER))
    n_vocab = full.manifest.n_vocab
    counts = count_tokens(tokenizer, corpus_files(corpus), n_vocab, progress)
    ids = kept_ids(counts, must_keep(full), num_tokens)
    progress("trim the vocabulary", 0, 0)
    if full.manifest.format == "onnx":
        import onnx_ir as ir

        from export.onnx_graph import cut_output_rows, save

        model = ir.load(full.model_file)
        cut_output_rows(model, ids)
        save(model, output)
    else:
        from export.trim_gguf import cut_gguf

        cut_gguf(full.model_file, output / full.manifest.file, output / EMBEDDINGS, ids)
    np.save(output / ID_MAP, ids)
    progress("trim the vocabulary", 1, 1)
    return ids


def must_keep(folder: ModelFolder) -> set[int]:
    """Ids of the tokens that end an answer, of those that stand for no text (turns, tools), and of layout."""
    tokenizer = Tokenizer.from_file(str(folder.path / TOKENIZER))
    layout: list[int] = tokenizer.encode(layout_text(), add_special_tokens=False).ids
    return {*tokenizer.get_added_tokens_decoder(), *folder.manifest.stop_ids, *layout}


def kept_ids(counts: NDArray[np.int64], special: set[int], num_tokens: int) -> NDArray[np.int32]:
    """All of `special`, then the most frequent ids; among equals the lowest, which merged first. Ascending.

    >>> kept_ids(np.array([0, 5, 2, 9, 5]), {4}, 3).tolist()
    [1, 3, 4]
    """
    wanted = {token_id for token_id in special if token_id < len(counts)}
    check_size(num_tokens, len(wanted), len(counts))
    order = np.argsort(-np.where(counts < NUM_OCCURRENCES, 0, counts), kind="stable")
    rest = order[~np.isin(order, list(wanted))][: num_tokens - len(wanted)]
    return np.sort(np.concatenate([np.fromiter(wanted, np.int64), rest])).astype(np.int32)


def check_trim(source: ModelFolder, num_tokens: int, corpus: Sequence[str]) -> None:
    """Raise InvalidParameter before minutes of conversion for a trim that cannot be made of `source`."""
    special = {token_id for token_id in must_keep(source) if token_id < source.manifest.n_vocab}
    check_size(num_tokens, len(special), source.manifest.n_vocab)
    corpus_files(corpus)


def check_size(num_tokens: int, num_special: int, n_vocab: int) -> None:
    if not num_special < num_tokens <= n_vocab:
        raise InvalidParameter(
            f"a trimmed vocabulary of {num_tokens} tokens is not between {num_special + 1} (those that every answer "
            f"needs and one more) and {n_vocab} (all tokens); ask for a number in that range"
        )
