"""Metrics by name: torchmetrics where it has them. Each takes (outputs, target) over a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from luthier.batch import IGNORED, Target
from luthier.errors import ObjectiveError, UsageError, unknown
from luthier.extras import need
from luthier.fitting import as_classes, as_numbers
from luthier.sequences import read_greedily, read_transcripts

Score = Callable[[Any, Any], Any]


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

    def __call__(self, outputs: Tensor, target: Target) -> float:
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
    Targets of -100 do not count.

    Args:
        function: name in ``torchmetrics.functional.classification`` without "multiclass_" or "binary_".
        average: "micro" (every example counts alike), "macro" (every class counts alike) or "weighted" (classes
            count by their size).
        soft: whether probabilities are scored instead of the likeliest class.
    """

    function: str
    average: str = "macro"
    soft: bool = False

    def __call__(self, outputs: Tensor, target: Tensor) -> Any:
        """The score over a whole data set."""
        scores = need("torchmetrics.functional.classification", "torch", "this metric")
        if outputs.ndim > 1 and outputs.shape[1] > 1 and outputs.shape == target.shape:
            labels = outputs.shape[1]
            answers = outputs.sigmoid() if self.soft else (outputs > 0).long()
            function = getattr(scores, f"multilabel_{self.function}")
            return function(answers, target.long(), num_labels=labels, average=self.average, ignore_index=IGNORED)
        if outputs.ndim == 1 or outputs.shape[1] == 1:
            outputs = torch.stack([-outputs.flatten() / 2, outputs.flatten() / 2], 1)
            target = as_numbers(outputs[:, 1], target).long()
        classes = as_classes(outputs, target)
        function = getattr(scores, f"multiclass_{self.function}")
        answers = outputs.softmax(1) if self.soft else outputs.argmax(1)
        return function(answers, classes, num_classes=outputs.shape[1], average=self.average, ignore_index=IGNORED)


@dataclass(frozen=True)
class Transcript:
    """A score of what a frame-wise classifier (CTC) reads: outputs (n, classes, frames), decoded greedily.

    Args:
        function: "word_error_rate" or "char_error_rate" in ``torchmetrics.functional.text``, or "exact": the share of
            transcripts without an error.
        letters: what classes 1, 2, ... stand for; None: each class is a letter of its own, or for words, a word.

    Example:
        >>> outputs = torch.eye(3)[torch.tensor([[0, 1, 2]])].movedim(-1, 1)
        >>> Transcript("exact")(outputs, torch.tensor([[1, 2]]))
        1.0
    """

    function: str = "exact"
    letters: str | None = None

    def __call__(self, outputs: Tensor, target: Target) -> Any:
        """The score over a whole data set."""
        labels, frames, lengths = read_transcripts(outputs, target)
        read = [self._text(row) for row in read_greedily(outputs, frames)]
        true = [self._text(row[:n]) for row, n in zip(labels.tolist(), lengths.tolist(), strict=True)]
        if self.function == "exact":
            return sum(a == b for a, b in zip(read, true, strict=True)) / len(true)
        text = need("torchmetrics.functional.text", "torch", "this metric")
        return getattr(text, self.function)(read, true)

    def _text(self, classes: Sequence[int]) -> str:
        if self.letters is not None:
            return "".join(self.letters[c - 1] for c in classes)
        between = " " if self.function == "word_error_rate" else ""
        return between.join(chr(0xE000 + c) for c in classes)  # private letters, none of them a space


def _perplexity(outputs: Tensor, target: Tensor) -> Any:
    """exp of the mean cross entropy, over all positions that count."""
    text = need("torchmetrics.functional.text", "torch", "this metric")
    scores = outputs.movedim(1, -1).reshape(1, -1, outputs.shape[1])
    return text.perplexity(scores, as_classes(outputs, target).reshape(1, -1), ignore_index=IGNORED)


def _number(function: str, **settings: Any) -> Score:
    """A score of numbers from ``torchmetrics.functional.regression``, targets made to fit."""

    def value(outputs: Tensor, target: Tensor) -> Any:
        scores = need("torchmetrics.functional.regression", "torch", "this metric")
        numbers = outputs.double()
        flat = numbers.reshape(-1), as_numbers(numbers, target).reshape(-1)
        return getattr(scores, function)(*(x.contiguous() for x in flat), **settings)

    return value


_AVERAGES = ("micro", "macro", "weighted")
_FUNCTIONS = {"f1": "f1_score", "precision": "precision", "recall": "recall"}
_METRICS = {
    m.name: m
    for m in (
        Metric("accuracy", Classification("accuracy", "micro")),
        Metric("accuracy_macro", Classification("accuracy")),
        *(Metric(f"{n}_{a}", Classification(f, a)) for n, f in _FUNCTIONS.items() for a in _AVERAGES),
        Metric("auroc", Classification("auroc", "macro", soft=True)),
        Metric("auroc_weighted", Classification("auroc", "weighted", soft=True)),
        Metric("perplexity", _perplexity, "min"),
        Metric("wer", Transcript("word_error_rate"), "min"),
        Metric("cer", Transcript("char_error_rate"), "min"),
        Metric("transcript_accuracy", Transcript("exact")),
        Metric("mse", _number("mean_squared_error"), "min"),
        Metric("rmse", _number("mean_squared_error", squared=False), "min"),
        Metric("mae", _number("mean_absolute_error"), "min"),
        Metric("r2", _number("r2_score")),
    )
}


def names() -> list[str]:
    """The metrics there are.

    Example:
        >>> "f1_weighted" in names()
        True
    """
    return sorted(_METRICS)


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


def score(metrics: Sequence[Metric], outputs: Tensor, target: Target) -> dict[str, float]:
    """Every metric over a whole data set."""
    return {m.name: m(outputs, target) for m in metrics}
