"""What a failing engine raises, and the error a device hears of it. Anything else is a bug, and ends the verifier."""

import logging
from collections.abc import Sequence

from outrider.engines.base import Chunk, Logits
from outrider.errors import BadLogits, EngineError, OutriderError

__all__ = ["FAILURES", "check_logits", "typed"]

logger = logging.getLogger(__name__)

FAILURES = (OutriderError, MemoryError, RuntimeError)  # a backend's own errors are RuntimeErrors


def typed(error: Exception) -> OutriderError:
    """`error` itself if it is one of ours; otherwise it is logged, and an EngineError stands for it."""
    if isinstance(error, OutriderError):
        return error
    logger.error("the engine failed", exc_info=error)
    return EngineError("the engine failed, perhaps for want of memory; open the session again")


def check_logits(chunks: Sequence[Chunk], rows: Sequence[Logits], n_vocab: int) -> None:
    """Raises BadLogits for rows that were not asked for, and for columns that are no token."""
    for chunk, logits in zip(chunks, rows, strict=True):
        if logits.shape != (chunk.num_logits, n_vocab):
            raise BadLogits(f"the model returned logits of shape {logits.shape}; the session was ended")
