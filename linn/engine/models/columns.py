"""Keys and values [B, heads, columns, d] of attention layers, by their columns."""

from __future__ import annotations

from torch import Tensor


def empty_as(like: Tensor, rows: int, columns: int) -> Tensor:
    """[rows, heads, columns, d], in the order in which the other's numbers stand in memory.

    like: [B, heads, any columns, d]. Columns stand next to each other, or the numbers of each.
    """
    _, heads, _, size = like.shape
    if like.stride(2) == 1:
        return like.new_empty(rows, heads, size, columns).transpose(2, 3)
    return like.new_empty(rows, heads, columns, size)


def columns_at(tensor: Tensor, index: Tensor) -> Tensor:
    """Columns `index` [B', L'] of a tensor [B', heads, columns, d]."""
    heads, size = tensor.shape[1], tensor.shape[3]
    return tensor.gather(2, index[:, None, :, None].expand(-1, heads, -1, size))
