"""One pass over the data, in constant memory: gradients of the loss, and means of activations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from luthier.errors import UsageError
from luthier.importance._axes import by_index
from luthier.model import Analysis
from luthier.model.axes import find, touches
from luthier.model.groups import Group
from luthier.model.op import Dim
from luthier.model.run import run
from luthier.model.trace import Inputs, evaluating

Loss = Callable[[Any, Any], Tensor]


def batches(data: Iterable[Any]) -> Iterator[tuple[Inputs, Any]]:
    """Each batch as (inputs, target): a pair, a tuple whose last entry is the target, or inputs alone.

    Raises:
        UsageError: there is not a single batch.
    """
    empty = True
    for batch in data:
        empty = False
        if isinstance(batch, list | tuple) and len(batch) > 1:
            inputs, target = batch[:-1], batch[-1]
            yield Inputs.of(inputs[0] if len(inputs) == 1 else tuple(inputs)), target
        else:
            yield Inputs.of(batch), None
    if empty:
        raise UsageError("the data holds no batch", expected="at least one batch of (inputs, target)", got="none")


def gradients(model: nn.Module, data: Iterable[Any], loss: str | Loss) -> dict[str, tuple[Tensor, Tensor]]:
    """The mean gradient of the loss by parameter, and the mean of its square, batch by batch.

    The model is run in evaluation mode; its own gradients and its mode are left as they were.
    """
    measure = loss_function(loss)
    parameters = {n: p for n, p in model.named_parameters() if p.is_floating_point()}
    sums = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in parameters.items()}
    count = 0
    with evaluating(model), _requiring(parameters.values()), torch.enable_grad():
        for inputs, target in batches(data):
            value = measure(model(*inputs.args, **inputs.kwargs), target)
            found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            for (first, second), g in zip(sums.values(), found, strict=True):
                if g is not None:
                    first += g.detach()
                    second += g.detach() ** 2
            count += 1
    return {n: (first / count, second / count) for n, (first, second) in sums.items()}


def loss_function(loss: str | Loss) -> Loss:
    """A loss by its name in ``torch.nn.functional``; a function is handed through.

    Raises:
        UsageError: no such loss.
    """
    if not isinstance(loss, str):
        return loss
    found = getattr(nn.functional, loss, None)
    if found is None:
        raise UsageError(f"unknown loss {loss!r}", expected="a name in torch.nn.functional, such as 'cross_entropy'")
    return lambda output, target: found(output, target)


@contextlib.contextmanager
def _requiring(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    was = [(p, p.requires_grad) for p in parameters]
    try:
        for p, _ in was:
            p.requires_grad_(True)
        yield
    finally:
        for p, flag in was:
            p.requires_grad_(flag)


def activation_means(
    analysis: Analysis, groups: Sequence[Group], moments: Callable[[Tensor], Sequence[Tensor]], data: Iterable[Any]
) -> dict[str, Tensor]:
    """Means over the data of functions of the activations that go with each index of each group.

    Activations are taken where they are consumed: at the input of what sums over the axis.

    Returns:
        group name -> [moments, group size].
    """
    places = {g.name: _consumers(analysis, g) for g in groups}
    wanted = {node for found in places.values() for node, _ in found}
    sums: dict[str, Tensor] = {}
    counts: dict[str, float] = {}

    def look(node: fx.Node, value: Any) -> None:
        if node not in wanted:
            return
        for group in groups:
            for at, dim in places[group.name]:
                if at is node:
                    _add(group, dim, moments(value.detach()), analysis, at, sums, counts)

    with evaluating(analysis.model), torch.no_grad():
        for inputs, _ in batches(data):
            _looked_at(analysis, inputs, look)
    return {name: total / counts[name] for name, total in sums.items()}


def _looked_at(analysis: Analysis, inputs: Inputs, look: Callable[[fx.Node, Any], None]) -> None:
    try:
        run(analysis.traced, analysis.traced.state, inputs, look=look)
    except RuntimeError as error:
        raise UsageError(
            "the captured network does not run on a batch of the data",
            expected="batches shaped like the example inputs, of any size if the network's code allows it",
            got=" ".join(str(error).split())[:200],
            cause="a batch size that is written into its code, or inputs of another shape",
            fix="give data in batches of the size of the example inputs",
        ) from error


def _consumers(analysis: Analysis, group: Group) -> list[tuple[fx.Node, int]]:
    """Where the activations of a group are consumed."""
    found = []
    for node, i in dict.fromkeys(analysis.facts.contracted):
        dims: Any = analysis.facts.dims[node]
        if node.op != "get_attr" and touches(dims[i].expr, {group.axis}):
            found.append((node, i))
    return found or _producers(analysis, group)


def _producers(analysis: Analysis, group: Group) -> list[tuple[fx.Node, int]]:
    for op, _ in reversed(analysis.operations):
        for i, d in enumerate(analysis.facts.dims[op.node] or []):
            if isinstance(d, Dim) and touches(d.expr, {group.axis}):
                return [(op.node, i)]
    return []


def _add(
    group: Group,
    dim: int,
    values: Sequence[Tensor],
    analysis: Analysis,
    node: fx.Node,
    sums: dict[str, Tensor],
    counts: dict[str, float],
) -> None:
    dims: Any = analysis.facts.dims[node]
    expr = find(dims[dim].expr)
    rows = [v.double().movedim(dim, 0).flatten(1).sum(1).cpu() if v.dim() > 1 else v.double().cpu() for v in values]
    total = torch.stack([by_index(group, expr, row) for row in rows])
    sums[group.name] = sums.get(group.name, torch.zeros_like(total)) + total
    counts[group.name] = counts.get(group.name, 0.0) + values[0].numel() / group.size


def input_norms(model: nn.Module, data: Iterable[Any]) -> dict[str, Tensor]:
    """The root mean square of each input of each linear and convolutional layer, by the name of its weight.

    Returns:
        weight name -> values that broadcast to the weight.

    Raises:
        UsageError: the model has no such layers, as one that runs a captured graph.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)}
    if not layers:
        raise UsageError(
            "this criterion looks at the inputs of linear and convolutional layers, and there are none",
            got=type(model).__name__,
        )
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def look(layer: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0].detach().double()
            weight: Any = layer.weight
            last = -1 if isinstance(layer, nn.Linear) else -(weight.dim() - 1)
            flat = x.movedim(last, 0).flatten(1)
            sums[name] = sums.get(name, torch.zeros(1)) + flat.square().sum(1)
            counts[name] = counts.get(name, 0) + flat.shape[1]

        return look

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        with evaluating(model), torch.no_grad():
            for inputs, _ in batches(data):
                model(*inputs.args, **inputs.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return {f"{n}.weight".lstrip("."): _spread((sums[n] / counts[n]).sqrt(), layers[n]) for n in sums}


def _spread(norms: Tensor, layer: Any) -> Tensor:
    """Per-input values shaped to multiply the layer's weight."""
    if isinstance(layer, nn.Linear):
        return norms
    ones = (1,) * (layer.weight.dim() - 2)
    if layer.transposed:
        return norms.view(-1, 1, *ones)
    by_group = norms.view(layer.groups, 1, -1).expand(-1, layer.out_channels // layer.groups, -1)
    return by_group.reshape(layer.out_channels, -1, *ones)


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
            _looked_at(analysis, inputs, look)
    return {node: total / counts[node] for node, total in sums.items()}
