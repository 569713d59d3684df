"""Metrics by name: torchmetrics where it has them. Each takes (outputs, target) over a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from luthier.errors import ObjectiveError, UsageError, unknown
from luthier.extras import need

Score = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class Metric:
    """A named score.

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
        """The score over a whole data set."""
        return float(self.function(outputs, target))

    def gain(self, value: float, reference: float) -> float:
        """How much better than a reference; negative where worse."""
        return value - reference if self.direction == "max" else reference - value


@dataclass(frozen=True)
class Classification:
    """A score of predicted classes.

    Outputs of shape (n, classes, ...) are scores per class (the largest wins); where the targets have the
    outputs' shape, or the outputs have one column, they are logits of independent yes/no questions.

    Args:
        function: name in ``torchmetrics.functional.classification`` without "multiclass_" or "binary_".
        average: "micro" (every example counts alike) or "macro" (every class counts alike).
    """

    function: str
    average: str = "macro"

    def __call__(self, outputs: Tensor, target: Tensor) -> Any:
        """The score over a whole data set."""
        scores = need("torchmetrics.functional.classification", "torch", "this metric")
        if outputs.ndim == 1 or outputs.shape[1] == 1 or outputs.shape == target.shape:
            answers = (outputs.reshape(target.shape) > 0).long()
            return getattr(scores, f"binary_{self.function}")(answers, target.long())
        classes = outputs.shape[1]
        top = int(target.max()) if len(target) else 0
        if target.is_floating_point() or top >= classes:
            raise ObjectiveError(
                "the targets are not classes of this model",
                expected=f"whole numbers from 0 to {classes - 1}",
                got=f"{target.dtype} up to {top}",
            )
        function = getattr(scores, f"multiclass_{self.function}")
        return function(outputs.argmax(1), target, num_classes=classes, average=self.average)


def _mse(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs.reshape(target.shape).double() - target.double()).square().mean()


def _mae(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs.reshape(target.shape).double() - target.double()).abs().mean()


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


def names() -> list[str]:
    """The metrics that have names."""
    return sorted(_METRICS)


def score(metrics: Sequence[Metric], outputs: Tensor, target: Tensor) -> dict[str, float]:
    """Every metric over a whole data set."""
    return {m.name: m(outputs, target) for m in metrics}
