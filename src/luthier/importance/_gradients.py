"""Gradients and curvature of the loss, by parameter, and by the gates of units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from luthier.importance._batches import Loss, loss_function, requiring, singly, size_of
from luthier.keys import Key
from luthier.model import Analysis, axes
from luthier.model.groups import Group, Occurrence
from luthier.model.trace import Inputs

MOST_EXACT = 32
"""Up to this many gates their curvature is computed one by one, above it is estimated with random signs."""


def _floating(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if p.is_floating_point()}


def _sums(parameters: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Two zeros for each parameter, in single precision at least: half precision stops growing after some batches."""
    kinds = [(p, torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    return [(torch.zeros_like(p, dtype=kind), torch.zeros_like(p, dtype=kind)) for p, kind in kinds]


class Gradients:
    """The mean gradient of the loss by parameter, and the mean of its square; batches count by their examples.

    Args:
        model: the network; its own gradients are left as they were.
        loss: of (output, target).
        examples: whether squares are of single examples (a backward pass each) instead of batches.
    """

    def __init__(self, model: nn.Module, loss: str | Loss, examples: bool = False) -> None:
        self.model, self.measure, self.examples = model, loss_function(loss), examples
        self.parameters = _floating(model)
        self.sums = dict(zip(self.parameters, _sums(self.parameters.values()), strict=True))
        self.count = 0

    def see(self, inputs: Inputs, target: Any) -> None:
        if not self.examples:
            self._add(inputs, target, size_of(inputs, target))
            return
        for one, wanted in singly(inputs, target):
            self._add(one, wanted, 1)

    def _add(self, inputs: Inputs, target: Any, size: int) -> None:
        with requiring(self.parameters.values()):
            value = self.measure(self.model(*inputs.args, **inputs.kwargs), target)
            found = torch.autograd.grad(value, list(self.parameters.values()), allow_unused=True)
        for (first, second), g in zip(self.sums.values(), found, strict=True):
            if g is not None:
                exact = g.detach().to(first.dtype)
                first += size * exact
                second += size * exact**2
        self.count += size

    def result(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Parameter name -> (mean gradient, mean square)."""
        return {n: (first / self.count, second / self.count) for n, (first, second) in self.sums.items()}


class Curvature:
    """The mean gradient and the diagonal of the Hessian by parameter, the latter estimated without bias.

    Formula:
        diag H = E[z * (H z)], z of random signs; one draw a batch

    Source:
        Bekas et al., "An estimator for the diagonal of a matrix", 2007; used so by Yao et al., "AdaHessian", 2021.
    """

    def __init__(self, model: nn.Module, loss: str | Loss, key: Key) -> None:
        self.model, self.measure = model, loss_function(loss)
        self.parameters = _floating(model)
        self.sums = dict(zip(self.parameters, _sums(self.parameters.values()), strict=True))
        self.count, self.generator = 0, key.generator("curvature")

    def see(self, inputs: Inputs, target: Any) -> None:
        given, size = list(self.parameters.values()), size_of(inputs, target)
        with requiring(given), sdpa_kernel(SDPBackend.MATH):
            value = self.measure(self.model(*inputs.args, **inputs.kwargs), target)
            slopes = torch.autograd.grad(value, given, create_graph=True, allow_unused=True)
            signs = [_signs(self.generator, p) for p in given]
            bends = _products(slopes, signs, given)
        for (first, second), g, z, hz in zip(self.sums.values(), slopes, signs, bends, strict=True):
            if g is not None:
                first += size * g.detach().to(first.dtype)
            if hz is not None:
                second += size * z * hz.detach().to(second.dtype)
        self.count += size

    def result(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Parameter name -> (mean gradient, diagonal of the Hessian)."""
        return {n: (first / self.count, second / self.count) for n, (first, second) in self.sums.items()}


class Gates:
    """Slope and curvature of the loss as each unit fades: all its weights times a gate m, at m = 1.

    Up to :data:`MOST_EXACT` units each has its curvature computed; more are estimated as in :class:`Curvature`.
    """

    def __init__(self, analysis: Analysis, groups: Sequence[Group], loss: str | Loss, key: Key) -> None:
        self.model, self.measure, self.groups = analysis.model, loss_function(loss), list(groups)
        self.parameters = _floating(analysis.model)
        self.places = _by_parameter(self.groups)
        size = sum(g.size for g in self.groups)
        self.first, self.second = (torch.zeros(size, dtype=torch.float64) for _ in range(2))
        self.count, self.generator = 0, key.generator("gates")

    def see(self, inputs: Inputs, target: Any) -> None:
        like, size = next(iter(self.parameters.values())), size_of(inputs, target)
        gates = torch.ones(len(self.first), dtype=like.dtype, device=like.device, requires_grad=True)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            faded = self._faded(gates)
            output = torch.func.functional_call(self.model, faded, inputs.args, inputs.kwargs)
            (slope,) = torch.autograd.grad(self.measure(output, target), gates, create_graph=True)
            self.first += size * slope.detach().double().cpu()
            for z in self._probes(gates):
                (hz,) = _products([slope], [z], [gates])
                if hz is not None:
                    self.second += size * (z * hz).detach().double().cpu()
        self.count += size

    def _probes(self, gates: Tensor) -> Iterable[Tensor]:
        if len(gates) <= MOST_EXACT:
            return torch.eye(len(gates), dtype=gates.dtype, device=gates.device)
        return [_signs(self.generator, gates)]

    def _faded(self, gates: Tensor) -> dict[str, Tensor]:
        parts = dict(zip(self.groups, torch.split(gates, [g.size for g in self.groups]), strict=True))
        out = {}
        for name, places in self.places.items():
            weight: Tensor = self.parameters[name].detach()
            for group, place in places:
                one = torch.cat([parts[group], parts[group].new_ones(1)])  # index -1: what no gate closes
                where = torch.from_numpy(axes.positions(place.expr, group.axis)).to(one.device)
                weight = weight * one[where].view([-1 if i == place.dim else 1 for i in range(weight.dim())])
            out[name] = weight
        return out

    def result(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Group name -> (slope, curvature), [group size] each, float64."""
        sizes = [g.size for g in self.groups]
        pairs = zip(
            torch.split(self.first / self.count, sizes), torch.split(self.second / self.count, sizes), strict=True
        )
        return {g.name: pair for g, pair in zip(self.groups, pairs, strict=True)}


def _by_parameter(groups: Sequence[Group]) -> dict[str, list[tuple[Group, Occurrence]]]:
    out: dict[str, list[tuple[Group, Occurrence]]] = {}
    for group in groups:
        for place in group.occurrences:
            out.setdefault(place.parameter, []).append((group, place))
    return out


def _signs(generator: Any, like: Tensor) -> Tensor:
    drawn = 2 * generator.integers(0, 2, tuple(like.shape)) - 1
    return torch.as_tensor(drawn).to(like.device, like.dtype)


def _products(slopes: Sequence[Tensor | None], signs: Sequence[Tensor], given: Sequence[Tensor]) -> Sequence[Any]:
    """The Hessian times the signs."""
    pairs = [(g, z) for g, z in zip(slopes, signs, strict=True) if g is not None and g.requires_grad]
    if not pairs:
        return [None] * len(given)
    outputs, weights = [g for g, _ in pairs], [z for _, z in pairs]
    return torch.autograd.grad(outputs, given, grad_outputs=weights, retain_graph=True, allow_unused=True)
