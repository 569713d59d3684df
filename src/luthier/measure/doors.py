"""Doors: outputs for a batch, whatever kind of model it is. Each gives what a torch module of the same maths would."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from luthier.batch import Batch, device_of, outputs_of
from luthier.errors import UsageError
from luthier.measure.runtime import Session
from luthier.model.trace import evaluating

Predict = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Door:
    """How a model is asked.

    Attributes:
        predict: a batch's outputs, on the CPU.
        classes: what its classes are called, for targets that are names or numbers of another order.
        mode: what the model is put into meanwhile.
    """

    predict: Predict
    classes: NDArray[Any] | None = None
    mode: AbstractContextManager[Any] = nullcontext()  # noqa: RUF009


def door(model: Any) -> Door:
    """How to ask this model.

    Args:
        model: a torch module, a result with ``.model``, the path of an ONNX file, a Keras model, or a fitted
            scikit-learn estimator.

    Raises:
        UsageError: none of these.
    """
    if isinstance(model, str | Path):
        return Door(_through_onnx(Path(model)))
    inner = getattr(model, "model", model)
    if is_keras(inner):
        return Door(_through_keras(inner))
    if isinstance(inner, nn.Module):
        return Door(_through_torch(inner), mode=evaluating(inner))
    if hasattr(model, "predict") and hasattr(model, "get_params"):
        classes = getattr(model, "classes_", None)
        return Door(_through_estimator(model), classes if isinstance(classes, np.ndarray) else None)
    raise UsageError(
        "this is no model",
        expected="a torch.nn.Module, the path of an .onnx file, a Keras model or a scikit-learn estimator",
        got=type(model).__name__,
    )


def is_keras(model: Any) -> bool:
    """Whether it is a Keras layer or model; Keras is not loaded for that."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Layer)


def _through_torch(model: nn.Module) -> Predict:
    device = device_of(model)

    def predict(batch: Batch) -> Tensor:
        return outputs_of(batch.to(device).run(model)).cpu()

    return predict


def _through_onnx(path: Path) -> Predict:
    session = Session(path)

    def predict(batch: Batch) -> Tensor:
        inputs = [batch.named[name] for name in session.names] if batch.named else batch.inputs
        return torch.from_numpy(session(*inputs)[session.main])

    return predict


def _through_keras(model: Any) -> Predict:
    """With any of its backends; what the layers do in training is off."""

    def predict(batch: Batch) -> Tensor:
        inputs: Any = dict(batch.named) or batch.inputs
        if isinstance(inputs, tuple):
            arrays = [_array(x) for x in inputs]
            given: Any = arrays[0] if len(arrays) == 1 else arrays
        else:
            given = {name: _array(x) for name, x in inputs.items()}
        result = model(given, training=False)
        if isinstance(result, dict):
            result = result.get("logits", next(iter(result.values())))
        first = result[0] if isinstance(result, tuple | list) else result
        keras = sys.modules["keras"]
        return torch.from_numpy(np.array(keras.ops.convert_to_numpy(first)))

    return predict


def _through_estimator(model: Any) -> Predict:
    """Log probabilities where it gives any, so that their softmax is the probabilities; decisions; or predictions."""

    def predict(batch: Batch) -> Tensor:
        x = _array(batch.inputs[0])
        if hasattr(model, "predict_proba"):
            with np.errstate(divide="ignore"):
                return torch.from_numpy(np.log(np.asarray(model.predict_proba(x), dtype=np.float64)).clip(min=-1e4))
        classes = getattr(model, "classes_", None)
        if classes is None:
            return torch.from_numpy(np.asarray(model.predict(x), dtype=np.float64))
        if hasattr(model, "decision_function"):
            scores = np.asarray(model.decision_function(x), dtype=np.float64)
            return torch.from_numpy(np.stack([-scores / 2, scores / 2], 1) if scores.ndim == 1 else scores)
        return torch.from_numpy((np.asarray(model.predict(x))[:, None] == np.asarray(classes)).astype(np.float64))

    return predict


def _array(x: Any) -> NDArray[Any]:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def as_numbered(target: Any, classes: NDArray[Any]) -> Tensor:
    """Targets, by name, as numbers of the estimator's classes.

    Raises:
        UsageError: one that the estimator has not seen.
    """
    names = _array(target)
    index = np.searchsorted(classes, names).clip(max=len(classes) - 1)
    unseen = np.asarray(classes)[index] != names
    if unseen.any():
        raise UsageError(
            "the targets hold a class that the estimator has not seen",
            expected=f"one of {list(classes)}",
            got=repr(names[unseen].flat[0]),
        )
    return torch.from_numpy(index)
