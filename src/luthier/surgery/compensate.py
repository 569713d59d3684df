"""Mean compensation: what the removed units put out on average goes into the consumer's bias.

A cut drops a varying signal and its mean. The mean can be kept for nothing: y = W x + b becomes
y = W_kept x_kept + (b + W_removed mean(x_removed)). At the borders of a padded convolution this is approximate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from luthier.errors import UsageError
from luthier.importance import input_means
from luthier.model import Analysis
from luthier.model.op import Op
from luthier.surgery.plan import Plan

_LAYERS = ("linear", "conv1d", "conv2d", "conv3d")


def compensate(model: nn.Module, analysis: Analysis, plan: Plan, data: Iterable[Any] | None) -> list[str]:
    """Folds the removed units' mean output into the biases of the layers that used it, in place.

    Args:
        model: the cut network.
        analysis: of the original.
        plan: what was cut.
        data: batches.

    Returns:
        the layers that were changed; those without a bias use the running mean of a batch norm that follows,
        and are left alone where there is none.

    Raises:
        UsageError: there is no data.
    """
    if data is None:
        raise UsageError("compensate='mean' needs data=", expected="batches of (inputs, target)", got="None")
    layers = [op for op, _ in analysis.operations if op.name in _LAYERS and _loses_inputs(op, plan)]
    means = input_means(analysis, {op.arg(0): _feature(op) for op in layers}, data)
    changed = []
    with torch.no_grad():
        for op in layers:
            target = _receiver(op)
            if target is not None:
                _fold(model, analysis, plan, op, means[op.arg(0)], *target)
                changed.append(str(op.arg(1).target).rpartition(".")[0])
    return changed


def _feature(op: Op) -> int:
    return len(op.dims(op.arg(0))) - 1 if op.name == "linear" else 1


def _loses_inputs(op: Op, plan: Plan) -> bool:
    """A layer with weights of its own, used once, whose inputs were cut; grouped ones are left alone."""
    weight = op.arg(1)
    if weight.op != "get_attr" or len(weight.users) != 1 or (op.name != "linear" and op.arg(6, "groups", 1) != 1):
        return False
    dims = plan.kept.get(str(weight.target))
    return dims is not None and len(dims) > 1 and dims[1] is not None


def _receiver(op: Op) -> tuple[str, float] | None:
    """The tensor that takes the mean, and its sign: the bias, or the running mean that is subtracted next."""
    bias = op.arg(2, "bias")
    if isinstance(bias, fx.Node):
        alone = bias.op == "get_attr" and len(bias.users) == 1
        return (str(bias.target), 1.0) if alone else None
    follower = next(iter(op.node.users)) if len(op.node.users) == 1 else None
    if follower is None or getattr(follower.target, "_opname", "") != "batch_norm":
        return None
    mean: Any = follower.args[3]
    return (str(mean.target), -1.0) if isinstance(mean, fx.Node) and mean.op == "get_attr" else None


def _fold(model: nn.Module, analysis: Analysis, plan: Plan, op: Op, mean: Tensor, name: str, sign: float) -> None:
    weight = str(op.arg(1).target)
    whole = analysis.traced.state[analysis.traced.ties.get(weight, weight)].detach().double()
    rows, columns = plan.kept[weight][:2]
    gone = sorted(set(range(whole.shape[1])) - set(columns or []))
    matrix = whole.flatten(2).sum(2) if whole.dim() > 2 else whole
    matrix = matrix if rows is None else matrix[rows]
    lost = matrix[:, gone] @ mean[gone].to(matrix.device)
    tensor = dict(model.named_parameters()) | dict(model.named_buffers())
    tensor[name].add_((sign * lost).to(tensor[name].dtype))
