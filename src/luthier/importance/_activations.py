"""Means of activations, and of the loss's gradients there, by unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from luthier.errors import UsageError
from luthier.importance._axes import by_index
from luthier.importance._batches import Loss, batches, examples_of, loss_function, singly
from luthier.importance._examples import Examples, Owners
from luthier.model import Analysis, axes
from luthier.model.axes import find, touches
from luthier.model.evaluating import evaluating
from luthier.model.groups import Group
from luthier.model.op import Dim
from luthier.model.run import call, run
from luthier.model.trace import Inputs

Moments = Callable[..., Sequence[Tensor]]


class Places:
    """Where the activations of each group are consumed: (result, dimension) pairs.

    That is the input of what sums over the axis; where nothing does, the last result that has it.
    """

    def __init__(self, analysis: Analysis, groups: Sequence[Group]) -> None:
        self.analysis, self.groups = analysis, list(groups)
        self.of = {g.name: _consumers(analysis, g) for g in groups}
        self.nodes = {node for found in self.of.values() for node, _ in found}

    def at(self, node: fx.Node) -> list[tuple[Group, int, axes.Expr]]:
        """The groups consumed at a result: which, along which dimension, whose index each entry belongs to."""
        out = []
        for group in self.groups:
            for where, dim in self.of[group.name]:
                if where is node:
                    dims: Any = self.analysis.facts.dims[node]
                    out.append((group, dim, find(dims[dim].expr)))
        return out


class _Means:
    """Sums of rows by group, and how many values went into them."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, float] = {}

    def add(self, group: Group, dim: int, expr: Any, values: Sequence[Tensor]) -> None:
        rows = [v.double().movedim(dim, 0).flatten(1).sum(1) if v.dim() > 1 else v.double() for v in values]
        total = torch.stack([by_index(group, expr, row.cpu()) for row in rows])
        self.sums[group.name] = self.sums.get(group.name, torch.zeros_like(total)) + total
        self.counts[group.name] = self.counts.get(group.name, 0.0) + values[0].numel() / group.size

    def result(self) -> dict[str, Tensor]:
        return {name: total / self.counts[name] for name, total in self.sums.items()}


class Activations:
    """Means over the data of functions of the activations that go with each index of each group.

    Args:
        analysis: of the network.
        groups: which.
        moments: name -> function of an activation to the values whose means are wanted.
    """

    def __init__(self, analysis: Analysis, groups: Sequence[Group], moments: Mapping[Any, Moments]) -> None:
        self.analysis, self.places, self.moments = analysis, Places(analysis, groups), moments
        self.means = {name: _Means() for name in moments}

    def see(self, inputs: Inputs, target: Any) -> None:
        with torch.no_grad():
            _run(self.analysis, inputs, self._look)

    def _look(self, node: fx.Node, value: Any) -> None:
        if node in self.places.nodes:
            for name, function in self.moments.items():
                values = function(value.detach())
                for group, dim, expr in self.places.at(node):
                    self.means[name].add(group, dim, expr, values)

    def result(self) -> dict[Any, dict[str, Tensor]]:
        """Name -> group name -> [moments, group size]."""
        return {name: means.result() for name, means in self.means.items()}


class ActivationGradients:
    """The same for functions of an activation and of the loss's gradient there, example by example.

    The gradient is that along the edge into the layer that consumes the activation: what else reads the same
    result does not count, unless no layer does. It is of an example's own loss, the batch's being their mean.

    Args:
        analysis: of the network.
        groups: which.
        loss: of (output, target).
        moments: name -> function of (activation, gradient) to the values whose means are wanted.
        examples: name -> function of the slopes by example to the values whose means over examples are wanted. A slope
            is the derivative of an example's loss by a gate on the unit: [examples, group size].
    """

    def __init__(
        self,
        analysis: Analysis,
        groups: Sequence[Group],
        loss: str | Loss,
        moments: Mapping[Any, Moments],
        examples: Mapping[Any, Moments],
    ) -> None:
        self.analysis, self.places, self.measure = analysis, Places(analysis, groups), loss_function(loss)
        self.moments, self.examples = moments, examples
        self.means = {name: _Means() for name in moments}
        self.sums: dict[Any, dict[str, Tensor]] = {name: {} for name in examples}
        self.count = 0
        self.count, self.one_by_one = 0, False
        multiplying = {op.node for op, rule in analysis.operations if rule is not None and rule.macs is not None}
        unread = {n for n in self.places.nodes if not multiplying.intersection(n.users)}
        self.readers = multiplying | {user for n in unread for user in n.users}
        mine = {n for n in analysis.traced.parameters if n in analysis.traced.state}
        state = {n: t.detach() for n, t in analysis.traced.state.items()}
        self.state = {n: t.requires_grad_() if n in mine and t.is_floating_point() else t for n, t in state.items()}

    def see(self, inputs: Inputs, target: Any) -> None:
        count, at = examples_of(inputs, target)
        if self.one_by_one or not self._seen(inputs, target, Examples.of(self.analysis, inputs, count, at)):
            self.one_by_one = True
            for one, wanted in singly(inputs, target):
                self._alone(one, wanted, at)

    def _alone(self, inputs: Inputs, target: Any, at: int) -> None:
        """An example by itself, where those of a batch cannot be told apart at some of the places."""
        try:
            self._seen(inputs, target, Examples(1, frozenset()))
        except (RuntimeError, ValueError, IndexError) as error:
            raise UsageError(
                "the examples of a batch cannot be told apart at " + ", ".join(g.name for g in self.places.groups[:4]),
                expected="a layout that the analysis can follow, or a network and a loss that take one example",
                got=" ".join(str(error).split())[:200],
                fix="give data in batches of one, or use a criterion that needs no single examples, such as 'taylor'",
            ) from error

    def _seen(self, inputs: Inputs, target: Any, examples: Examples) -> bool:
        """Takes a batch in; False, and nothing is taken, where some place does not tell its examples apart."""
        edges: dict[fx.Node, Tensor] = {}

        def look(node: fx.Node, value: Any) -> None:
            if node in self.places.nodes:
                edges[node] = value.view_as(value)

        def step(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
            mine = [n for n in node.all_input_nodes if n in edges] if node in self.readers else []
            return call(node, {**values, **{n: edges[n] for n in mine}}) if mine else NotImplemented

        with torch.enable_grad():
            flat = _run(self.analysis, inputs, look, step, self.state)
            owners = {n: examples.at(self.analysis.facts.dims[n], edge.shape) for n, edge in edges.items()}
            if self.examples and None in owners.values():
                return False
            value = self.measure(self.analysis.traced.program.unflatten(flat), target)
            nodes = [n for n, edge in edges.items() if edge.requires_grad]
            found = torch.autograd.grad(value, [edges[n] for n in nodes], allow_unused=True)
        slopes: dict[str, Tensor] = {}
        for node, gradient in zip(nodes, found, strict=True):
            if gradient is not None:
                self._add(node, edges[node].detach(), gradient.detach() * examples.count, owners[node], slopes)
        for name, function in self.examples.items():
            for group, rows in slopes.items():
                total = torch.stack([v.double().sum(0).cpu() for v in function(rows)])
                self.sums[name][group] = self.sums[name].get(group, torch.zeros_like(total)) + total
        self.count += examples.count
        return True

    def _add(
        self, node: fx.Node, x: Tensor, gradient: Tensor, owners: Owners | None, slopes: dict[str, Tensor]
    ) -> None:
        for group, dim, expr in self.places.at(node):
            for name, function in self.moments.items():
                self.means[name].add(group, dim, expr, function(x, gradient))
            if self.examples and owners is not None:
                units = torch.from_numpy(axes.positions(expr, group.axis))
                rows = owners.sums((x * gradient).double(), dim, units, group.size)
                slopes[group.name] = slopes.get(group.name, torch.zeros_like(rows)) + rows

    def result(self) -> dict[Any, dict[str, Tensor]]:
        """Name -> group name -> [moments, group size]."""
        by_example = {name: {g: s / self.count for g, s in sums.items()} for name, sums in self.sums.items()}
        return {name: means.result() for name, means in self.means.items()} | by_example


def _run(analysis: Analysis, inputs: Inputs, look: Any, step: Any = None, state: Any = None) -> list[Any]:
    try:
        return run(analysis.traced, state or analysis.traced.state, inputs, look=look, step=step)
    except RuntimeError as error:
        raise UsageError(
            "the captured network does not run on a batch of the data",
            expected="batches shaped like the example inputs, of any size if the network's code allows it",
            got=" ".join(str(error).split())[:200],
            cause="a batch size that is written into its code, or inputs of another shape",
            fix="give data in batches of the size of the example inputs",
        ) from error


def _consumers(analysis: Analysis, group: Group) -> list[tuple[fx.Node, int]]:
    found = []
    for node, i, summed in analysis.facts.contracted:
        if node.op != "get_attr" and touches(summed, {group.axis}) and (node, i) not in found:
            found.append((node, i))
    return found or _producers(analysis, group)


def _producers(analysis: Analysis, group: Group) -> list[tuple[fx.Node, int]]:
    for op, _ in reversed(analysis.operations):
        for i, d in enumerate(analysis.facts.dims[op.node] or []):
            if isinstance(d, Dim) and touches(d.expr, {group.axis}):
                return [(op.node, i)]
    return []


def input_means(analysis: Analysis, places: Mapping[fx.Node, int], data: Iterable[Any]) -> dict[fx.Node, Tensor]:
    """The mean over the data, and over all other dimensions, of each index of one dimension of some results.

    Args:
        analysis: of the network.
        places: node -> the dimension that is kept.
        data: batches.

    Returns:
        node -> [size of that dimension], float64.
    """
    sums: dict[fx.Node, Tensor] = {}
    counts: dict[fx.Node, int] = {}

    def look(node: fx.Node, value: Any) -> None:
        if node in places:
            flat = value.detach().double().movedim(places[node], 0).flatten(1)
            sums[node] = sums.get(node, torch.zeros(1)) + flat.sum(1).cpu()
            counts[node] = counts.get(node, 0) + flat.shape[1]

    with evaluating(analysis.model), torch.no_grad():
        for inputs, _ in batches(data):
            _run(analysis, inputs, look)
    return {node: total / counts[node] for node, total in sums.items()}
