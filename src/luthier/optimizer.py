"""Optimisers, as a recipe asks for them."""

from __future__ import annotations

import torch
from torch import nn

from luthier.errors import UsageError
from luthier.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that want a gradient.

    Vectors (biases, norms) are not decayed: decay there costs accuracy and shrinks nothing.

    Raises:
        UsageError: no parameter wants one.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise UsageError(
            "the model has nothing to train",
            expected="at least one parameter with requires_grad",
            got="none",
            fix="model.requires_grad_(True)",
        )
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr)
