"""scikit-learn estimators as models: their scores as logits, their own inputs and names of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from luthier.batch import Batch, as_loader
from luthier.errors import UsageError

_LEAST = -1e4  # log of a probability of 0


class Estimator:
    """A fitted scikit-learn estimator, asked as a torch module is.

    Log probabilities where it gives any, so that their softmax is the probabilities; decisions; or predictions. The
    class that it predicts is the largest always: some estimators (support vector machines) predict by other rules
    than by what they give for each class.

    Args:
        model: a classifier, also one of several yes/no questions (multilabel), or anything else that predicts numbers.

    Attributes:
        classes: what its classes are called; several arrays for several questions; None where it has none.
        outputs: what its outputs are, see :class:`luthier.answers.Known`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.classes = getattr(model, "classes_", None)
        self.outputs = "numbers" if self.classes is None else "logits"

    def predict(self, batch: Batch) -> Tensor:
        """Outputs of shape (n, classes), (n, k) of k yes/no questions; of numbers as they are predicted.

        Raises:
            UsageError: it is not fitted, or not with such inputs.
        """
        x: Any = batch.inputs[0]
        x = x.detach().cpu().numpy() if isinstance(x, Tensor) else x
        try:
            return torch.from_numpy(self._outputs(x))
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"{type(self.model).__name__} cannot predict",
                expected="a fitted estimator, and inputs such as it was fitted with",
                got=f"{type(x).__name__} of shape {getattr(x, 'shape', (len(x),))}",
                cause=" ".join(str(error).split())[:200],
                fix="model.fit(X, y) first" if type(error).__name__ == "NotFittedError" else None,
            ) from error

    def _outputs(self, x: Any) -> NDArray[Any]:
        predicted = _dense(self.model.predict(x))
        if self.classes is None:
            return predicted.astype(np.float64)
        if predicted.ndim == 2 and predicted.shape[1] > 1:
            return self._answers(x, predicted)
        return self._scores(x, predicted.reshape(-1, 1) == np.asarray(self.classes).reshape(1, -1))

    def _scores(self, x: Any, chosen: NDArray[Any]) -> NDArray[Any]:
        """What a classifier gives for each class, shape (n, classes), the largest where it is chosen."""
        scores = self._given(x, chosen)
        other = ~chosen[np.arange(len(scores)), scores.argmax(1)][:, None]
        above = np.nextafter(scores.max(1, keepdims=True), np.inf)
        found: NDArray[Any] = np.where(chosen & other, above, scores)
        return found

    def _given(self, x: Any, chosen: NDArray[Any]) -> NDArray[Any]:
        if hasattr(self.model, "predict_proba"):
            with np.errstate(divide="ignore"):
                return np.log(np.asarray(self.model.predict_proba(x), dtype=np.float64)).clip(min=_LEAST)
        if not hasattr(self.model, "decision_function"):
            return chosen.astype(np.float64)
        given = np.asarray(self.model.decision_function(x), dtype=np.float64)
        if given.ndim == 1:
            return np.stack([-given / 2, given / 2], 1)
        return given if given.shape == chosen.shape else chosen.astype(np.float64)

    def _answers(self, x: Any, predicted: NDArray[Any]) -> NDArray[Any]:
        """Logits of yes/no questions, shape (n, k), above 0 where yes is predicted."""
        yes = self._numbered(predicted) == 1
        scores = self._asked(x)
        if scores is None or scores.shape != yes.shape:
            return np.where(yes, 1.0, -1.0)
        found: NDArray[Any] = np.where(yes, np.maximum(scores, np.nextafter(0, 1)), np.minimum(scores, 0.0))
        return found

    def _asked(self, x: Any) -> NDArray[Any] | None:
        """What a classifier gives for several questions, shape (n, k)."""
        if not hasattr(self.model, "predict_proba"):
            return _dense(self.model.decision_function(x)) if hasattr(self.model, "decision_function") else None
        given = self.model.predict_proba(x)
        if isinstance(given, list):  # of each question, shape (n, 2)
            given = np.stack([_of_yes(p, names) for p, names in zip(given, self._names(len(given)), strict=True)], 1)
        chances = torch.from_numpy(_dense(given).astype(np.float64))
        logits: NDArray[Any] = chances.logit().clamp(_LEAST, -_LEAST).numpy()
        return logits

    def read(self, data: Any) -> list[Batch]:
        """Data as the estimator takes them, in one batch where they come as a pair; targets numbered by its classes.

        Args:
            data: (X, y), where X is what its ``predict`` takes (arrays, data frames, texts, sparse matrices); or
                batches of such pairs.

        Raises:
            UsageError: neither, or targets that the estimator has not seen.
        """
        pair = isinstance(data, tuple | list) and len(data) == 2 and not isinstance(data[0], tuple | list | Mapping)
        texts = isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], list)
        items = [data] if pair or texts else list(as_loader(data))
        return [self._batch(item) for item in items]

    def _batch(self, item: Any) -> Batch:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UsageError(
                "data for an estimator cannot be read",
                expected="(X, y), or batches of (X, y)",
                got=type(item).__name__ + (f" of {len(item)}" if isinstance(item, tuple | list | Mapping) else ""),
            )
        inputs: Any = item[0]
        return Batch((inputs,), torch.from_numpy(self._target(_dense(item[1]))))

    def _target(self, given: NDArray[Any]) -> NDArray[Any]:
        """Targets as numbers: of shape (n,), or (n, k) for several questions."""
        values = given.ravel() if given.ndim == 2 and given.shape[1] == 1 else given
        if self.classes is None:
            return _as_numbers(values)
        if values.ndim == 2:
            return self._numbered(values)
        return _places(values, np.asarray(self.classes).ravel().tolist())

    def _numbered(self, answers: NDArray[Any]) -> NDArray[Any]:
        """Answers by name to several yes/no questions as 0 and 1, shape (n, k)."""
        pairs = [_no_and_yes(names) for names in self._names(answers.shape[1])]
        return np.stack([_places(column, pair) for column, pair in zip(answers.T, pairs, strict=True)], 1)

    def _names(self, count: int) -> Sequence[NDArray[Any]]:
        """What the classes of each of several questions are called."""
        if isinstance(self.classes, list) and len(self.classes) == count:
            return self.classes
        return [np.array([0, 1])] * count


def _no_and_yes(names: NDArray[Any]) -> list[Any]:
    if set(np.asarray(names).tolist()) <= {0, 1}:
        return [0, 1]
    if len(names) != 2:
        raise UsageError(
            "one of several questions has other than two classes",
            expected="yes/no questions",
            got=f"the classes {list(names)}",
            fix="evaluate the estimators of each question by themselves",
        )
    return list(np.asarray(names).tolist())


def _of_yes(chances: NDArray[Any], names: NDArray[Any]) -> NDArray[Any]:
    """The probability of yes, of a question's probabilities of shape (n, 1 or 2)."""
    at = np.flatnonzero(np.asarray(names) == _no_and_yes(names)[1])
    return chances[:, at[0]] if len(at) else np.zeros(len(chances))


def _places(values: NDArray[Any], names: list[Any]) -> NDArray[Any]:
    """Targets, by name, as numbers of the classes.

    Raises:
        UsageError: one that the estimator has not seen.
    """
    place = {name: i for i, name in enumerate(names)}
    unseen = [value for value in values.tolist() if value not in place]
    if unseen:
        raise UsageError(
            "the targets hold a class that the estimator has not seen",
            expected=f"one of {names}",
            got=repr(unseen[0]),
        )
    return np.array([place[value] for value in values.tolist()], dtype=np.int64)


def _as_numbers(values: NDArray[Any]) -> NDArray[Any]:
    try:
        return values if values.dtype.kind in "biuf" else values.astype(np.float64)
    except (TypeError, ValueError):
        raise UsageError(
            "the targets are no numbers",
            expected="numbers, since the estimator has no classes",
            got=repr(values.flat[0]),
            cause="a classifier that is not fitted, or a regressor",
        ) from None


def _dense(x: Any) -> NDArray[Any]:
    """An array of whatever holds numbers or names."""
    if isinstance(x, Tensor):
        return x.detach().cpu().numpy()
    return np.array(x.toarray() if hasattr(x, "toarray") else x)
