"""Functions of each entry: a width may be summed over if, and only if, the function keeps zero."""

import torch
from torch import nn

from luthier.model import axes
from luthier.model.rules import elementwise

aten = torch.ops.aten


def plain(name, *args):
    return lambda y: getattr(aten, name)(y, *args)


WITH_NUMBERS = {
    "clamp": [(-1.0, 1.0), (0.5,), (None, -0.5), (-2.0, -1.0)],
    "clamp_": [(-1.0, 1.0), (0.5, 2.0)],
    "clip": [(0.0, 6.0), (1.0, 6.0)],
    "clamp_min": [(-0.5,), (0.5,)],
    "clamp_max": [(0.5,), (-0.5,)],
    "clamp_min_": [(0.0,), (1e-6,)],
    "clamp_max_": [(0.0,), (-1e-6,)],
    "threshold": [(0.1, 0.0), (0.1, 3.0), (-0.1, 3.0)],
    "hardtanh": [(), (0.5, 1.0)],
    "hardtanh_": [(), (-1.0, -0.5)],
    "leaky_relu": [(0.3,)],
    "celu": [(2.0,)],
    "nan_to_num": [(7.0,)],
    "softplus": [(), (2.0,)],
    "pow": [(2,), (3.0,), (0,)],
    "pow_": [(2,)],
    "fill_": [(0.0,), (2.0,)],
    "eq": [(0.0,), (1.0,)],
    "ne": [(0.0,), (1.0,)],
    "lt": [(0.0,), (1.0,)],
    "le": [(0.0,), (-1.0,)],
    "gt": [(0.0,), (-1.0,)],
    "ge": [(0.0,), (1.0,)],
}  # fmt: skip
POLES = {
    "log": plain("log"), "log_": plain("log_"), "log2": plain("log2"), "log10": plain("log10"),
    "reciprocal": plain("reciprocal"), "reciprocal_": plain("reciprocal_"), "rsqrt": plain("rsqrt"),
    "rsqrt_": plain("rsqrt_"), "pow to -1": plain("pow", -1.0), "pow_ to -0.5": plain("pow_", -0.5),
}  # fmt: skip
"""Infinite at zero: there is nothing to compare a cut with."""
BOUNDED = ("asin", "acos", "atanh", "tan")
AS_BOOL = ("logical_not", "bitwise_not")


def variants():
    found = {}
    for name in elementwise.FUNCTIONS:
        if not any(key.split()[0] == name for key in POLES):
            found |= {f"{name}{list(args)}": plain(name, *args) for args in WITH_NUMBERS.get(name, [()])}
    found["pow of a number"] = lambda y: aten.pow(2.0, y)
    return found | {name: plain(name) for name in SAME}


SAME = [n for n in elementwise.SAME if n not in ("dropout", "dropout_", "feature_dropout", "feature_dropout_", "to")]
SAME = [n for n in SAME if n != "type_as"]
FUNCTIONS = variants()


def prepared(name, y):
    """Within the function's domain, zero staying zero; a parameter is not written over."""
    kind = name.split("[")[0].split()[0]
    if kind in AS_BOOL:
        return y.abs() > 0
    if kind in BOUNDED:
        return y.tanh() * 0.9
    return y.abs() if kind.startswith(("sqrt", "log")) else y * 1 if kind.endswith("_") else y


class Summed(nn.Module):
    """A parameter for each function, summed over."""

    def __init__(self, table):
        super().__init__()
        self.table = table
        self.p = nn.ParameterList([nn.Parameter(torch.randn(4)) for _ in table])

    def forward(self, x):
        found = [f(prepared(name, p)).sum() for (name, f), p in zip(self.table.items(), self.p, strict=True)]
        return x * torch.stack([v if v.is_floating_point() else v.to(x.dtype) for v in found])


def passed(analysis):
    return {op.name for op, rule in analysis.operations if rule is not None}


def free(analysis, name):
    return axes.is_free(analysis.state[name][0].expr)


def test_a_width_is_free_if_and_only_if_zero_stays_zero(exact):
    torch.manual_seed(0)
    analysis = exact(Summed(FUNCTIONS), torch.randn(2, 1))
    for i, (name, f) in enumerate(FUNCTIONS.items()):
        assert free(analysis, f"p.{i}") == (f(prepared(name, torch.zeros(1))).item() == 0), name
    missing = {*elementwise.FUNCTIONS, *SAME} - passed(analysis) - {key.split()[0] for key in POLES}
    assert not missing, f"these have a rule and no case: {missing}"


def test_what_is_infinite_at_zero_is_held(exact):
    torch.manual_seed(0)
    analysis = exact(Summed({name: lambda y, f=f: f(y.abs()) * y for name, f in POLES.items()}), torch.randn(2, 1))
    assert not analysis.all_groups
    assert [str(why).split(" (")[0] for _, _, why in analysis.frozen] == [
        f"{name.split()[0]} is not finite at what a mask makes zero" for name in POLES
    ]
    assert {key.split()[0] for key in POLES} <= passed(analysis)


TWO = {
    "add": (lambda y, z: y + z, True),
    "add_": (lambda y, z: y.add_(z), True),
    "add a number": (lambda y, z: y + z + 1, False),
    "sub": (lambda y, z: y - 2 * z, True),
    "sub_": (lambda y, z: y.sub_(z, alpha=2), True),
    "subtract": (lambda y, z: aten.subtract(y, z), True),
    "rsub": (lambda y, z: 1 - y * z, False),
    "mul": (lambda y, z: y.sigmoid() * z, True),
    "mul_": (lambda y, z: y.mul_(z.cos()), True),
    "mul of ones": (lambda y, z: y.exp() * z.cos(), False),
    "multiply": (lambda y, z: aten.multiply(y, z), True),
    "multiply_": (lambda y, z: aten.multiply_(y, z), True),
    "div": (lambda y, z: y / z.exp(), True),
    "div_": (lambda y, z: y.div_(3) + z, True),
    "div by zero": (lambda y, z: y / z.abs(), False),
    "divide": (lambda y, z: aten.divide(y, z.cosh()), True),
    "true_divide": (lambda y, z: aten.true_divide(y, z.cosh()), True),
    "floor_divide": (lambda y, z: y // z.cosh(), True),
    "fmod": (lambda y, z: y.fmod(0.3) + z, True),
    "remainder": (lambda y, z: y.remainder(z), False),
    "addcdiv": (lambda y, z: torch.addcdiv(y, y, z), False),
    "addcmul": (lambda y, z: torch.addcmul(y, y, z), False),
    "lerp": (lambda y, z: y.lerp(z, 0.3), False),
    "maximum": (lambda y, z: torch.maximum(y, z), False),
    "max of two": (lambda y, z: torch.max(y, z), False),
    "minimum": (lambda y, z: torch.minimum(y, z), False),
    "atan2": (lambda y, z: torch.atan2(y, z.exp()), False),
    "logaddexp": (lambda y, z: torch.logaddexp(y, z), False),
    "xlogy": (lambda y, z: torch.xlogy(y, z.exp()), False),
    "where": (lambda y, z: torch.where(y > 0, z, 0.1), False),
    "masked_fill": (lambda y, z: y.masked_fill(z > 0, 1.0), False),
    "masked_fill_": (lambda y, z: y.masked_fill_(z > 0, 0.0), False),
    "logical_and": (lambda y, z: torch.logical_and(y > 0, z > 0), False),
    "logical_or": (lambda y, z: torch.logical_or(y > 0, z > 0), False),
    "logical_xor": (lambda y, z: torch.logical_xor(y > 0, z > 0), False),
    "bitwise_and": (lambda y, z: aten.bitwise_and(y > 0, z > 0), False),
    "bitwise_or": (lambda y, z: aten.bitwise_or(y > 0, z > 0), False),
    "bitwise_xor": (lambda y, z: aten.bitwise_xor(y > 0, z > 0), False),
    "__and__": (lambda y, z: aten.__and__(y > 0, z > 0), False),
    "__or__": (lambda y, z: aten.__or__(y > 0, z > 0), False),
    "greater": (lambda y, z: y > z, False),
    "clamp between": (lambda y, z: y.clamp(min=z), False),
    "ones_like": (lambda y, z: torch.ones_like(y) * z, True),
    "full_like": (lambda y, z: torch.full_like(y, 2.0) + z, False),
    "zeros_like": (lambda y, z: torch.zeros_like(y) + z, True),
    "zero_": (lambda y, z: y.zero_() + z, True),
    "copy_": (lambda y, z: torch.zeros_like(y).copy_(z) + y, True),
    "copy_ of ones": (lambda y, z: torch.zeros_like(y).copy_(z.cos()) + y, False),
    "type_as": (lambda y, z: y.type_as(z) + z, True),
    "to": (lambda y, z: y.to(torch.float64).to(z.dtype) + z, True),
    "dropout": (lambda y, z: nn.functional.dropout(y, training=False) + z, True),
    "feature_dropout": (lambda y, z: aten.feature_dropout(y, 0.5, False) + z, True),
    "dropout_": (lambda y, z: aten.dropout_(y, 0.5, False) + z, True),
    "feature_dropout_": (lambda y, z: aten.feature_dropout_(y, 0.5, False) + z, True),
    "alpha_dropout": (lambda y, z: aten.alpha_dropout(y, 0.5, False) + z, False),
    "feature_alpha_dropout": (lambda y, z: aten.feature_alpha_dropout(y, 0.5, False) + z, False),
    "prelu": (lambda y, z: nn.functional.prelu(y, z[0]) + z, True),
    "a broadcast factor": (lambda y, z: y * z.sum(-1, keepdim=True), True),
    "a broadcast term": (lambda y, z: y + z.sum(-1, keepdim=True), False),
}  # fmt: skip


class Paired(nn.Module):
    """Two parameters for each function of two arguments."""

    def __init__(self):
        super().__init__()
        self.p = nn.ParameterList([nn.Parameter(torch.randn(3, 4)) for _ in TWO])
        self.q = nn.ParameterList([nn.Parameter(torch.randn(3, 4)) for _ in TWO])

    def forward(self, x):
        rows = zip(TWO.items(), self.p, self.q, strict=True)
        found = [f(prepared(name, p), q).sum(-1) for (name, (f, _)), p, q in rows]
        return x * torch.stack([v if v.is_floating_point() else v.to(x.dtype) for v in found])


def test_functions_of_two_tensors(exact):
    torch.manual_seed(0)
    analysis = exact(Paired(), torch.randn(2, 1, 3))
    for i, (name, (f, expected)) in enumerate(TWO.items()):
        assert axes.is_free(analysis.state[f"p.{i}"][1].expr) == expected, name
        value = f(torch.zeros(1, 2), torch.zeros(1, 2)).sum().item()
        assert value == 0 or not expected, name
    missing = set(elementwise.RULES) - passed(analysis) - {*elementwise.FUNCTIONS, *elementwise.SAME} | {
        name for name in elementwise.SAME if name not in SAME and name not in passed(analysis)
    }
    assert not missing, f"these have a rule and no case: {missing}"


WRITTEN = {
    "through a view": lambda y: (y[..., :2].add_(1), y)[1],
    "under a view": lambda y: (y.view(2, 2), y.sigmoid_())[0],
    "in a part": lambda y: (y.unflatten(-1, (2, 2)).exp_(), y)[1],
    "copied into": lambda y: (y[..., 1:].copy_(y[..., :3].cos()), y)[1],
    "filled": lambda y: (y[..., 2:].fill_(0.5), y)[1],
}


def test_what_is_written_in_place_is_seen_through_every_view(exact):
    torch.manual_seed(0)
    table = {name: lambda y, f=f: f(y * 1) for name, f in WRITTEN.items()}
    analysis = exact(Summed(table), torch.randn(2, 1))
    assert not [name for i, name in enumerate(WRITTEN) if free(analysis, f"p.{i}")]
