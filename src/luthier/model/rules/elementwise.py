"""Element by element: aligned dimensions are one, single indices broadcast."""

from __future__ import annotations

from torch import fx

from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule

KEEPS_ZERO = (
    "relu", "relu_", "relu6", "relu6_", "gelu", "gelu_", "silu", "silu_", "tanh", "tanh_", "neg", "abs", "sqrt",
    "sign", "sin", "erf", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "selu_", "celu", "celu_", "mish",
    "mish_", "hardswish", "hardswish_", "hardtanh", "hardtanh_", "square", "asinh", "atan", "sinh", "tan",
    "softshrink", "hardshrink", "trunc", "round", "floor", "ceil", "log1p", "expm1", "softsign", "rrelu", "rrelu_",
    "threshold", "nan_to_num", "clamp_min", "tanhshrink", "dropout", "dropout_", "feature_dropout",
    "feature_dropout_", "contiguous", "clone", "alias", "detach", "detach_", "_to_copy", "to", "type_as",
    "lift_fresh_copy", "lift_fresh", "float", "double", "half", "identity", "positive", "fill_diagonal_",
    "requires_grad_", "neg_", "abs_", "sqrt_", "square_",
)  # fmt: skip
OTHERS = (
    "sigmoid", "sigmoid_", "exp", "exp_", "log", "cos", "hardsigmoid", "hardsigmoid_", "softplus", "reciprocal",
    "rsqrt", "erfc", "logsigmoid", "log_sigmoid", "alpha_dropout", "feature_alpha_dropout", "clamp", "clamp_",
    "clamp_max", "clip", "logical_not", "bitwise_not", "eq", "ne", "lt", "le", "gt", "ge", "logical_and",
    "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "isnan", "isinf", "isfinite", "maximum", "minimum",
    "fmod", "remainder", "floor_divide", "atan2", "lerp", "addcmul", "addcdiv", "where", "masked_fill",
    "masked_fill_", "bitwise_xor", "logaddexp", "xlogy", "log2", "log10", "exp2", "ones_like", "full_like",
    "__and__", "__or__", "rsqrt_", "reciprocal_", "log_",
)  # fmt: skip
SUMS = ("add", "add_", "sub", "sub_", "subtract", "rsub")
PRODUCTS = ("mul", "mul_", "multiply", "multiply_")
QUOTIENTS = ("div", "div_", "divide", "true_divide")


def unary(op: Op) -> Dims:
    """Maps zero to zero: what vanished still does."""
    return list(op.dims(op.arg(0)))


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
    """A quotient vanishes where its numerator does."""
    return op.broadcast(_operands(op), lambda flags: flags[0] is True)


def power(op: Op) -> Dims:
    """A positive power keeps zero."""
    exponent = op.arg(1)
    keeps = isinstance(exponent, int | float) and exponent > 0
    out = op.broadcast(_operands(op), lambda flags: flags[0] is True)
    return out if keeps else [Dim(d.expr, False) for d in out]


def blank(op: Op) -> Dims:
    """Zeros shaped like the input."""
    return [Dim(d.expr, True) for d in op.dims(op.arg(0))]


def prelu(op: Op) -> Dims:
    """A slope per channel; zero stays zero."""
    x, slope = op.dims(op.arg(0)), op.dims(op.arg(1))
    if slope and slope[0].size != 1 and len(x) > 1:
        op.unify(x[1], slope[0])
    return list(x)


RULES = {
    **{name: Rule(unary) for name in KEEPS_ZERO},
    **{name: Rule(other) for name in OTHERS},
    **{name: Rule(added) for name in SUMS},
    **{name: Rule(multiplied) for name in PRODUCTS},
    **{name: Rule(divided) for name in QUOTIENTS},
    "pow": Rule(power),
    "pow_": Rule(power),
    "zeros_like": Rule(blank),
    "prelu": Rule(prelu),
}
