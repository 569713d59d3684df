"""What a criterion is given, and what it has to offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from luthier.errors import UsageError
from luthier.keys import Key

Needs = Literal[
    "nothing",
    "gradients",
    "examples",
    "curvature",
    "gates",
    "inputs",
    "covariance",
    "activations",
    "activation_gradients",
]
"""What has to be gathered over the data.

nothing: weights alone. gradients: of the loss, batch by batch. examples: squared gradients, example by example.
curvature: the diagonal of the loss's Hessian. gates: slope and curvature of the loss as a unit fades. inputs: root
mean squares of each layer's inputs. covariance: their second moments. activations: where they are consumed.
activation_gradients: the same with the loss's gradient there.
"""
WITH_LOSS = frozenset({"gradients", "examples", "curvature", "gates", "activation_gradients"})
"""Needs that a loss goes with."""


@dataclass(frozen=True)
class Evidence:
    """What is known of one tensor.

    Args:
        name: its name in the model.
        weight: its values.
        grad: the mean gradient of the loss over the data, same shape; None where no data was asked for.
        grad2: the mean squared gradient, same shape, of single examples where the criterion needs "examples",
            else of batches; None likewise.
        inputs: the root mean square of what each weight is multiplied with, broadcastable; None likewise.
        curvature: the diagonal of the loss's Hessian, same shape; None likewise.
        covariance: second moments of the layer's inputs, [groups, features, features]; None likewise, and where
            the tensor is not the matrix or kernel of a layer.
        norm: whether it scales the result of a normalisation layer.
        key: random streams.
    """

    name: str
    weight: Tensor
    grad: Tensor | None = None
    grad2: Tensor | None = None
    inputs: Tensor | None = None
    curvature: Tensor | None = None
    covariance: Tensor | None = None
    norm: bool = False
    key: Key = field(default_factory=lambda: Key(0))

    @property
    def gradient(self) -> Tensor:
        """The gradient, which is zero where the loss does not depend on the tensor.

        Raises:
            UsageError: none was gathered.
        """
        return self._gathered(self.grad, "gradients")

    @property
    def square(self) -> Tensor:
        """The mean squared gradient, likewise."""
        return self._gathered(self.grad2, "squared gradients")

    @property
    def bend(self) -> Tensor:
        """The diagonal of the Hessian, likewise."""
        return self._gathered(self.curvature, "curvature")

    def _gathered(self, value: Tensor | None, what: str) -> Tensor:
        if value is None:
            raise UsageError(
                f"the criterion looks at {what}, and none were gathered",
                expected="data= and loss=, and a criterion whose needs say so",
                fix="pass both; a function of your own says what it needs by importance.Own(function, needs=...)",
            )
        return value


class Criterion(Protocol):
    """What every criterion has, beside one of the methods named in :mod:`luthier.importance`."""

    needs: Needs


@dataclass(frozen=True)
class Own:
    """A criterion of the user's own: a function from :class:`Evidence` to a score per element.

    Args:
        function: its scores have the shape of ``evidence.weight``.
        needs: what is gathered for it: by default gradients, where there are data and a loss; "inputs", "covariance",
            "examples" or "curvature" likewise (see :data:`Needs`).

    Example:
        >>> from luthier.importance import weight_scores
        >>> from torch import nn, ones
        >>> seen = Own(lambda e: e.weight.abs() * (1 if e.inputs is None else e.inputs), needs="inputs")
        >>> sorted(weight_scores(nn.Linear(2, 3), seen, [ones(4, 2)]))
        ['bias', 'weight']
    """

    function: Callable[[Evidence], Tensor]
    needs: Needs = "gradients"

    def elements(self, evidence: Evidence) -> Tensor:
        return self.function(evidence)

    def combine(self, total: Tensor) -> Tensor:
        return total
