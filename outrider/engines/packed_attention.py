"""Attention of a packed pass, as an attention function of transformers: tokens side by side in, the same out.

Queries are spread over the grid of lanes (`packing.py`), attend to their slot's cells, and are taken back. Query heads
that share keys are rows of one head here, so keys and values are not copied for each. Knows no cache and no lengths.
"""

from typing import Any

import torch
from transformers import AttentionInterface

__all__ = ["NAME", "additive_mask"]

NAME = "outrider_packed"


def additive_mask(sees: torch.Tensor, starts: torch.Tensor, num_cells: int, dtype: torch.dtype) -> torch.Tensor:
    """Additive, [lanes, 1, rows, num_cells]: 0 for cells before the lane and for the rows of it that a row sees."""
    start = starts[:, None]
    cell = torch.arange(num_cells, device=sees.device)
    inside = cell - start  # the lane's row that a cell holds
    num_rows = sees.shape[-1]
    index = inside.clamp(0, num_rows - 1)[:, None].expand(-1, num_rows, -1)
    allowed = (cell < start)[:, None] | (sees.gather(2, index) & ((inside >= 0) & (inside < num_rows))[:, None])
    # The lowest finite number, not -inf: a row of padding may see nothing, and its softmax must not be NaN.
    mask = torch.zeros(allowed.shape, dtype=dtype, device=sees.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    lane_tokens: torch.Tensor,
    places: torch.Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, tokens, dim]; key, value [lanes, kv_heads, cells, dim]; gives [1, tokens, heads, dim].

    `lane_tokens` [lanes * rows] names the token at each place of the grid, `places` [tokens] the place of each token.
    """
    num_lanes, _, num_rows, num_cells = attention_mask.shape
    num_heads, num_kv_heads = query.shape[1], key.shape[1]
    shared = num_heads // num_kv_heads
    spread = query[0].index_select(1, lane_tokens).view(num_heads, num_lanes, num_rows, -1).transpose(0, 1)
    spread = spread.reshape(num_lanes, num_kv_heads, shared * num_rows, -1)
    mask = attention_mask.expand(-1, shared, -1, -1).reshape(num_lanes, 1, shared * num_rows, num_cells)
    if softcap is None:
        out = torch.nn.functional.scaled_dot_product_attention(spread, key, value, mask, scale=scaling)
    else:  # scores are bent before the mask, which no fused kernel does
        scores = spread @ key.transpose(2, 3) * (scaling or spread.shape[-1] ** -0.5)
        scores = softcap * torch.tanh(scores / softcap) + mask
        out = scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    rows = out.view(num_lanes, num_heads, num_rows, -1).transpose(1, 2).flatten(0, 1)
    return rows.index_select(0, places)[None], None


AttentionInterface.register(NAME, attend)
