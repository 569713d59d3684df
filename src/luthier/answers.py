"""Questions of classes: what outputs and targets say about them, whatever form they come in."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luthier.batch import IGNORED
from luthier.errors import UsageError
from luthier.fitting import as_classes, as_numbers

_LEAST = -1e4  # log of a probability of 0, so that sums of logs stay numbers
_ROUNDING = 1e-2  # how far shares in half precision may be from a sum of one
_SAME: dict[Any, str] = {
    F.cross_entropy: "cross_entropy",
    nn.CrossEntropyLoss: "cross_entropy",
    F.binary_cross_entropy: "bce",
    F.binary_cross_entropy_with_logits: "bce",
    nn.BCELoss: "bce",
    nn.BCEWithLogitsLoss: "bce",
    F.mse_loss: "mse",
    nn.MSELoss: "mse",
    **dict.fromkeys((F.l1_loss, F.smooth_l1_loss, F.huber_loss), "l1"),
    **dict.fromkeys((nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss), "l1"),
}
OF_NUMBERS = ("mse", "l1")
"""Losses of numbers that are no classes."""


@dataclass(frozen=True)
class Known:
    """What is known of outputs and targets beside their values.

    Attributes:
        outputs: "logits" (log probabilities are), "probabilities", or "numbers", which say nothing about classes.
        loss: "cross_entropy" where each example is of one class, "bce" for yes/no questions; else nothing.
    """

    outputs: str = "logits"
    loss: str | None = None


class Questions(NamedTuple):
    """What is asked, and what was answered.

    Attributes:
        scores: logits of shape (n, classes, ...), the largest wins; or of yes/no questions (n, k, ...), yes above 0.
        target: classes (n, ...), or answers (n, k, ...): 0, 1 or -100.
        several: whether these are k yes/no questions.
    """

    scores: Tensor
    target: Tensor
    several: bool

    def broken(self) -> bool:
        """Whether no target counts, or an answer that counts is not a number; warns of either."""
        nan, counted = self.scores.isnan(), self.target != IGNORED
        if not counted.any():
            warnings.warn(
                f"no target counts: all of {self.target.numel()} are {IGNORED}; the metric is NaN", stacklevel=4
            )
            return True
        return any_nan(nan if self.several else nan.any(1), counted)


def any_nan(nan: Tensor, counted: Tensor | None = None) -> bool:
    """Whether any of these, of those that count, is NaN; warns of their share."""
    found = (nan if counted is None else nan[counted]).double()
    if not found.any():
        return False
    warnings.warn(f"{float(found.mean()):.1%} of the model's outputs are NaN: the metric is, too", stacklevel=4)
    return True


def name_of_loss(loss: Any) -> str | None:
    """What Luthier calls a loss: a name as it is, PyTorch's functions and modules by theirs; None: not known.

    Example:
        >>> name_of_loss(functools.partial(F.cross_entropy, label_smoothing=0.1))
        'cross_entropy'
    """
    if loss is None or isinstance(loss, str):
        return loss
    function = loss.func if isinstance(loss, functools.partial) else loss
    return _SAME.get(type(function)) or next((name for known, name in _SAME.items() if known is function), None)


def read_questions(outputs: Tensor, target: Any, known: Known) -> Questions:
    """Reads outputs and targets as questions of classes.

    Args:
        outputs: shape (n, classes, ...); or (n,) or (n, 1, ...) of one yes/no question.
        target: classes of shape (n, ...); or of the outputs' shape: shares of each class that sum to one (one-hot,
            smoothed, a teacher's), whose largest is the class; or answers to k yes/no questions, from 0 to 1.
        known: decides between shares and answers. Where the loss is not known, real numbers that sum to one along the
            classes are shares, and a warning says so where they are all 0 or 1.

    Raises:
        UsageError: outputs that say nothing about classes, or targets that are none of these.
    """
    _check(outputs, target, known)
    sure = known.outputs == "probabilities"
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        yes = (_log_odds(outputs) if sure else _as_logits(outputs)).flatten()
        answers = _answers(as_numbers(yes, target))
        return Questions(torch.stack([-yes / 2, yes / 2], 1), answers, False)
    if outputs.shape == target.shape:
        if not _are_shares(target, known.loss):
            return Questions(_log_odds(outputs) if sure else _as_logits(outputs), _answers(target), True)
        target = target.argmax(1).masked_fill((target == IGNORED).any(1), IGNORED)
    scores = outputs.double().log().clamp(min=_LEAST) if sure else outputs
    return Questions(scores, as_classes(outputs, target), False)


def _check(outputs: Tensor, target: Any, known: Known) -> None:
    if known.outputs == "numbers" or not outputs.is_floating_point():
        raise UsageError(
            "the outputs say nothing about classes",
            expected="logits or probabilities of each class",
            got=f"{str(outputs.dtype).removeprefix('torch.')} of shape {tuple(outputs.shape)}",
            cause="a regressor, a clusterer, or a model that gives classes instead of scores",
            fix='metrics=["mse", "r2", ...] for numbers; else a function of (outputs, target)',
        )
    if not isinstance(target, Tensor):
        raise UsageError("the targets are not classes", expected="one tensor", got=f"{len(target)} tensors")
    if known.outputs == "probabilities" and bool(((outputs < -_ROUNDING) | (outputs > 1 + _ROUNDING)).any()):
        raise UsageError(
            "the outputs are no probabilities",
            expected="from 0 to 1",
            got=f"{float(outputs.min()):g} to {float(outputs.max()):g}",
            fix='outputs="logits"',
        )


def _as_logits(outputs: Tensor) -> Tensor:
    """Outputs as they are; warns where they look like probabilities, as logits of which every answer is yes."""
    if outputs.numel() and bool(((outputs >= 0) & (outputs <= 1)).all()):
        warnings.warn(
            "every output is from 0 to 1 and read as a logit, so that all answers are yes: say outputs='probabilities' "
            "to evaluate, or leave the model's last activation out to train it",
            stacklevel=6,
        )
    return outputs


def _log_odds(chances: Tensor) -> Tensor:
    """Logits of probabilities, however close to 0 or 1."""
    return chances.double().clamp(0, 1).logit().clamp(_LEAST, -_LEAST)


def _answers(target: Tensor) -> Tensor:
    """Yes (1), no (0) or not counted (-100); shares from 0 to 1 are yes above a half."""
    counted = target != IGNORED
    used = target[counted]
    if used.numel() and not bool(((used >= 0) & (used <= 1)).all()):
        raise UsageError(
            "the targets are no answers to yes/no questions",
            expected=f"from 0 to 1, or {IGNORED} for those that do not count",
            got=f"{used.min().item():g} to {used.max().item():g}",
            cause="numbers to be predicted, or classes for a network with one output for each position",
        )
    return torch.where(counted, (target > 0.5).long(), IGNORED)


def _are_shares(target: Tensor, loss: str | None) -> bool:
    """Whether targets of the outputs' shape are shares of classes, and not answers to yes/no questions."""
    if loss == "bce":
        return False
    real = target.is_floating_point()
    rows = target.movedim(1, -1)[(target != IGNORED).all(1)].double()
    sums = bool(len(rows) and (rows >= 0).all() and ((rows.sum(-1) - 1).abs() < _ROUNDING).all())
    if loss == "cross_entropy" and real and not sums:
        raise UsageError(
            "the targets are not shares of classes",
            expected="class numbers, or real numbers >= 0 that sum to one along the classes, as cross entropy takes",
            got=f"sums from {float(rows.sum(-1).min()):g} to {float(rows.sum(-1).max()):g}" if len(rows) else "none",
            fix='loss="bce" for several yes/no questions',
        )
    if sums and not (real and loss == "cross_entropy") and bool(((rows == 0) | (rows == 1)).all()):
        _warn_of_one_hot(real)
    return real and sums


def _warn_of_one_hot(real: bool) -> None:
    """Both readings make sense, and nothing says which is meant."""
    read, other = ("classes", "yes/no questions") if real else ("yes/no questions", "classes")
    way = 'loss="bce"' if real else "class numbers, or real numbers as targets,"
    warnings.warn(f"targets with one 1 in every row are read as {read}: {way} reads them as {other}", stacklevel=6)
