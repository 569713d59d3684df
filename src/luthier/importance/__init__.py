"""What matters: criteria that score weights, and the axes made of them. One file is one criterion.

A criterion's ``METHOD`` is a class with ``needs`` (what it has to be given: see :data:`Needs`) and one of

* ``elements(evidence)``: a score for every element of a tensor, and ``combine(total)``: from the sum of the
  scores of all elements that go with one index of an axis to that index's score (``terms(evidence)`` instead,
  where what is summed for an axis is not the score of a single weight);
* ``moments(x)``: values whose means over the data are wanted, and ``combine(means)``: from these means, one
  row each, to the score of each index;
* ``rows(matrix)``: from the weights that make each index, one row each, to the scores.

So one file serves single weights (:func:`weight_scores`) and whole neurons, channels or heads (:func:`score`),
and none of them asks what layer it looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from luthier import discover
from luthier.errors import UsageError
from luthier.importance._axes import producing_rows, sum_over_axis
from luthier.importance._statistics import activation_means, gradients, input_means, input_norms
from luthier.keys import Key
from luthier.model import Analysis
from luthier.model.groups import Group

__all__ = ["Criterion", "Evidence", "Needs", "Own", "get", "input_means", "names", "score", "weight_scores"]

Needs = Literal["nothing", "gradients", "activations", "inputs"]
"""Weights alone; gradients of a loss over data; activations over data; norms of the inputs of each layer over data."""


@dataclass(frozen=True)
class Evidence:
    """What is known of one tensor.

    Args:
        name: its name in the model.
        weight: its values.
        grad: the mean gradient of the loss over the data, same shape; None where no data was asked for.
        grad2: the mean squared gradient, batch by batch, same shape; None likewise.
        inputs: the root mean square of what each weight is multiplied with, broadcastable; None likewise.
        norm: whether it scales the result of a normalisation layer.
        key: random streams.
    """

    name: str
    weight: Tensor
    grad: Tensor | None = None
    grad2: Tensor | None = None
    inputs: Tensor | None = None
    norm: bool = False
    key: Key = field(default_factory=lambda: Key(0))

    @property
    def gradient(self) -> Tensor:
        """The gradient, which is zero where the loss does not depend on the tensor."""
        return torch.zeros_like(self.weight) if self.grad is None else self.grad

    @property
    def square(self) -> Tensor:
        """The mean squared gradient, zero likewise."""
        return torch.zeros_like(self.weight) if self.grad2 is None else self.grad2


class Criterion(Protocol):
    """What every criterion has, beside one of the methods named above."""

    needs: Needs


@dataclass(frozen=True)
class Own:
    """A criterion of the user's own: a function from :class:`Evidence` to a score per element."""

    function: Callable[[Evidence], Tensor]
    needs: Needs = "gradients"

    def elements(self, evidence: Evidence) -> Tensor:
        return self.function(evidence)

    def combine(self, total: Tensor) -> Tensor:
        return total


def names() -> list[str]:
    """The criteria there are."""
    return discover.names(__name__)


def get(criterion: str | Criterion | Callable[[Evidence], Tensor]) -> Any:
    """The criterion of that name; an object is handed through, a function becomes a criterion.

    Raises:
        UsageError: there is no such criterion.
    """
    if isinstance(criterion, str):
        return discover.load(
            __name__, {"magnitude": "l1", "gradient": "taylor"}.get(criterion, criterion), "criterion"
        )()
    return criterion if hasattr(criterion, "needs") else Own(criterion)


def score(
    analysis: Analysis,
    criterion: str | Criterion | Callable[[Evidence], Tensor] = "l2",
    data: Iterable[Any] | None = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    *,
    groups: Iterable[Group] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Scores every index of every group: the least goes first.

    Args:
        analysis: of the network.
        criterion: a name (see ``luthier methods``), an object, or a function of your own.
        data: batches, as (inputs, target) pairs, where the criterion needs them.
        loss: from the model's output and the target to a number, or a name such as "cross_entropy".
        groups: which groups; all that are cut by default if None.
        seed: for criteria that draw.

    Returns:
        group name -> scores [group size], float64.

    Raises:
        UsageError: the criterion needs data or a loss and there is none.

    Example:
        >>> from luthier.model import analyse
        >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
        >>> scores = score(analyse(net, torch.zeros(1, 2)), "l2")
        >>> scores["0"].shape
        torch.Size([3])
    """
    method, chosen = get(criterion), list(analysis.groups if groups is None else groups)
    if hasattr(method, "moments"):
        means = activation_means(analysis, chosen, method.moments, _demand(data, criterion, "data"))
        return {name: method.combine(rows) for name, rows in means.items()}
    if hasattr(method, "rows"):
        return {g.name: method.rows(producing_rows(g, analysis.traced.state)) for g in chosen}
    terms = getattr(method, "terms", method.elements)
    elements = {e.name: terms(e) for e in _evidence(analysis.model, method, data, loss, criterion, seed)}
    found = {g.name: method.combine(sum_over_axis(g, elements)) for g in chosen}
    _not_mute(found, criterion)
    return found


def _not_mute(scores: Mapping[str, Tensor], criterion: Any) -> None:
    mute = [name for name, values in scores.items() if len(values) > 1 and not bool(values.any())]
    if mute:
        raise UsageError(
            f"the criterion {criterion!r} says nothing about {', '.join(mute[:4])}: every score is zero",
            expected="scores that tell indices apart",
            cause="no normalisation layer there, weights that are all zero, or a loss that does not depend on them",
            fix="protect these modules, or use another criterion, such as 'l2'",
        )


def weight_scores(
    model: nn.Module,
    criterion: str | Criterion | Callable[[Evidence], Tensor] = "l1",
    data: Iterable[Any] | None = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Scores every element of every parameter.

    Args:
        model: the network.
        criterion: a name, an object or a function, of the kind that scores weights.
        data: batches, as (inputs, target) pairs, where the criterion needs them.
        loss: from the model's output and the target to a number, or a name such as "cross_entropy".
        seed: for criteria that draw.

    Returns:
        parameter name -> scores of the same shape.

    Raises:
        UsageError: a criterion of activations, or data or a loss is missing.

    Example:
        >>> float(weight_scores(nn.Linear(1, 1), "magnitude")["weight"].min()) >= 0
        True
    """
    method = get(criterion)
    if not hasattr(method, "elements"):
        raise UsageError(
            f"the criterion {criterion!r} scores neurons, not single weights",
            expected="one of " + ", ".join(n for n in names() if hasattr(get(n), "elements")),
        )
    return {e.name: method.elements(e) for e in _evidence(model, method, data, loss, criterion, seed)}


def _evidence(
    model: nn.Module, method: Any, data: Iterable[Any] | None, loss: Any, criterion: Any, seed: int
) -> Iterable[Evidence]:
    grads: dict[str, tuple[Tensor, Tensor]] = {}
    inputs: dict[str, Tensor] = {}
    if method.needs == "gradients" and not (isinstance(method, Own) and data is None):
        grads = gradients(model, _demand(data, criterion, "data"), _demand(loss, criterion, "loss"))
    if method.needs == "inputs":
        inputs = input_norms(model, _demand(data, criterion, "data"))
    norms = {f"{path}.weight".lstrip(".") for path, m in model.named_modules() if "Norm" in type(m).__name__}
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            grad, grad2 = grads.get(name, (None, None))
            yield Evidence(name, parameter.detach(), grad, grad2, inputs.get(name), name in norms, Key(seed))


def _demand(value: Any, criterion: Any, what: str) -> Any:
    if value is None:
        raise UsageError(
            f"the criterion {criterion!r} needs {what}=",
            expected="batches of (inputs, target)"
            if what == "data"
            else "a function of (output, target), or 'cross_entropy'",
            got="None",
            fix=f"pass {what}=..., or use a criterion that looks at the weights alone, such as 'l2'",
        )
    return value
