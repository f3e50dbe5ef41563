"""What a sum means, on every backend: from the first member of the group to the last."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_HALVES = (torch.bfloat16, torch.float16)


def ordered_sum(parts: Sequence[Tensor]) -> Tensor:
    """Sum of equally shaped tensors, first to last; 16-bit floats accumulate in float32."""
    first = parts[0]
    if first.dtype in _HALVES:
        total = first.float()
        for part in parts[1:]:
            total += part
        return total.to(first.dtype)
    if len(parts) == 1:
        return first.clone()
    total = first + parts[1]
    for part in parts[2:]:
        total += part
    return total


def reduce_parts(parts: Sequence[Tensor], op: str) -> Tensor:
    """``sum`` (:func:`ordered_sum`) or ``max`` of equally shaped tensors."""
    if op == "sum":
        return ordered_sum(parts)
    total = parts[0].clone()
    for part in parts[1:]:
        torch.maximum(total, part, out=total)
    return total
