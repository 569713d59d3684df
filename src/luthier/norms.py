"""Statistics of batch norms: who needs them, and how they are estimated anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from luthier.batch import Layout, device_of
from luthier.checkpoint import seeded
from luthier.task import Task


def has_batch_norm(model: nn.Module) -> bool:
    """Whether training takes statistics over the examples of a batch alone, without positions."""
    return any(isinstance(m, nn.BatchNorm1d) for m in model.modules())


def left_out(loader: Any, fewest: int, layout: Layout) -> int:
    """How many of an epoch's batches hold fewer examples, as far as a loader says so without being gone through."""
    if isinstance(loader, list | tuple):
        return sum(layout.read(item).size < fewest for item in loader)
    if fewest < 2 or type(loader) is not DataLoader or loader.batch_size is None or loader.drop_last:
        return 0
    if isinstance(loader.dataset, IterableDataset):
        return 0
    return int(0 < len(loader.sampler) % loader.batch_size < fewest)  # type: ignore[arg-type]


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
