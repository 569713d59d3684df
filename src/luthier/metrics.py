"""Metrics by name: torchmetrics where it has them exactly. Each takes (outputs, target) over a whole data set."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from luthier.answers import Known, any_nan, read_questions
from luthier.batch import IGNORED, Target
from luthier.errors import ObjectiveError, UsageError, unknown
from luthier.extras import need
from luthier.fitting import as_numbers
from luthier.sequences import read_greedily, read_transcripts

Score = Callable[..., Any]
_UNKNOWN = Known()


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

    def __call__(self, outputs: Tensor, target: Target, known: Known = _UNKNOWN) -> float:
        """The score over a whole data set; NaN, with a warning, where outputs are.

        Args:
            outputs: shape (n, ...).
            target: shape (n, ...).
            known: what else is known of them; metrics of classes ask for it.

        Raises:
            ObjectiveError: the function gives no number.
        """
        asks = isinstance(self.function, Classification | Area | Perplexity)
        value = self.function(outputs, target, known) if asks else self.function(outputs, target)
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
    logits of a yes/no question, two classes; where the targets have the outputs' shape (n, k), of k such questions,
    or the targets are shares of each class, see :func:`luthier.answers.read_questions`. Targets of -100 do not count.

    Args:
        function: name in ``torchmetrics.functional.classification`` without "multiclass_" or "binary_".
        average: "micro" (every example counts alike), "macro" (every class counts alike) or "weighted" (classes
            count by their size).
        soft: whether probabilities are scored instead of the likeliest class.
    """

    function: str
    average: str = "macro"
    soft: bool = False

    def __call__(self, outputs: Tensor, target: Target, known: Known = _UNKNOWN) -> Any:
        """The score over a whole data set."""
        functions = need("torchmetrics.functional.classification", "torch", "this metric")
        asked = read_questions(outputs, target, known)
        if asked.broken():
            return math.nan
        how = {"average": self.average, "ignore_index": IGNORED}
        width = asked.scores.shape[1]
        if asked.several:
            answers = asked.scores.sigmoid() if self.soft else (asked.scores > 0).long()
            return getattr(functions, f"multilabel_{self.function}")(answers, asked.target, num_labels=width, **how)
        answers = asked.scores.softmax(1) if self.soft else asked.scores.argmax(1)
        return getattr(functions, f"multiclass_{self.function}")(answers, asked.target, num_classes=width, **how)


@dataclass(frozen=True)
class Area:
    """The area under the ROC curve, of each class against all others.

    It goes by the order of log odds in double precision: probabilities close to 1 are not taken for equal. A class of
    which there is no example, or nothing else, has no curve: it is left out of the mean, with a warning.

    Args:
        average: "macro" (every class counts alike) or "weighted" (classes count by their size).

    Source:
        Mann and Whitney, "On a test of whether one of two random variables is stochastically larger than the other",
        1947: U / (n_1 n_0), ties counting a half.
    """

    average: str = "macro"

    def __call__(self, outputs: Tensor, target: Target, known: Known = _UNKNOWN) -> float:
        """The score over a whole data set; NaN where no class has a curve."""
        asked = read_questions(outputs, target, known)
        if asked.broken():
            return math.nan
        width = asked.scores.shape[1]
        scores = asked.scores.double().movedim(1, -1).reshape(-1, width)  # (m, classes)
        if asked.several:
            answers = asked.target.movedim(1, -1).reshape(-1, width)
        else:
            counted = asked.target.flatten() != IGNORED
            classes = asked.target.flatten()[counted]
            scores, answers = _odds(scores[counted]), F.one_hot(classes, width)
        return self._mean([_area(s[a >= 0], a[a >= 0] == 1) for s, a in zip(scores.T, answers.T, strict=True)])

    def _mean(self, areas: Sequence[tuple[float, int]]) -> float:
        """Of (area, examples) of each class."""
        without = [str(i) for i, (area, _) in enumerate(areas) if math.isnan(area)]
        if without:
            left = "no AUROC at all" if len(without) == len(areas) else "left out of the mean AUROC"
            warnings.warn(f"{left}: every example, or none, is of class {', '.join(without[:8])}", stacklevel=4)
        found = [(area, size if self.average == "weighted" else 1) for area, size in areas if not math.isnan(area)]
        return sum(area * size for area, size in found) / sum(size for _, size in found) if found else math.nan


def _odds(logits: Tensor) -> Tensor:
    """log(p / (1 - p)) of each class, shape (n, classes): rounded, so that equal probabilities stay equal."""
    logs, best = logits.log_softmax(1), logits.argmax(1, keepdim=True)
    others = logits.scatter(1, best, -math.inf).logsumexp(1, keepdim=True)
    odds = logs - torch.log1p(-logs.exp())  # where p <= 1/2; the likeliest class against the others:
    return (odds.scatter(1, best, logits.gather(1, best) - others) * 2.0**32).round()


def _area(scores: Tensor, positive: Tensor) -> tuple[float, int]:
    """Area and number of positives, for scores (n,) and booleans (n,); NaN where all are alike."""
    yes = int(positive.sum())
    no = len(positive) - yes
    if not yes or not no:
        return math.nan, yes
    found = scores.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    _, place, count = found
    ranks = (count.cumsum(0) - (count - 1) / 2)[place].double()  # from 1; equal ones share theirs
    return (float(ranks[positive].sum()) - yes * (yes + 1) / 2) / (yes * no), yes


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
        within = torch.arange(outputs.shape[2], device=frames.device) < frames[:, None]
        if any_nan(outputs.isnan().any(1), within):
            return math.nan
        read = [self._text(row) for row in read_greedily(outputs, frames)]
        true = [self._text(row[:n]) for row, n in zip(labels.tolist(), lengths.tolist(), strict=True)]
        if self.function == "exact":
            return sum(a == b for a, b in zip(read, true, strict=True)) / len(true)
        text = need("torchmetrics.functional.text", "torch", "this metric")
        return getattr(text, self.function)(read, true)

    def _text(self, classes: Sequence[int]) -> str:
        if self.letters is not None:
            if max(classes, default=0) > len(self.letters):
                raise UsageError(
                    "there are fewer letters than classes that are read",
                    expected=f"a letter for each of the classes 1 to {max(classes)} at least; 0 is the blank",
                    got=f"{len(self.letters)} letters, {self.letters!r}",
                )
            return "".join(self.letters[c - 1] for c in classes)
        between = " " if self.function == "word_error_rate" else ""
        return between.join(chr(0xE000 + c) for c in classes)  # private letters, none of them a space


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean cross entropy, over all positions that count; of shares of classes, that of the largest."""

    def __call__(self, outputs: Tensor, target: Target, known: Known = _UNKNOWN) -> float:
        """The score over a whole data set."""
        asked = read_questions(outputs, target, known)
        if asked.several:
            raise UsageError("perplexity is of classes", expected="class numbers", got="several yes/no questions")
        if asked.broken():
            return math.nan
        scores = asked.scores.to(torch.promote_types(asked.scores.dtype, torch.float32))
        return float(F.cross_entropy(scores, asked.target, ignore_index=IGNORED).exp())


@dataclass(frozen=True)
class Numbers:
    """A score of numbers, targets made to fit.

    Args:
        function: name in ``torchmetrics.functional.regression``.
        settings: of that function.
        columns: whether each column of outputs (n, k) has a score of its own, of which the mean is taken.
    """

    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    columns: bool = False

    def __call__(self, outputs: Tensor, target: Tensor) -> Any:
        """The score over a whole data set; NaN, with a warning, where a column has a single number."""
        scores = need("torchmetrics.functional.regression", "torch", "this metric")
        if any_nan(outputs.isnan()):
            return math.nan
        numbers = outputs.double()
        width = numbers.shape[1] if self.columns and numbers.ndim == 2 else 1
        pair = [x.reshape(-1, width).squeeze(1).contiguous() for x in (numbers, as_numbers(numbers, target))]
        if self.columns and len(pair[0]) < 2:
            warnings.warn("one example has no spread to be explained: the metric is NaN", stacklevel=4)
            return math.nan
        return getattr(scores, self.function)(*pair, **self.settings)


_AVERAGES = ("micro", "macro", "weighted")
_FUNCTIONS = {"f1": "f1_score", "precision": "precision", "recall": "recall"}
_METRICS = {
    m.name: m
    for m in (
        Metric("accuracy", Classification("accuracy", "micro")),
        Metric("accuracy_macro", Classification("accuracy")),
        *(Metric(f"{n}_{a}", Classification(f, a)) for n, f in _FUNCTIONS.items() for a in _AVERAGES),
        Metric("auroc", Area()),
        Metric("auroc_weighted", Area("weighted")),
        Metric("perplexity", Perplexity(), "min"),
        Metric("wer", Transcript("word_error_rate"), "min"),
        Metric("cer", Transcript("char_error_rate"), "min"),
        Metric("transcript_accuracy", Transcript("exact")),
        Metric("mse", Numbers("mean_squared_error"), "min"),
        Metric("rmse", Numbers("mean_squared_error", {"squared": False}), "min"),
        Metric("mae", Numbers("mean_absolute_error"), "min"),
        Metric("r2", Numbers("r2_score", columns=True)),
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


def score(metrics: Sequence[Metric], outputs: Tensor, target: Target, known: Known = _UNKNOWN) -> dict[str, float]:
    """Every metric over a whole data set."""
    return {m.name: m(outputs, target, known) for m in metrics}
