"""One pass over the data, whatever the number of statistics, in constant memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from luthier.batch import Batch, Layout, as_loader, holds_labels, outputs_of
from luthier.errors import UsageError
from luthier.fitting import LOSSES
from luthier.model.evaluating import evaluating
from luthier.model.trace import Inputs

Loss = Callable[[Any, Any], Tensor]
SIZE = 64
"""Examples in a batch, of data that are given whole."""


class Statistic(Protocol):
    """Something gathered batch by batch; what it holds does not grow with their number."""

    def see(self, inputs: Inputs, target: Any) -> None:
        """Takes a batch in."""
        ...


def gather(model: nn.Module, data: Iterable[Any], statistics: Iterable[Statistic]) -> None:
    """Shows every batch, once, to every statistic. The model is in evaluation mode meanwhile.

    Raises:
        UsageError: there is not a single batch.
    """
    chosen = list(statistics)
    with evaluating(model):
        for inputs, target in batches(data):
            for statistic in chosen:
                statistic.see(inputs, target)


def batches(data: Iterable[Any]) -> Iterator[tuple[Inputs, Any]]:
    """Each batch as (inputs, target): a pair, a tuple whose last entry is the target, or inputs alone.

    Args:
        data: batches, of which dicts hold their target as a task's do; or a tuple of tensors (inputs, ..., target) of
            equal lengths, as a task takes it; or a tensor of inputs.

    Raises:
        UsageError: there is not a single batch, or tensors differ in length.
    """
    empty = True
    if isinstance(data, str) or not hasattr(data, "__iter__"):
        raise UsageError(
            "the data are no batches",
            expected="a loader, a list of (inputs, target), or tensors (inputs, target)",
            got=type(data).__name__,
            fix='task.loader("train"), of a task' if hasattr(data, "loader") else None,
        )
    for batch in _split(data) if isinstance(data, tuple | Tensor) else data:
        empty = False
        if isinstance(batch, Batch) or holds_labels(batch):
            read = Layout().read(batch)
            yield Inputs.of(read.inputs or dict(read.named)), read.target
        elif isinstance(batch, list | tuple) and len(batch) > 1:
            inputs, target = batch[:-1], batch[-1]
            yield Inputs.of(inputs[0] if len(inputs) == 1 else tuple(inputs)), target
        else:
            yield Inputs.of(batch), None
    if empty:
        raise UsageError("the data holds no batch", expected="at least one batch of (inputs, target)", got="none")


def _split(data: tuple[Any, ...] | Tensor) -> Iterable[Any]:
    """Tensors as batches of :data:`SIZE` in order, without a loader's draw from the global stream."""
    if isinstance(data, Tensor):
        return torch.split(data, SIZE)
    loader: Any = as_loader(data)
    return zip(*(t.split(SIZE) for t in loader.dataset.tensors), strict=True) if loader is not data else data


def mean_loss(model: nn.Module, data: Iterable[Any], loss: str | Loss) -> float:
    """The loss over the data, batches counted by their size; nothing of the model changes."""
    measure, total, count = loss_function(loss), 0.0, 0
    with evaluating(model), torch.no_grad():
        for inputs, target in batches(data):
            size = size_of(inputs, target)
            total += float(measure(model(*inputs.args, **inputs.kwargs), target)) * size
            count += size
    return total / count


def size_of(inputs: Inputs, target: Any) -> int:
    """How many examples a batch counts for, by its target, a tensor or several, else by its inputs."""
    tensors = (x for x in (*pytree.tree_leaves(target), *inputs.leaves) if isinstance(x, Tensor) and x.dim())
    return next(map(len, tensors), 1)


def examples_of(inputs: Inputs, target: Any) -> tuple[int, int]:
    """How many examples go into the model, and along which dimension of its inputs they lie.

    That is the first, or the second where only its size is that of a target, as in (time, examples, features).
    """
    first = next((x for x in inputs.leaves if isinstance(x, Tensor) and x.dim()), None)
    if first is None:
        return 1, 0
    lengths = {len(t) for t in pytree.tree_leaves(target) if isinstance(t, Tensor) and t.dim()}
    if lengths and len(first) not in lengths and first.dim() > 1 and first.shape[1] in lengths:
        return first.shape[1], 1
    return len(first), 0


def lies(x: Any, count: int, at: int) -> int | None:
    """The dimension of a tensor that holds the examples, those of the inputs lying along ``at``; None: none does."""
    return next((d for d in range(at, -1, -1) if isinstance(x, Tensor) and x.dim() > d and x.shape[d] == count), None)


def singly(inputs: Inputs, target: Any) -> Iterator[tuple[Inputs, Any]]:
    """A batch's examples, each as a batch of one."""
    count, at = examples_of(inputs, target)

    def part(i: int, x: Tensor) -> Tensor:
        dim = lies(x, count, at)
        return x if dim is None else x.narrow(dim, i, 1)

    for i in range(count):
        yield inputs.map(partial(part, i)), pytree.tree_map_only(Tensor, partial(part, i), target)


def loss_function(loss: str | Loss) -> Loss:
    """A loss by its name, a task's or one in ``torch.nn.functional``, of a model's (first) outputs.

    A function is handed through, and given whatever the model gives.

    Raises:
        UsageError: no such loss.
    """
    if not isinstance(loss, str):
        return loss
    found = LOSSES.get(loss) or getattr(nn.functional, loss, None)
    if found is None:
        known = ", ".join(LOSSES)
        raise UsageError(f"unknown loss {loss!r}", expected=f"one of {known}, or a name in torch.nn.functional")

    def named(output: Any, target: Any) -> Tensor:
        if target is None:
            raise UsageError(
                f"the loss {loss!r} needs a target, and the batches hold none",
                expected="batches of (inputs, target)",
                cause="a list [x, y] is two batches of inputs; a tuple (x, y) is inputs with their target",
            )
        value: Tensor = found(outputs_of(output), target)
        return value

    return named


@contextlib.contextmanager
def requiring(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Gradients for these parameters inside; their flags are put back."""
    was = [(p, p.requires_grad) for p in parameters]
    try:
        for p, _ in was:
            p.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for p, flag in was:
            p.requires_grad_(flag)
