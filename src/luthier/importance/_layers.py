"""What linear and convolutional layers are fed: mean squares and second moments, by the name of the weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from luthier.errors import UsageError
from luthier.importance._batches import gather
from luthier.model.trace import Inputs

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {
        n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)
    }
    if not found:
        raise UsageError(
            "this criterion looks at the inputs of linear and convolutional layers, and there are none",
            got=type(model).__name__,
        )
    return found


def _weight_of(layer: str) -> str:
    return f"{layer}.weight".lstrip(".")


class _Watched:
    """Runs a model with a hook on the inputs of each of its layers."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.layers = model, _layers(model)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def watch(self, inputs: Inputs, hook: Callable[[str], Hook]) -> None:
        handles = [layer.register_forward_pre_hook(hook(name), with_kwargs=True) for name, layer in self.layers.items()]
        try:
            with torch.no_grad():
                self.model(*inputs.args, **inputs.kwargs)
        finally:
            for handle in handles:
                handle.remove()

    def add(self, name: str, total: Tensor, count: int) -> None:
        self.sums[name] = self.sums.get(name, torch.zeros_like(total)) + total
        self.counts[name] = self.counts.get(name, 0) + count

    def means(self) -> dict[str, Tensor]:
        return {name: total / self.counts[name] for name, total in self.sums.items()}


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What a layer is called with, by place or by name."""
    given: Tensor = args[0] if args else kwargs["input"]
    return given.detach()


class InputNorms:
    """The root mean square of each input of each layer."""

    def __init__(self, model: nn.Module) -> None:
        self.watched = _Watched(model)

    def see(self, inputs: Inputs, target: Any) -> None:
        self.watched.watch(inputs, self._hook)

    def _hook(self, name: str) -> Hook:
        def look(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = _given(args, kwargs).double()
            weight: Any = layer.weight
            last = -1 if isinstance(layer, nn.Linear) else -(weight.dim() - 1)
            flat = x.movedim(last, 0).flatten(1)
            self.watched.add(name, flat.square().sum(1), flat.shape[1])

        return look

    def result(self) -> dict[str, Tensor]:
        """Weight name -> values that broadcast to the weight."""
        layers = self.watched.layers
        return {_weight_of(n): _spread(mean.sqrt(), layers[n]) for n, mean in self.watched.means().items()}


def _spread(norms: Tensor, layer: Any) -> Tensor:
    """Per-input values shaped to multiply the layer's weight."""
    if isinstance(layer, nn.Linear):
        return norms
    ones = (1,) * (layer.weight.dim() - 2)
    if layer.transposed:
        return norms.view(-1, 1, *ones)
    by_group = norms.view(layer.groups, 1, -1).expand(-1, layer.out_channels // layer.groups, -1)
    return by_group.reshape(layer.out_channels, -1, *ones)


class Covariances:
    """Second moments E[x x'] of what each row of a layer's weight multiplies; float64, features squared numbers each.

    For convolutions x is a patch. Three-dimensional and transposed ones are left out.

    Args:
        model: the network.
        constant: whether x ends with a 1, so that the means are among the moments.
        widest: layers with more features than this are left out; None: none is.
    """

    def __init__(self, model: nn.Module, constant: bool = False, widest: int | None = None) -> None:
        self.watched, self.constant = _Watched(model), constant
        if widest is not None:
            layers = self.watched.layers
            self.watched.layers = {n: m for n, m in layers.items() if _features(m) <= widest}

    def see(self, inputs: Inputs, target: Any) -> None:
        self.watched.watch(inputs, self._hook)

    def _hook(self, name: str) -> Hook:
        def look(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            patches = patches_of(layer, _given(args, kwargs))
            if patches is not None:
                if self.constant:
                    patches = torch.cat([patches, torch.ones_like(patches[:, :1])], 1)
                self.watched.add(name, patches @ patches.transpose(1, 2), patches.shape[2])

        return look

    def result(self) -> dict[str, Tensor]:
        """Weight name -> [groups, features, features]."""
        return {_weight_of(name): mean for name, mean in self.watched.means().items()}


def _features(layer: Any) -> int:
    """How many numbers a row of a layer's weight holds."""
    return int(layer.weight[0].numel())


def second_moments(model: nn.Module, data: Iterable[Any], widest: int | None = None) -> dict[str, Tensor]:
    """E[x x'] of what the rows of each layer's weight multiply, with a 1 at the end; not of layers wider than that.

    Returns:
        weight name -> [groups, features + 1, features + 1], float64.
    """
    statistic = Covariances(model, constant=True, widest=widest)
    gather(model, data, [statistic])
    return statistic.result()


def patches_of(layer: Any, x: Tensor) -> Tensor | None:
    """What the rows of a layer's weight multiply, [groups, features, positions], float64; None where unknown."""
    x = x.double()
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1]).T[None]
    if layer.transposed or layer.weight.dim() > 4:
        return None
    rank = layer.weight.dim() - 2
    x = x if x.dim() == rank + 2 else x[None]
    if any(layer._reversed_padding_repeated_twice):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode)
    kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    if rank == 1:
        x, kernel, dilation, stride = x[:, :, None], (1, *kernel), (1, *dilation), (1, *stride)
    flat = F.unfold(x, kernel, dilation, 0, stride)  # [batch, channels * kernel, positions]
    return flat.view(len(flat), layer.groups, -1, flat.shape[-1]).permute(1, 2, 0, 3).flatten(2)
