"""A task is data, a loss and metrics: everything that says what a model is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor

from luthier.batch import Batch, Layout, Target, as_loader, device_of, read_batches
from luthier.errors import UsageError, unknown
from luthier.fitting import LOSSES
from luthier.metrics import Metric, read_metrics

__all__ = ["Batch", "Layout", "Loss", "Target", "Task", "as_loader", "device_of", "read_batches"]

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Task:
    """Data, loss and metrics.

    Args:
        train: what to learn from: a DataLoader, any iterable of batches that can be gone through again, or a
            pair of tensors. A batch is (input, target) or (input, input, ..., target), where the target may be a
            tuple of tensors, or a dict whose "labels" (or "label", "target") is the target, with "frame_lengths"
            and "label_lengths" where given, and whose other tensors are the model's arguments by name.
        valid: what to choose by.
        test: what to report at the very end, touched once.
        loss: "cross_entropy", "bce", "mse", "l1", "ctc", or a function of (outputs, target). Classes of -100 are
            left out, in losses and in metrics. It says too what targets of the outputs' shape are to metrics: shares
            of classes ("cross_entropy"), or answers to yes/no questions ("bce").
        metrics: names (see :mod:`luthier.metrics`) or functions of (outputs, target); the first is the
            one that counts.
        batch_size: for data given as tensors.
        targets: how many tensors at the end of a batch are its target, for flat batches with lengths.
        class_dim: the dimension of the model's outputs that holds the classes: 1, or -1 for outputs of shape
            (n, positions, classes). Losses and metrics are given (n, classes, positions) either way;
            metrics (positions, classes), where batches differ in length.

    Raises:
        UsageError: data that is not a loader, an unknown loss or metric.

    Example:
        >>> import torch
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
    targets: int = 1
    class_dim: int = 1
    _loaders: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _ = self.layout
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
        return cast(tuple[Metric, ...], self.metrics)  # read when the task was made

    @property
    def main(self) -> Metric:
        """The metric that counts."""
        return self.scores[0]

    @property
    def layout(self) -> Layout:
        """How its batches and its model's outputs are laid out."""
        return Layout(self.targets, self.class_dim)

    @property
    def loss_function(self) -> Loss:
        """The loss as a function of what the model gives and the target."""
        function, layout = LOSSES[self.loss] if isinstance(self.loss, str) else self.loss, self.layout
        if layout.class_dim == 1:
            return function
        return lambda result, target: function(layout.outputs(result), target)

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
        yield from read_batches(self.loader(part), part, self.layout)

    def count(self, part: str) -> int:
        """How many batches a part has; counted by going through them where the loader does not say."""
        loader = self.loader(part)
        with suppress(TypeError):  # such as a DataLoader over a stream, which has a length in name only
            return len(cast(Sized, loader))
        return sum(1 for _ in loader)

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of the first batch for training: what a model is traced with.

        Raises:
            UsageError: they have names instead of places.
        """
        batch = next(self.batches("train"))
        if batch.named:
            raise UsageError(
                "the model's inputs are needed in order",
                expected="batches of (input, ..., target)",
                got=f"dicts of {', '.join(sorted(batch.named))}",
                fix="a loader that gives tuples",
            )
        return batch.inputs
