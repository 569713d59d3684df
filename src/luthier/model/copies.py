"""Copies of networks, whatever they hold."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.utils import _pytree as pytree

N = TypeVar("N", bound=nn.Module)


def copy_of(model: N) -> N:
    """A deep copy; what a network keeps of its last run is copied without the history that PyTorch refuses to copy.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> net.seen = net.weight * 2
        >>> copy_of(net).seen.requires_grad
        False
    """
    kept = [x for module in model.modules() for x in pytree.tree_leaves(vars(module)) if isinstance(x, Tensor)]
    return copy.deepcopy(model, {id(x): x.detach().clone() for x in kept if not x.is_leaf})
