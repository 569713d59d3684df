"""Metrics by name: torchmetrics where it has them. Each takes (outputs, target) over a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from luthier.errors import ObjectiveError, UsageError, unknown
from luthier.extras import need
from luthier.fitting import as_classes, as_numbers

Score = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class Metric:
    """A score with a name and a direction.

    Args:
        name: as printed and stored.
        function: (outputs of shape (n, ...), targets of shape (n, ...)) -> number.
        direction: "max" where more is better, else "min".
    """

    name: str
    function: Score
    direction: str = "max"

    def __post_init__(self) -> None:
        if self.direction not in ("max", "min"):
            raise UsageError(f"the direction of metric {self.name!r} is unknown", expected='"max" or "min"')

    def __call__(self, outputs: Tensor, target: Tensor) -> float:
        """The score over a whole data set.

        Raises:
            ObjectiveError: the function gives no number.
        """
        value = self.function(outputs, target)
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            got = f"{type(value).__name__} {value!r}"[:80]
            raise ObjectiveError(f"the metric {self.name!r} gives no number", expected="one number", got=got) from None

    def gain(self, value: float, reference: float) -> float:
        """How much better than a reference; negative where worse."""
        return value - reference if self.direction == "max" else reference - value


@dataclass(frozen=True)
class Classification:
    """A score of predicted classes.

    Outputs of shape (n, classes, ...) are scores per class, the largest wins; outputs of shape (n,) or (n, 1) are
    logits of a yes/no question, two classes; where the targets have the outputs' shape (n, k), of k such questions.

    Args:
        function: name in ``torchmetrics.functional.classification`` without "multiclass_" or "binary_".
        average: "micro" (every example counts alike) or "macro" (every class counts alike).
    """

    function: str
    average: str = "macro"

    def __call__(self, outputs: Tensor, target: Tensor) -> Any:
        """The score over a whole data set."""
        scores = need("torchmetrics.functional.classification", "torch", "this metric")
        if outputs.ndim > 1 and outputs.shape[1] > 1 and outputs.shape == target.shape:
            labels = outputs.shape[1]
            answers = (outputs > 0).long()
            function = getattr(scores, f"multilabel_{self.function}")
            return function(answers, target.long(), num_labels=labels, average=self.average)
        if outputs.ndim == 1 or outputs.shape[1] == 1:
            outputs = torch.stack([-outputs.flatten(), outputs.flatten()], 1)
            target = as_numbers(outputs[:, 1], target).long()
        classes = as_classes(outputs, target)
        function = getattr(scores, f"multiclass_{self.function}")
        return function(outputs.argmax(1), classes, num_classes=outputs.shape[1], average=self.average)


def _mse(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs.double() - as_numbers(outputs.double(), target)).square().mean()


def _mae(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs.double() - as_numbers(outputs.double(), target)).abs().mean()


_METRICS = {
    "accuracy": Metric("accuracy", Classification("accuracy", "micro")),
    "accuracy_macro": Metric("accuracy_macro", Classification("accuracy")),
    "f1_macro": Metric("f1_macro", Classification("f1_score")),
    "f1_micro": Metric("f1_micro", Classification("f1_score", "micro")),
    "recall_macro": Metric("recall_macro", Classification("recall")),
    "precision_macro": Metric("precision_macro", Classification("precision")),
    "mse": Metric("mse", _mse, "min"),
    "mae": Metric("mae", _mae, "min"),
}


def metric(wanted: str | Score | Metric) -> Metric:
    """The metric of that name, or a function of (outputs, target) as one (more is better).

    Raises:
        UsageError: no such name.
    """
    if isinstance(wanted, Metric):
        return wanted
    if callable(wanted):
        return Metric(getattr(wanted, "__name__", type(wanted).__name__), wanted)
    if wanted not in _METRICS:
        raise unknown("metric", str(wanted), _METRICS)
    return _METRICS[wanted]


def read_metrics(wanted: Any) -> tuple[Metric, ...]:
    """Several metrics, by name or as functions.

    Raises:
        UsageError: no list, an empty one, an unknown name, or two of the same name.
    """
    if isinstance(wanted, str) or not isinstance(wanted, Sequence) or not wanted:
        raise UsageError("metrics come as a list", expected='["accuracy", ...]', got=repr(wanted))
    found = tuple(metric(m) for m in wanted)
    called = [m.name for m in found]
    for name in called:
        if called.count(name) > 1:
            raise UsageError(
                f"two metrics are called {name!r}", expected="different names", fix="luthier.Metric(name, function)"
            )
    return found


def score(metrics: Sequence[Metric], outputs: Tensor, target: Tensor) -> dict[str, float]:
    """Every metric over a whole data set."""
    return {m.name: m(outputs, target) for m in metrics}
