"""Least squares after a cut: layers are re-fitted, in order, to what they computed before.

A layer computed y = W x; in the cut network it sees z instead: inputs are gone, and those that stay come from layers
that were re-fitted themselves. The weights nearest in output are U + E[(y - U z) z'] E[z z']^-1, with U what the cut
left of W: what the kept units tell of the removed ones is used, and what earlier layers got wrong is made good. Where
there is a bias it is re-fitted too. What the data do not ask for stays as it was. Batch norms see what they saw before,
so their statistics hold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from luthier import importance
from luthier.errors import UsageError
from luthier.importance import patches_of
from luthier.model import Analysis, Inputs
from luthier.model.evaluating import evaluating
from luthier.surgery.plan import Plan

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
DAMPING = 0.001
WIDEST = 8192  # inputs of a layer, counted with a convolution's window: half a gigabyte of moments
BATCHES = 16  # of the data, at most
SWEEPS = 16  # layers of a deeper network are re-fitted several at a time
POSITIONS = 1 << 14  # of a batch, at most: rows of a linear layer's input, places of a convolution's


def reconstruct(model: nn.Module, analysis: Analysis, plan: Plan, data: Iterable[Any] | None) -> list[str]:
    """Re-fits a cut network's layers by least squares to what they computed before, in place.

    Args:
        model: the cut network.
        analysis: of the original.
        plan: what was cut.
        data: batches, of which the first 16 are used.

    Returns:
        the weights that were re-fitted: those of linear layers and of ungrouped convolutions in one and two dimensions,
        from the first that lost inputs on, of at most 8,192 inputs (times the window). A network that was rebuilt from
        its graph has no layers to look into: there only those that lost inputs are, each by itself.

    Raises:
        UsageError: there is no data, or no layer to look at.

    Source:
        He et al., "Channel pruning for accelerating very deep neural networks", ICCV 2017, equation 3 and section 3.2
        (in order, against the original's outputs); Luo et al., "ThiNet", ICCV 2017.
    """
    if data is None:
        raise UsageError("compensate='least_squares' needs data=", expected="batches of (inputs, target)", got="None")
    seen = [inputs for inputs, _ in islice(importance.batches(data), BATCHES)]
    names = _in_order(analysis.model, seen[0])
    if not all(isinstance(_layer(model, name), LAYERS) for name in names):
        return _each_by_itself(model, analysis, plan, seen)
    lost = [i for i, name in enumerate(names) if _rows_and_columns(plan, name)[1] is not None]
    late = names[lost[0] :] if lost else []
    size = -(-len(late) // SWEEPS) or 1
    with evaluating(analysis.model), evaluating(model), torch.no_grad():
        for i in range(0, len(late), size):
            _refit(model, analysis.model, plan, late[i : i + size], seen)
    return [_weight_of(name) for name in late]


def _weight_of(layer: str) -> str:
    return f"{layer}.weight".lstrip(".")


def _rows_and_columns(plan: Plan, layer: str) -> tuple[list[int] | None, list[int] | None]:
    """What stays of a layer's outputs and inputs; None where all does."""
    dims = plan.kept.get(_weight_of(layer), [None, None])
    return dims[0], dims[1]


def _layer(model: nn.Module, name: str) -> Any:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _in_order(model: nn.Module, inputs: Inputs) -> list[str]:
    """The names of the layers that can be re-fitted, in the order in which they run.

    Raises:
        UsageError: there is none.
    """
    found: list[str] = []
    layers = {n: m for n, m in model.named_modules() if isinstance(m, LAYERS)}
    if not layers:
        raise UsageError("least squares re-fits linear and convolutional layers, and there are none", got=type(model))

    def hook(name: str) -> Any:
        return lambda _, args: found.append(name) if args else None

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(*inputs.args, **inputs.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    return [name for name in dict.fromkeys(found) if _fits(layers[name], uses)]


def _fits(layer: Any, uses: Mapping[int, int]) -> bool:
    """Whether a layer's weight is a parameter of its own, used by it alone, and its equations are few enough."""
    own = all(p is None or uses[id(p)] == 1 for p in layer._parameters.values())
    return (
        own and "weight" in layer._parameters and getattr(layer, "groups", 1) == 1 and layer.weight[0].numel() <= WIDEST
    )


def _refit(model: nn.Module, dense: nn.Module, plan: Plan, names: Sequence[str], data: Sequence[Inputs]) -> None:
    """Layers that are looked at in the same passes through both networks."""
    known: dict[str, tuple[Tensor, Tensor]] = {}
    for inputs in data:
        wanted, given = _outputs(dense, names, inputs), _inputs(model, names, inputs)
        for name in names:
            layer, rows = model.get_submodule(name), _rows_and_columns(plan, name)[0]
            for x, y in zip(given[name], wanted[name], strict=True):
                found = _moments(layer, x, y, rows)
                before = known.get(name)
                known[name] = found if before is None else (before[0] + found[0], before[1] + found[1])
    for name, (inner, cross) in known.items():
        _solve(model.get_submodule(name), inner, cross)


def _inputs(model: nn.Module, names: Sequence[str], inputs: Inputs) -> dict[str, list[Tensor]]:
    """What some layers are fed, call by call."""
    return _watched(model, names, inputs, lambda args, _: args[0])


def _outputs(model: nn.Module, names: Sequence[str], inputs: Inputs) -> dict[str, list[Tensor]]:
    """What some layers put out, call by call."""
    return _watched(model, names, inputs, lambda _, output: output)


def _watched(model: nn.Module, names: Sequence[str], inputs: Inputs, pick: Any) -> dict[str, list[Tensor]]:
    seen: dict[str, list[Tensor]] = defaultdict(list)

    def hook(name: str) -> Any:
        return lambda _, args, output: seen[name].append(pick(args, output).detach())

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        model(*inputs.args, **inputs.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _moments(layer: Any, x: Tensor, y: Tensor, rows: list[int] | None) -> tuple[Tensor, Tensor]:
    """Sums of x x' and of x y', with a constant 1 at the end of x where there is a bias."""
    if isinstance(layer, nn.Linear):
        x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        step = -(-len(x) // POSITIONS)
        x, y = x[::step], y[::step].T
    else:
        batched = y.dim() == layer.weight.dim()
        some = max(1, POSITIONS // y[0, 0].numel()) if batched else len(x)
        x, y = x[:some], y[:some] if batched else y
        y = y.movedim(-layer.weight.dim() + 1, 0).flatten(1)
    patches: Any = patches_of(layer, x)
    features = patches[0]
    if layer.bias is not None:
        features = torch.cat([features, torch.ones_like(features[:1])])
    y = (y if rows is None else y[rows]).double()
    return features @ features.T, features @ y.T


def _solve(layer: Any, inner: Tensor, cross: Tensor) -> None:
    """Moves a layer's weights to the least squares, as far as the data ask for it."""
    weight, bias = layer.weight, layer.bias
    now = weight.detach().double().flatten(1)
    if bias is not None:
        now = torch.cat([now, bias.detach().double()[:, None]], 1)
    damped = inner + DAMPING * inner.diagonal().mean() * torch.eye(len(inner), dtype=inner.dtype, device=inner.device)
    best = now + torch.linalg.solve(damped, cross - inner @ now.T).T
    weight.copy_(best[:, : now.shape[1] - (bias is not None)].view(weight.shape))
    if bias is not None:
        bias.copy_(best[:, -1])


def _each_by_itself(model: nn.Module, analysis: Analysis, plan: Plan, data: Sequence[Inputs]) -> list[str]:
    """Layers that lost inputs, each as if the others were what they were before: needs the original's layers alone."""
    moments = importance.second_moments(analysis.model, [(i.kwargs or i.args, None) for i in data], WIDEST)
    parameters, changed = dict(model.named_parameters()), []
    for name, dims in plan.kept.items():
        found = moments.get(name)
        if name in parameters and found is not None and len(found) == 1 and len(dims) > 1 and dims[1] is not None:
            weight = analysis.traced.state[analysis.traced.ties.get(name, name)].detach()
            bias = parameters.get(name.removesuffix("weight") + "bias")
            fitted, shift = _fitted(weight if dims[0] is None else weight[dims[0]], dims[1], found[0], bias is not None)
            with torch.no_grad():
                parameters[name].copy_(fitted.view(parameters[name].shape))
                if bias is not None:
                    bias.add_(shift.to(bias.dtype))
            changed.append(name)
    return changed


def _fitted(weight: Tensor, kept: list[int], moments: Tensor, free: bool) -> tuple[Tensor, Tensor]:
    """The rows' best weights over the kept input channels, [outputs, kept features], and what a free bias gains."""
    rows, size = weight.double().flatten(1), weight[0, 0].numel()
    rows = torch.cat([rows, torch.zeros_like(rows[:, :1])], 1)  # the bias, of which only the change is sought
    columns = torch.tensor([c * size + k for c in kept for k in range(size)] + [rows.shape[1] - 1] * free)
    inner = moments[columns][:, columns]
    difference = rows @ moments[:, columns] - rows[:, columns] @ inner
    damped = inner + DAMPING * inner.diagonal().mean() * torch.eye(len(columns), dtype=inner.dtype)
    best = rows[:, columns] + torch.linalg.solve(damped, difference.T).T  # what the data do not ask for stays
    return (best[:, :-1], best[:, -1]) if free else (best, torch.zeros(len(best)))
