"""Quality: metrics of a model over data, through PyTorch or through an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luthier.errors import UsageError
from luthier.measure.runtime import Session
from luthier.metrics import Metric, read_metrics, score
from luthier.model.trace import evaluating
from luthier.task import Batch, as_loader, device_of, read_batches

Predict = Callable[[Batch], Tensor]


def outputs_of(result: Any) -> Tensor:
    """The tensor that metrics look at: the model's result, or its first part (``logits`` where it has them).

    Raises:
        UsageError: the result holds no tensor.
    """
    if isinstance(result, Tensor):
        return result
    logits = result.get("logits") if isinstance(result, dict) else getattr(result, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    first = next(iter(result.values()), None) if isinstance(result, dict) else None
    first = result[0] if isinstance(result, tuple | list) and result else first
    if isinstance(first, Tensor):
        return first
    raise UsageError("the model's result holds no tensor", expected="a tensor, or one first", got=type(result).__name__)


def _through_torch(model: nn.Module) -> Predict:
    device = device_of(model)

    def predict(batch: Batch) -> Tensor:
        return outputs_of(model(*batch.to(device).inputs)).cpu()

    return predict


def _through_onnx(path: Path) -> Predict:
    session = Session(path)

    def predict(batch: Batch) -> Tensor:
        return torch.from_numpy(session(*batch.inputs)[session.main])

    return predict


def collect(predict: Predict, loader: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Outputs and targets over a whole loader, each of shape (n, ...)."""
    outputs, targets = [], []
    with torch.inference_mode():
        for batch in read_batches(loader):
            outputs.append(predict(batch))
            targets.append(batch.target)
    return torch.cat(outputs), torch.cat(targets)


def evaluate(
    model: Any, loader: Iterable[Any], metrics: Sequence[str | Callable[..., Any] | Metric] = ("accuracy",)
) -> dict[str, float]:
    """Metrics of a model over data.

    Args:
        model: a torch module, a result with ``.model``, or the path of an ONNX file.
        loader: batches of (input, ..., target), or a pair of tensors.
        metrics: names, or functions of (outputs, target).

    Returns:
        metric name -> value, over the whole data set (not an average of batches).

    Raises:
        UsageError: an empty loader, an unknown metric, or something that is no model.

    Example:
        >>> evaluate(nn.Identity(), [(torch.eye(3), torch.tensor([0, 1, 1]))], ["accuracy"])
        {'accuracy': 0.666...}
    """
    wanted, loader = read_metrics(metrics), as_loader(loader)
    if isinstance(model, str | Path):
        return score(wanted, *collect(_through_onnx(Path(model)), loader))
    module = getattr(model, "model", model)
    if not isinstance(module, nn.Module):
        raise UsageError(
            "this is no model", expected="a torch.nn.Module or the path of an .onnx file", got=type(model).__name__
        )
    with evaluating(module):
        return score(wanted, *collect(_through_torch(module), loader))
