"""Statistics of batch norms: who needs them, and how they are estimated anew."""

from __future__ import annotations

import torch
from torch import nn

from luthier.batch import device_of
from luthier.checkpoint import seeded
from luthier.task import Task


def has_batch_norm(model: nn.Module) -> bool:
    """Whether training takes statistics over the examples of a batch alone, without positions."""
    return any(isinstance(m, nn.BatchNorm1d) for m in model.modules())


@torch.no_grad()
def recalibrate(model: nn.Module, task: Task, batches: int = 20) -> None:
    """Estimates batch-norm statistics anew, in place: after a cut the old ones belong to another network.

    Args:
        model: left in evaluation mode.
        task: whose training inputs are used; targets are not.
        batches: how many, averaged with equal weight.

    Source:
        Li et al., "EagleEye: fast sub-net evaluation for efficient neural network pruning", 2020, section 3.3.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [m.momentum for m in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    if norms:
        with seeded(0):
            for _, batch in zip(range(batches), task.batches("train"), strict=False):
                if batch.size > 1:
                    batch.to(device_of(model)).run(model)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
