"""Operations that cannot be proven as they are, written out: PyTorch counts none of their work, or has no float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from luthier.model.trace import op_name

_PRODUCTS = ("matmul", "mv", "dot", "vdot", "linear")


def countable(node: fx.Node) -> Callable[..., Any] | str:
    """What a node of a program calls when that is proven: mostly its own target."""
    name = op_name(node)
    if name == "_grouped_mm":
        return grouped
    if name in _PRODUCTS and len(node.args) == 2 and any(a.meta["val"].dim() == 1 for a in node.all_input_nodes):
        return turned if name == "linear" else product
    return node.target


def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x y, a vector read as a matrix of one row or column, whose multiplications PyTorch counts."""
    rows = x[None] if x.dim() == 1 else x
    columns = y[:, None] if y.dim() == 1 else y
    out = rows @ columns
    out = out.squeeze(-1) if y.dim() == 1 else out
    return out.squeeze(-1 if y.dim() == 1 else -2) if x.dim() == 1 else out


def turned(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """x w' of a vector."""
    return product(x, w if w.dim() == 1 else w.T)


def grouped(x: torch.Tensor, w: torch.Tensor, ends: torch.Tensor | None = None, *_: Any, **__: Any) -> torch.Tensor:
    """One matrix for each group of rows.

    Args:
        x: [rows, k], or [experts, rows, k].
        w: [experts, k, n].
        ends: for each expert, the number of the first row that is not its own any more.
    """
    if ends is None or x.dim() != 2 or w.dim() != 3:
        return x @ w
    parts = torch.tensor_split(x, ends.tolist()[:-1])
    return torch.cat([part @ matrix for part, matrix in zip(parts, w, strict=True)])
