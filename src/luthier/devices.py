"""One device, or several through Lightning Fabric: what a training loop asks of them.

With a Fabric each process trains on its share of the batches and the gradients are averaged; precision and devices are
the Fabric's. Every process validates on all validation data, so that all take the same decisions. Losses that leave a
part of the student without a gradient (hints alone) need ``strategy="ddp_find_unused_parameters_true"``. ::

    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    lt.fit(model, task, fabric=fabric, epochs=10)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from luthier.batch import Batch, read_batches
from luthier.errors import UsageError
from luthier.task import Task

Batches = Callable[[], Iterator[Batch]]


class Devices(Protocol):
    """What a training loop asks of the devices that it runs on."""

    @property
    def count(self) -> int:
        """How many processes work together."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The model as it is called in training, and its optimiser."""

    def loader(self, loader: Any) -> Any:
        """A loader of this process's share."""

    def batches(self, task: Task) -> Batches:
        """The training batches of this process."""

    def backward(self, loss: Tensor) -> None:
        """Adds a loss's gradients."""

    def clip(self, model: nn.Module, optimizer: torch.optim.Optimizer, most: float) -> None:
        """Shortens the gradient of all that the optimiser trains, where its norm is larger than this."""

    def share(self, learned: nn.Module) -> None:
        """Averages the gradients of what is learned beside the model."""

    def mean(self, total: float, count: int) -> float:
        """total / count over all processes."""

    def same(self, scores: dict[str, float]) -> dict[str, float]:
        """The first process's scores, in every process."""


@dataclass(frozen=True)
class One:
    """The device that the model is on."""

    count: int = 1
    rank: int = 0

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """See :class:`Devices`."""
        return model, optimizer

    def loader(self, loader: Any) -> Any:
        """See :class:`Devices`."""
        return loader

    def batches(self, task: Task) -> Batches:
        """See :class:`Devices`."""
        return lambda: task.batches("train")

    def backward(self, loss: Tensor) -> None:
        """See :class:`Devices`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip(self, model: nn.Module, optimizer: torch.optim.Optimizer, most: float) -> None:
        """See :class:`Devices`."""
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], most)

    def share(self, learned: nn.Module) -> None:
        """See :class:`Devices`."""

    def mean(self, total: float, count: int) -> float:
        """See :class:`Devices`."""
        return total / count

    def same(self, scores: dict[str, float]) -> dict[str, float]:
        """See :class:`Devices`."""
        return scores


@dataclass(frozen=True)
class Several:
    """The devices of a launched Lightning Fabric.

    Args:
        fabric: a ``lightning.fabric.Fabric``.
    """

    fabric: Any

    @property
    def count(self) -> int:
        """See :class:`Devices`."""
        return int(self.fabric.world_size)

    @property
    def rank(self) -> int:
        """See :class:`Devices`."""
        return int(self.fabric.global_rank)

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """See :class:`Devices`."""
        wrapped, managed = self.fabric.setup(model, optimizer)
        return wrapped, managed

    def loader(self, loader: Any) -> Any:
        """See :class:`Devices`."""
        if not isinstance(loader, DataLoader):
            raise UsageError(
                "several devices need a loader that can be shared out",
                expected="a DataLoader, or tensors",
                got=type(loader).__name__,
            )
        return self.fabric.setup_dataloaders(loader, move_to_device=False)

    def batches(self, task: Task) -> Batches:
        """See :class:`Devices`."""
        shared = self.loader(task.loader("train"))
        return lambda: read_batches(shared, "train", task.layout)

    def backward(self, loss: Tensor) -> None:
        """See :class:`Devices`."""
        self.fabric.backward(loss)

    def clip(self, model: nn.Module, optimizer: torch.optim.Optimizer, most: float) -> None:
        """See :class:`Devices`; the Fabric takes its own scale off the gradients first."""
        self.fabric.clip_gradients(model, optimizer, max_norm=most)

    def share(self, learned: nn.Module) -> None:
        """See :class:`Devices`."""
        for parameter in learned.parameters():
            if parameter.grad is not None:
                parameter.grad = self.fabric.all_reduce(parameter.grad, reduce_op="mean")

    def mean(self, total: float, count: int) -> float:
        """See :class:`Devices`."""
        both = self.fabric.all_reduce(torch.tensor([total, float(count)], device=self.fabric.device), reduce_op="sum")
        return float(both[0] / both[1])

    def same(self, scores: dict[str, float]) -> dict[str, float]:
        """See :class:`Devices`."""
        found: dict[str, float] = self.fabric.broadcast(scores)
        return found


def mixed_type(device: torch.device, wanted: str) -> torch.dtype | None:
    """The type that sums of products run in; None for the parameters' own."""
    if wanted == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(wanted)


def as_devices(fabric: Any) -> Devices | None:
    """The devices of a Fabric; None where there is none.

    Raises:
        UsageError: it is no Fabric.
    """
    if fabric is None:
        return None
    if not all(hasattr(fabric, name) for name in ("setup", "setup_dataloaders", "backward", "all_reduce")):
        raise UsageError(
            "this is no Lightning Fabric",
            expected="Fabric(...), launched",
            got=type(fabric).__name__,
            fix="pip install 'luthier[devices]'",
        )
    return Several(fabric)
