"""A task is data, a loss and metrics: everything that says what a model is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from luthier.errors import UsageError, unknown
from luthier.fitting import LOSSES
from luthier.metrics import Metric, read_metrics

Loss = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """One batch: what goes into the model, and what should come out."""

    inputs: tuple[Tensor, ...]
    target: Tensor
    teacher: Tensor | None = None  # a teacher's outputs for these inputs, where they are known

    @property
    def size(self) -> int:
        """How many examples it holds."""
        return len(self.target)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        teacher = None if self.teacher is None else self.teacher.to(device)
        return Batch(tuple(x.to(device) for x in self.inputs), self.target.to(device), teacher)


@dataclass(frozen=True)
class Task:
    """Data, loss and metrics.

    Args:
        train: what to learn from: a DataLoader, any iterable of batches that can be gone through again, or a
            pair of tensors. A batch is (input, target) or (input, input, ..., target).
        valid: what to choose by.
        test: what to report at the very end, touched once.
        loss: "cross_entropy", "bce", "mse", "l1", or a function of (outputs, target).
        metrics: names (see :mod:`luthier.metrics`) or functions of (outputs, target); the first is the
            one that counts.
        batch_size: for data given as tensors.

    Raises:
        UsageError: data that is not a loader, an unknown loss or metric.

    Example:
        >>> x, y = torch.randn(8, 4), torch.randint(3, (8,))
        >>> task = Task(train=(x, y), valid=(x, y), batch_size=4)
        >>> [batch.size for batch in task.batches("train")]
        [4, 4]
    """

    train: Any
    valid: Any
    test: Any = None
    loss: str | Loss = "cross_entropy"
    metrics: Sequence[str | Callable[..., Any] | Metric] = ("accuracy",)
    batch_size: int = 64
    _loaders: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for part in ("train", "valid", "test"):
            data = getattr(self, part)
            if data is not None:
                self._loaders[part] = as_loader(data, part, self.batch_size, shuffle=part == "train")
        if isinstance(self.loss, str) and self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        object.__setattr__(self, "metrics", read_metrics(self.metrics))

    @property
    def scores(self) -> tuple[Metric, ...]:
        """The metrics; the first is the one that counts."""
        return read_metrics(self.metrics)

    @property
    def main(self) -> Metric:
        """The metric that counts."""
        return self.scores[0]

    @property
    def loss_function(self) -> Loss:
        """The loss as a function of (outputs, target)."""
        return LOSSES[self.loss] if isinstance(self.loss, str) else self.loss

    def loader(self, part: str) -> Iterable[Any]:
        """The loader of "train", "valid" or "test".

        Raises:
            UsageError: the task has no such part.
        """
        if part not in self._loaders:
            raise UsageError(f"the task has no {part} data", expected=f"Task({part}=loader)", got="None")
        loader: Iterable[Any] = self._loaders[part]
        return loader

    def batches(self, part: str) -> Iterator[Batch]:
        """The batches of "train", "valid" or "test".

        Raises:
            UsageError: there are none, or one is not (input, ..., target).
        """
        yield from read_batches(self.loader(part), part)

    def count(self, part: str) -> int:
        """How many batches a part has; counted by going through them where the loader does not say."""
        loader = self.loader(part)
        return len(loader) if isinstance(loader, Sized) else sum(1 for _ in loader)

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of the first batch for training: what a model is traced with."""
        return next(self.batches("train")).inputs


def read_batches(loader: Iterable[Any], part: str = "data") -> Iterator[Batch]:
    """Reads a loader's batches as :class:`Batch`.

    Raises:
        UsageError: there are none, or one is not (input, ..., target).
    """
    empty = True
    for item in loader:
        empty = False
        if not isinstance(item, tuple | list) or len(item) < 2 or not isinstance(item[-1], Tensor):
            raise UsageError(
                f"a batch of the {part} loader cannot be read",
                expected="(input, target) or (input, input, ..., target), all tensors",
                got=f"{type(item).__name__}" + (f" of {len(item)}" if isinstance(item, tuple | list) else ""),
            )
        yield Batch(tuple(item[:-1]), item[-1])
    if empty:
        raise UsageError(
            f"the {part} loader is empty",
            expected="at least one batch",
            got="none",
            cause="an empty split, drop_last=True with few examples, or a generator that was used up",
        )


def as_loader(data: Any, part: str = "data", batch_size: int = 64, shuffle: bool = False) -> Iterable[Any]:
    """Reads what a user gave as data: a loader stays one, a pair of tensors or arrays becomes one.

    Raises:
        UsageError: neither, or tensors of different lengths.
    """
    if isinstance(data, tuple | list) and len(data) >= 2 and all(_is_array(d) for d in data):
        tensors = [torch.as_tensor(d) for d in data]
        lengths = [len(d) for d in tensors]
        if len(set(lengths)) > 1:
            raise UsageError(f"the tensors of {part!r} differ in length", expected="equal lengths", got=lengths)
        if not lengths[0]:
            return []
        return DataLoader(TensorDataset(*tensors), batch_size=batch_size, shuffle=shuffle)
    if iter_once(data) or isinstance(data, str) or not hasattr(data, "__iter__"):
        raise UsageError(
            f"the {part} data is not a loader",
            expected="a DataLoader, a list of batches, or a pair of tensors",
            got=type(data).__name__,
            cause="a generator can be gone through only once" if iter_once(data) else None,
        )
    loader: Iterable[Any] = data
    return loader


def _is_array(data: Any) -> bool:
    return isinstance(data, Tensor) or (hasattr(data, "__array__") and hasattr(data, "dtype") and data.ndim > 0)


def iter_once(data: Any) -> bool:
    """Whether it is an iterator, which is used up by the first pass."""
    return isinstance(data, Iterator)


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter or buffer; the CPU where it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
