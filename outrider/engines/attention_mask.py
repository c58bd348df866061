"""Which cells of the cache each row of a padded torch pass may see: history, and its own ancestors in the chunk.

Tensor operations for the whole batch at once. Knows no model and no cache.
"""

from collections.abc import Sequence

import numpy as np
import torch

from outrider.engines.base import Chunk

__all__ = ["additive_mask", "ancestors"]


def ancestors(pieces: Sequence[Chunk], num_rows: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows of its chunk each row sees, [batch, rows, rows] (itself among them), and its depth, [batch, rows]."""
    parents = np.tile(np.arange(-1, num_rows - 1), (len(pieces), 1))
    for number, piece in enumerate(pieces):
        if piece.parents is not None:
            parents[number, : len(piece.parents)] = piece.parents
    if all(piece.parents is None for piece in pieces):
        sees = torch.ones(num_rows, num_rows, dtype=torch.bool, device=device).tril().expand(len(pieces), -1, -1)
    else:
        # Reflexive step matrix; squaring doubles the generations it reaches.
        follows = torch.from_numpy(parents).to(device)[:, :, None] == torch.arange(num_rows, device=device)
        reach = (follows | torch.eye(num_rows, dtype=torch.bool, device=device)).float()
        for _ in range(max(1, (num_rows - 1).bit_length())):
            reach = (reach @ reach).clamp(max=1)
        sees = reach > 0
    return sees, sees.sum(-1) - 1


def additive_mask(sees: torch.Tensor, start: torch.Tensor, num_cells: int, dtype: torch.dtype) -> torch.Tensor:
    """Additive, [batch, 1, rows, num_cells]: 0 for cells before the chunk and for a row's own ancestors."""
    cell = torch.arange(num_cells, device=sees.device)
    inside = cell - start  # the chunk's row that a cell holds
    num_rows = sees.shape[-1]
    index = inside.clamp(0, num_rows - 1)[:, None].expand(-1, num_rows, -1)
    allowed = (cell < start)[:, None] | (sees.gather(2, index) & ((inside >= 0) & (inside < num_rows))[:, None])
    # The lowest finite number, not -inf: a row of padding may see nothing, and its softmax must not be NaN.
    mask = torch.zeros(allowed.shape, dtype=dtype, device=sees.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]
