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
from luthier.model.evaluating import evaluating
from luthier.model.keras import inner_of, is_keras

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
    inner = inner_of(model)
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
    """Log probabilities where it gives any, so that their softmax is the probabilities; decisions; or predictions.

    The class that it predicts is the largest always: some estimators (support vector machines) predict by other rules
    than by what they give for each class.
    """
    classes = getattr(model, "classes_", None)

    def predict(batch: Batch) -> Tensor:
        x = _array(batch.inputs[0])
        predicted = np.asarray(model.predict(x))
        if not isinstance(classes, np.ndarray):
            return torch.from_numpy(predicted.astype(np.float64))
        chosen = predicted[:, None] == classes
        scores = _scores(model, x, chosen)
        other = ~chosen[np.arange(len(scores)), scores.argmax(1)][:, None]
        above = np.nextafter(scores.max(1, keepdims=True), np.inf)
        return torch.from_numpy(np.where(chosen & other, above, scores))

    return predict


def _scores(model: Any, x: NDArray[Any], chosen: NDArray[Any]) -> NDArray[Any]:
    """What a classifier gives for each class, shape (n, classes)."""
    if hasattr(model, "predict_proba"):
        with np.errstate(divide="ignore"):
            return np.log(np.asarray(model.predict_proba(x), dtype=np.float64)).clip(min=-1e4)
    if not hasattr(model, "decision_function"):
        return chosen.astype(np.float64)
    given = np.asarray(model.decision_function(x), dtype=np.float64)
    if given.ndim == 1:
        return np.stack([-given / 2, given / 2], 1)
    return given if given.shape == chosen.shape else chosen.astype(np.float64)


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
