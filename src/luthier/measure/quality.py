"""Quality: metrics of a model over data, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from luthier.answers import Known, name_of_loss
from luthier.batch import Batch, Layout, Target, outputs_of, read_batches
from luthier.errors import unknown
from luthier.measure.doors import Predict, door
from luthier.metrics import Metric, read_metrics, score
from luthier.sequences import joined

__all__ = ["collect", "evaluate", "outputs_of"]

_OUTPUTS = ("auto", "logits", "probabilities")


def collect(predict: Predict, loader: Iterable[Any], layout: Layout | None = None) -> tuple[Tensor, Target]:
    """Outputs, with the classes in dimension 1, and targets over a whole loader."""
    layout = layout or Layout()
    outputs, targets = [], []
    with torch.no_grad():  # a network may keep what it computes, and train with it
        for batch in read_batches(loader, layout=layout):
            outputs.append(layout.outputs(predict(batch)))
            targets.append(Batch((), batch.target).to("cpu").target)
    return joined(outputs, targets)


def evaluate(
    model: Any,
    loader: Iterable[Any],
    metrics: Sequence[str | Callable[..., Any] | Metric] = ("accuracy",),
    *,
    targets: int = 1,
    class_dim: int = 1,
    outputs: str = "auto",
    loss: Any = None,
) -> dict[str, float]:
    """Metrics of a model over data: the same names, and for the same outputs the same numbers, for every kind of model.

    Args:
        model: a torch module, a result with ``.model``, the path of an ONNX file, a Keras 3 model, or a fitted
            scikit-learn estimator (its log probabilities, decisions or predictions are the outputs).
        loader: batches of (input, ..., target) or dicts with "labels", or a pair of tensors or arrays; for an estimator
            inputs are whatever its ``predict`` takes: data frames, texts, sparse matrices.
        metrics: names (see :func:`luthier.metrics.names`), or functions of (outputs, target), which see no padding:
            batches that differ in length are laid out flat, see :func:`luthier.sequences.joined`.
        targets: how many tensors at the end of a batch are its target, as in :class:`luthier.Task`.
        class_dim: the dimension of the outputs that holds the classes; -1 for (n, positions, classes).
        outputs: what metrics of classes take the outputs for: "logits", or "probabilities" of classes or of yes; "auto"
            finds out whether they come straight from a softmax or a sigmoid: from a torch module while it runs, from
            a Keras model's last layer, from an ONNX file's last node. Other metrics see the outputs as they are.
        loss: what the model learns by, as in :class:`luthier.Task`. It says whether targets of the outputs' shape are
            shares of classes ("cross_entropy") or answers to yes/no questions ("bce"); where it does not, see
            :func:`luthier.answers.read_questions`.

    Returns:
        metric name -> value, over the whole data set (not an average of batches).

    Raises:
        UsageError: an empty loader, an unknown metric, something that is no model, inputs or targets that do not fit,
            or batches of different lengths that cannot be laid out.

    Example:
        >>> evaluate(torch.nn.Identity(), [(torch.eye(3), torch.tensor([0, 1, 1]))], ["accuracy"])
        {'accuracy': 0.666...}
    """
    if outputs not in _OUTPUTS:
        raise unknown("kind of outputs", str(outputs), _OUTPUTS)
    wanted, how = read_metrics(metrics), door(model)
    with how.mode:
        found, target = collect(how.predict, how.read(loader), Layout(targets, class_dim))
    return score(wanted, found, target, Known(how.outputs() if outputs == "auto" else outputs, name_of_loss(loss)))
