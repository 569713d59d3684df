"""Quality: metrics of a model over data, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from luthier.answers import Known, name_of_loss
from luthier.batch import Layout, Target, as_loader, outputs_of, read_batches
from luthier.measure.doors import Predict, as_numbered, door
from luthier.metrics import Metric, read_metrics, score
from luthier.sequences import joined

__all__ = ["collect", "evaluate", "outputs_of"]


def collect(predict: Predict, loader: Iterable[Any], layout: Layout | None = None) -> tuple[Tensor, Target]:
    """Outputs, with the classes in dimension 1, and targets over a whole loader."""
    layout = layout or Layout()
    outputs, targets = [], []
    with torch.inference_mode():
        for batch in read_batches(loader, layout=layout):
            outputs.append(layout.outputs(predict(batch)))
            targets.append(batch.to("cpu").target)
    return joined(outputs, targets)


def evaluate(
    model: Any,
    loader: Iterable[Any],
    metrics: Sequence[str | Callable[..., Any] | Metric] = ("accuracy",),
    *,
    targets: int = 1,
    class_dim: int = 1,
    loss: Any = None,
) -> dict[str, float]:
    """Metrics of a model over data: the same names, and for the same outputs the same numbers, for every kind of model.

    Args:
        model: a torch module, a result with ``.model``, the path of an ONNX file, a Keras 3 model, or a fitted
            scikit-learn estimator (its log probabilities, decisions or predictions are the outputs).
        loader: batches of (input, ..., target) or dicts with "labels", or a pair of tensors or arrays.
        metrics: names (see :func:`luthier.metrics.names`), or functions of (outputs, target), which see no padding:
            batches that differ in length are laid out flat, see :func:`luthier.sequences.joined`.
        targets: how many tensors at the end of a batch are its target, as in :class:`luthier.Task`.
        class_dim: the dimension of the outputs that holds the classes; -1 for (n, positions, classes).
        loss: what the model learns by, as in :class:`luthier.Task`. It says whether targets of the outputs' shape are
            shares of classes ("cross_entropy") or answers to yes/no questions ("bce"); where it does not, see
            :func:`luthier.answers.read_questions`.

    Returns:
        metric name -> value, over the whole data set (not an average of batches).

    Raises:
        UsageError: an empty loader, an unknown metric, something that is no model, or batches of different lengths
            that cannot be laid out.

    Example:
        >>> evaluate(torch.nn.Identity(), [(torch.eye(3), torch.tensor([0, 1, 1]))], ["accuracy"])
        {'accuracy': 0.666...}
    """
    wanted, how = read_metrics(metrics), door(model)
    if how.classes is not None:
        loader = _numbered(loader, how.classes)
    with how.mode:
        outputs, target = collect(how.predict, as_loader(loader), Layout(targets, class_dim))
    return score(wanted, outputs, target, Known(loss=name_of_loss(loss)))


def _numbered(data: Any, classes: Any) -> Any:
    """Data whose targets are numbers of an estimator's classes."""
    if isinstance(data, tuple | list) and len(data) == 2 and not isinstance(data[0], tuple | list | dict):
        return _plain(data[0]), as_numbered(data[1], classes)
    return [(*item[:-1], as_numbered(item[-1], classes)) for item in data]


def _plain(inputs: Any) -> Any:
    return inputs.to_numpy() if hasattr(inputs, "to_numpy") else inputs
