"""Nemotron-H's activation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)², in the dtype of x.

    As a product: CUDA's autocast would take a power in float32, and a grouped product that comes
    next refuses it beside weights in bfloat16.
    """
    positive = F.relu(x)
    return positive * positive
