"""Normalisations: per channel (batch, instance), or over features (layer, RMS, group)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from luthier.model.axes import Axis, Product, unify
from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule
from luthier.model.rules.linear import biased

Size = Callable[[Any], int]


def per_channel(op: Op) -> Dims:
    """Batch and instance normalisation: the affine part decides what a removed channel emits."""
    x = op.dims(op.arg(0))
    channel = x[1]
    affine = [op.dims(a) for a in op.node.args[1:3] if isinstance(a, fx.Node)]
    for other in [*affine, *(op.dims(a) for a in op.node.args[3:5] if isinstance(a, fx.Node))]:
        op.unify(channel, other[0])
    if op.arg(5) is True:
        for d in [*x[2:], *(x[:1] if op.name == "batch_norm" else [])]:
            op.freeze(d, "positions that are averaged over")
    if op.name == "instance_norm" and op.arg(5) is True and not affine:
        zero = channel.zero
    else:
        zero = len(affine) == 2 and all(a[0].zero for a in affine)
    return [*biased(x[:1]), Dim(channel.expr, zero), *biased(x[2:])]


def over_features(op: Op) -> Dims:
    """Layer and RMS normalisation over the last dimensions."""
    x, count = op.dims(op.arg(0)), len(op.arg(1))
    weights = [op.dims(a) for a in (op.arg(2, "weight"), op.arg(3, "bias")) if isinstance(a, fx.Node)]
    if op.name == "rms_norm":
        weights = weights[:1]
    if count > 1:
        for d in x[-count:]:
            op.freeze(d, "a normalisation over several dimensions at once")
    elif weights:
        op.statistic(x[-count:])
    else:
        _hold(op, x[-count:])
    for weight in weights:
        for d, w in zip(x[-count:], weight, strict=True):
            op.unify(d, w)
    rows = x[:-count] if op.name == "rms_norm" else biased(x[:-count])
    return [*rows, *(Dim(d.expr, True) for d in x[-count:])]


def _hold(op: Op, dims: Dims) -> None:
    """Without weights there is nothing to mask by which a normalisation could tell what is left."""
    for d in dims:
        op.freeze(d, "a normalisation over it that has no weights")


def rewrite_shape(op: Op, node: fx.Node, size: Size) -> None:
    """The sizes that are normalised over."""
    count = len(op.arg(1))
    node.update_arg(1, [size(d) for d in op.dims(op.arg(0))[-count:]])


def group_norm(op: Op) -> Dims:
    """Channels = groups x channels per group; statistics run over the latter and over positions."""
    x, groups = op.dims(op.arg(0)), int(op.arg(1))
    g, inside = Axis(groups), Axis(x[1].size // groups)
    unify(x[1].expr, Product([g, inside]), op.because("groups that do not line up"))
    weights = [op.dims(a)[0] for a in (op.arg(2, "weight"), op.arg(3, "bias")) if isinstance(a, fx.Node)]
    if weights:
        op.statistic([Dim(inside)])
    else:
        _hold(op, [Dim(inside)])
    for d in x[2:]:
        op.freeze(d, "positions that are averaged over")
    for w in weights:
        op.unify(x[1], w)
    op.facts.memo[op.node] = g
    channel = Dim(x[1].expr, len(weights) == 2 and all(w.zero for w in weights))
    return [*biased(x[:1]), channel, *biased(x[2:])]


def rewrite_groups(op: Op, node: fx.Node, size: Size) -> None:
    """The number of groups that are left."""
    node.update_arg(1, size(op.facts.memo[op.node]))


RULES = {
    "batch_norm": Rule(per_channel),
    "instance_norm": Rule(per_channel),
    "layer_norm": Rule(over_features, rewrite_shape),
    "rms_norm": Rule(over_features, rewrite_shape),
    "group_norm": Rule(group_norm, rewrite_groups),
}
