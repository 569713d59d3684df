"""Targets that fit outputs: shapes and types are made to agree, or refused. Never broadcast in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from luthier.batch import IGNORED
from luthier.errors import UsageError
from luthier.sequences import ctc, nothing

Function = Callable[[Any, Any], Tensor]


def as_numbers(outputs: Tensor, target: Tensor) -> Tensor:
    """Targets of the outputs' shape and type, for losses and metrics that compare number by number.

    A missing or additional dimension of size 1 is put right: (n,) and (n, 1) are the same thing.

    Raises:
        UsageError: the shapes differ by more.
    """
    without = [[s for s in x.shape if s != 1] for x in (outputs, target)]
    if without[0] != without[1]:
        raise UsageError(
            "the targets do not have the outputs' shape",
            expected=tuple(outputs.shape),
            got=tuple(target.shape),
            cause="a last layer of another width than the targets, or a loss for classes meant",
        )
    return target.reshape(outputs.shape).to(outputs.dtype if outputs.is_floating_point() else torch.float32)


def as_classes(outputs: Tensor, target: Tensor) -> Tensor:
    """Targets as class numbers of shape (n, ...) for outputs of shape (n, classes, ...); -100 is left as it is.

    Raises:
        UsageError: no whole numbers, another shape, or numbers beyond the classes.
    """
    wanted = (outputs.shape[0], *outputs.shape[2:])
    index = target.squeeze(1) if target.ndim == len(wanted) + 1 and target.shape[1] == 1 else target
    if index.is_floating_point() or tuple(index.shape) != wanted:
        raise UsageError(
            "the targets are not classes",
            expected=f"whole numbers of shape {wanted} for outputs of shape {tuple(outputs.shape)}",
            got=f"{str(target.dtype).removeprefix('torch.')} of shape {tuple(target.shape)}",
            **_why_no_classes(outputs, index, wanted),
        )
    index = index.long()
    used = index[index != IGNORED]
    if used.numel() and (int(used.min()) < 0 or int(used.max()) >= outputs.shape[1]):
        raise UsageError(
            "the targets are not classes of this model",
            expected=f"whole numbers from 0 to {outputs.shape[1] - 1}, or {IGNORED} for those that do not count",
            got=f"{int(used.min())} to {int(used.max())}",
            cause="a last layer with too few outputs, or classes counted from 1",
        )
    return index


def _why_no_classes(outputs: Tensor, index: Tensor, wanted: tuple[int, ...]) -> dict[str, str]:
    if tuple(index.shape) == wanted:
        whole = bool((index == index.round()).all())
        return {"fix": "target.long()"} if whole else {"cause": "numbers to be predicted: loss='mse', metrics=['mse']"}
    if outputs.ndim > 2 and index.shape == outputs.shape[:-1]:
        cause = "classes in the last dimension"
        return {"cause": cause, "fix": "class_dim=-1, in a task and in evaluate; elsewhere a loss function of your own"}
    return {}


def cross_entropy(outputs: Tensor, target: Tensor) -> Tensor:
    """Cross entropy with class numbers, of which -100 does not count, or with probabilities of the outputs' shape."""
    if target.is_floating_point() and target.shape == outputs.shape and outputs.ndim > 1:
        return F.cross_entropy(outputs, target)
    index = as_classes(outputs, target)
    if bool((index == IGNORED).all()):
        return nothing(outputs)
    return F.cross_entropy(outputs, index, ignore_index=IGNORED)


def binary_cross_entropy(outputs: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy of logits; answers of -100 do not count."""
    answers = as_numbers(outputs, target)
    counted = answers != IGNORED
    if not bool(counted.any()):
        return nothing(outputs)
    return F.binary_cross_entropy_with_logits(outputs[counted], answers[counted])


def scalar(loss: Any, value: Any) -> Tensor:
    """What a loss gave, as a scalar.

    Args:
        loss: the loss's name, or the loss.
        value: what it gave.

    Raises:
        UsageError: no tensor, or several numbers.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.reshape(())
    raise UsageError(
        f"the loss {loss if isinstance(loss, str) else getattr(loss, '__name__', type(loss).__name__)!r} is no scalar",
        expected="a tensor of one number, such as the mean over the batch",
        got=f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__,
    )


def by_number(function: Function) -> Function:
    """A loss whose targets are made to fit first."""

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        return function(outputs, as_numbers(outputs, target))

    return loss


LOSSES: dict[str, Function] = {
    "cross_entropy": cross_entropy,
    "bce": binary_cross_entropy,
    "mse": by_number(F.mse_loss),
    "l1": by_number(F.l1_loss),
    "ctc": ctc,
}
