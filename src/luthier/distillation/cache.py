"""A teacher's outputs, computed once where the data allow it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset

from luthier.measure.quality import outputs_of
from luthier.task import Batch, Task, device_of, read_batches

Batches = Callable[[], Iterator[Batch]]


def teach(teacher: nn.Module, batch: Batch) -> Tensor:
    """The teacher's outputs for a batch, without gradient."""
    with torch.no_grad():
        return outputs_of(teacher(*batch.inputs))


def is_fixed(loader: Any) -> bool:
    """Whether every pass shows the same examples: tensors in memory, in plain or shuffled order."""
    return (
        isinstance(loader, DataLoader)
        and isinstance(loader.dataset, TensorDataset)
        and type(loader.sampler) in (RandomSampler, SequentialSampler)
        and loader.batch_size is not None
    )


def outputs_over(teacher: nn.Module, loader: DataLoader[Any]) -> Tensor:
    """The teacher's outputs for every example of a fixed loader, in the data set's order; on the CPU."""
    device = device_of(teacher)
    plain = DataLoader(loader.dataset, batch_size=loader.batch_size)
    teacher.eval()
    return torch.cat([teach(teacher, b.to(device)).cpu() for b in read_batches(plain)])


def with_teacher(teacher: nn.Module, task: Task, known: Tensor | None = None) -> Batches:
    """The training batches with the teacher's outputs beside them.

    Computed once where the loader holds fixed tensors; at each pass where it does not (augmentation, streams).

    Args:
        teacher: in evaluation mode from here on.
        task: whose training data.
        known: outputs that :func:`outputs_over` gave earlier.
    """
    loader: Any = task.loader("train")
    teacher.eval()
    if not is_fixed(loader):
        device = device_of(teacher)

        def on_the_fly() -> Iterator[Batch]:
            for raw in task.batches("train"):
                batch = raw.to(device)
                yield Batch(batch.inputs, batch.target, teach(teacher, batch))

        return on_the_fly
    outputs = outputs_over(teacher, loader) if known is None else known
    shuffle = isinstance(loader.sampler, RandomSampler)
    beside = DataLoader(
        TensorDataset(*loader.dataset.tensors, outputs), loader.batch_size, shuffle, drop_last=loader.drop_last
    )

    def cached() -> Iterator[Batch]:
        for *inputs, target, taught in beside:
            yield Batch(tuple(inputs), target, taught)

    return cached
