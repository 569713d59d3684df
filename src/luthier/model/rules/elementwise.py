"""Element by element: aligned dimensions are one, single indices broadcast."""

from __future__ import annotations

import cmath
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from luthier.model import axes
from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule

SAME = (
    "dropout", "dropout_", "feature_dropout", "feature_dropout_", "contiguous", "clone", "alias", "detach", "detach_",
    "_to_copy", "to", "type_as", "lift_fresh_copy", "positive", "requires_grad_",
)  # fmt: skip
FUNCTIONS = (
    "relu", "relu_", "relu6", "relu6_", "gelu", "gelu_", "silu", "silu_", "tanh", "tanh_", "neg", "neg_", "abs",
    "abs_", "sqrt", "sqrt_", "sign", "sin", "erf", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "selu_",
    "celu", "celu_", "mish", "mish_", "hardswish", "hardswish_", "hardtanh", "hardtanh_", "square", "square_",
    "asinh", "atan", "sinh", "tan", "softshrink", "hardshrink", "trunc", "round", "floor", "ceil", "log1p", "expm1",
    "rrelu", "rrelu_", "threshold", "nan_to_num", "sigmoid", "sigmoid_", "exp", "exp_", "log", "log_", "log2",
    "log10", "exp2", "cos", "hardsigmoid", "hardsigmoid_", "softplus", "reciprocal", "reciprocal_", "rsqrt",
    "rsqrt_", "erfc", "log_sigmoid", "clamp", "clamp_", "clamp_min", "clamp_max", "clip", "logical_not",
    "bitwise_not", "isnan", "isinf", "isfinite", "pow", "pow_", "fill_", "absolute", "negative", "sgn",
    "cosh", "asin", "acos", "atanh", "sin_", "cos_", "clamp_min_", "clamp_max_", "eq", "ne", "lt", "le", "gt", "ge",
)  # fmt: skip
OTHERS = (
    "alpha_dropout", "feature_alpha_dropout", "logical_and", "logical_or", "logical_xor", "bitwise_and",
    "bitwise_or", "bitwise_xor", "__and__", "__or__", "maximum", "minimum", "atan2", "lerp", "addcmul", "where",
    "masked_fill", "masked_fill_", "logaddexp", "xlogy", "ones_like", "full_like",
)  # fmt: skip
SUMS = ("add", "add_", "sub", "sub_", "subtract", "rsub")
PRODUCTS = ("mul", "mul_", "multiply", "multiply_")
QUOTIENTS = ("div", "div_", "divide", "true_divide", "floor_divide", "fmod", "remainder", "addcdiv")


def same(op: Op) -> Dims:
    """The same values: what vanished still does."""
    return list(op.dims(op.arg(0)))


def function(op: Op) -> Dims:
    """A function of each entry: whether it keeps zero is asked of the operation itself, with the arguments it has."""
    x = op.arg(0) if isinstance(op.arg(0), fx.Node) else op.arg(1)
    symbols = [n for n in op.node.all_input_nodes if n is not x and n.op != "get_attr"]
    if symbols or op.tensors() != [x]:
        return other(op)
    value = _at_zero(op, x)
    if not cmath.isfinite(value):
        _hold_poles(op, op.dims(x))
    return [Dim(d.expr, d.zero and value == 0) for d in op.dims(x)]


def _at_zero(op: Op, x: fx.Node) -> complex:
    """The operation on a zero; the flag of a training network is off."""
    args, kwargs = fx.node.map_arg((op.node.args, op.node.kwargs), lambda n: _ZERO if n is x else False)
    return _value(op.node.target, tuple(args), tuple(kwargs.items()), x.meta["val"].dtype)


_ZERO = "zero"
"""Stands for the tensor among an operation's arguments."""


@functools.lru_cache(maxsize=1024)
def _value(target: Any, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...], dtype: torch.dtype) -> complex:
    zero = torch.zeros((), dtype=dtype, device="cpu")
    found = target(*(zero if a is _ZERO else a for a in args), **dict(kwargs))
    value: complex = (found[0] if isinstance(found, tuple) else found).item()
    return value


def _hold_poles(op: Op, dims: Sequence[Dim]) -> None:
    """Infinity times a masked weight is no zero, so that what is infinite at zero must not be masked."""
    for d in dims:
        if d.zero and axes.is_free(d.expr):
            op.freeze(d, f"{op.name} is not finite at what a mask makes zero")


def other(op: Op) -> Dims:
    """Anything goes: what vanished may not any more."""
    return op.broadcast([op.dims(n) for n in op.tensors()], lambda flags: False)


def added(op: Op) -> Dims:
    """A sum vanishes where every term does; a number or a broadcast term does not."""
    operands = _operands(op)
    return op.broadcast(operands, lambda flags: all(f is True for f in flags))


def _operands(op: Op) -> list[Dims]:
    return [op.dims(a) if isinstance(a, fx.Node) else [] for a in op.node.args[:2]] or [[]]


def multiplied(op: Op) -> Dims:
    """A product vanishes where any factor does."""
    return op.broadcast(_operands(op), lambda flags: any(flags))


def divided(op: Op) -> Dims:
    """A quotient vanishes where its numerator does; where its divisor does, it is nothing."""
    if op.name == "addcdiv":
        _hold_poles(op, op.dims(op.arg(2)))
        return other(op)
    operands = _operands(op)
    _hold_poles(op, operands[1])
    return op.broadcast(operands, lambda flags: flags[0] is True)


def blank(op: Op) -> Dims:
    """Zeros shaped like the input, or in its place."""
    return [Dim(d.expr, True) for d in op.dims(op.arg(0))]


def copied(op: Op) -> Dims:
    """Written over in place: what vanishes is what is written."""
    return op.broadcast(_operands(op), lambda flags: flags[1] is True)


def prelu(op: Op) -> Dims:
    """A slope per channel; zero stays zero."""
    x, slope = op.dims(op.arg(0)), op.dims(op.arg(1))
    if slope and slope[0].size != 1 and len(x) > 1:
        op.unify(x[1], slope[0])
    return list(x)


RULES = {
    **{name: Rule(same) for name in SAME},
    **{name: Rule(function) for name in FUNCTIONS},
    **{name: Rule(other) for name in OTHERS},
    **{name: Rule(added) for name in SUMS},
    **{name: Rule(multiplied) for name in PRODUCTS},
    **{name: Rule(divided) for name in QUOTIENTS},
    **{name: Rule(blank) for name in ("zeros_like", "zero_")},
    "copy_": Rule(copied),
    "prelu": Rule(prelu),
}
