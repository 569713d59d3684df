"""Doors: outputs for a batch, whatever kind of model it is. Each gives what a torch module of the same maths would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from luthier.batch import Batch, as_loader, check_precision, device_of, outputs_of
from luthier.errors import UsageError
from luthier.measure.estimators import Estimator
from luthier.measure.heads import Watch, keras_gives_probabilities, onnx_gives_probabilities
from luthier.measure.runtime import Session
from luthier.model.evaluating import evaluating
from luthier.model.keras import inner_of, is_keras

Predict = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Door:
    """How a model is asked.

    Attributes:
        predict: a batch's outputs, on the CPU.
        outputs: what they are, once asked: "logits", "probabilities" or "numbers", see :class:`luthier.answers.Known`.
        read: turns what a user gave as data into what ``predict`` takes.
        mode: what the model is put into meanwhile.
    """

    predict: Predict
    outputs: Callable[[], str]
    read: Callable[[Any], Iterable[Any]] = as_loader
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
        return _through_onnx(Path(model))
    inner = inner_of(model)
    if is_keras(inner):
        return _through_keras(inner)
    if isinstance(inner, nn.Module):
        return _through_torch(inner)
    if hasattr(model, "predict") and hasattr(model, "get_params"):
        estimator = Estimator(model)
        return Door(estimator.predict, lambda: estimator.outputs, estimator.read)
    raise UsageError(
        "this is no model",
        expected="a torch.nn.Module, the path of an .onnx file, a Keras model or a scikit-learn estimator",
        got=type(model).__name__,
    )


def _through_torch(model: nn.Module) -> Door:
    device, watch = device_of(model), Watch()

    def predict(batch: Batch) -> Tensor:
        given = batch.to(device)
        with watch.looking() as seen:
            outputs = outputs_of(_asked(model, given))
            seen.append(outputs)
        return outputs.cpu()

    return Door(predict, lambda: _kind(watch.probabilities), mode=evaluating(model))


def _asked(model: nn.Module, batch: Batch) -> Any:
    try:
        return batch.run(model)
    except RuntimeError:
        check_precision(model, batch)  # which says so where that is why
        raise


def _kind(probabilities: bool | None) -> str:
    return "probabilities" if probabilities else "logits"


def _through_onnx(path: Path) -> Door:
    session = Session(path)

    def predict(batch: Batch) -> Tensor:
        return torch.from_numpy(_run(session, batch)[session.main])

    return Door(predict, lambda: _kind(onnx_gives_probabilities(path, session.main)))


def _run(session: Session, batch: Batch) -> list[NDArray[Any]]:
    """The file's outputs.

    Raises:
        UsageError: inputs of other names, number, shapes or types than the file takes.
    """
    given = batch.named or dict(zip(session.names, batch.inputs, strict=False))
    cause = fix = None
    if set(session.names) <= set(given) and len(batch.inputs) <= len(session.names):
        try:
            return session(*(given[name] for name in session.names))
        except Exception as error:  # ONNX Runtime's own have no common base
            cause = " ".join(str(error).split())[:200]
        held, size = session.shapes[0][0], len(given[session.names[0]])
        if isinstance(held, int) and held != size:
            cause = f"the file holds its batch size: {held}, not {size}"
            fix = f"batches of {held} and no other last one, or a file from luthier.export_onnx, which leaves it free"
    raise UsageError(
        "the ONNX file does not take these inputs",
        expected={n: tuple(s) for n, s in zip(session.names, session.shapes, strict=True)},
        got={n: tuple(x.shape) for n, x in batch.named.items()} or [tuple(x.shape) for x in batch.inputs],
        cause=cause,
        fix=fix,
    )


def _through_keras(model: Any) -> Door:
    """With any of its backends; what the layers do in training is off."""
    watch = Watch()

    def predict(batch: Batch) -> Tensor:
        inputs: Any = dict(batch.named) or batch.inputs
        if isinstance(inputs, tuple):
            arrays = [_array(x) for x in inputs]
            given: Any = arrays[0] if len(arrays) == 1 else arrays
        else:
            given = {name: _array(x) for name, x in inputs.items()}
        with watch.looking() as seen:
            result = model(given, training=False)
            if isinstance(result, dict):
                result = result.get("logits", next(iter(result.values())))
            first = result[0] if isinstance(result, tuple | list) else result
            seen += [first] if isinstance(first, Tensor) else []
        keras = sys.modules["keras"]
        return torch.from_numpy(np.array(keras.ops.convert_to_numpy(first)))

    return Door(predict, lambda: _kind(watch.probabilities or keras_gives_probabilities(model)))


def _array(x: Any) -> NDArray[Any]:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
