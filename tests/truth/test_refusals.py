"""What cannot be cut is refused before anything is done, with what to do about it."""

import pytest
import torch
from torch import nn

import luthier as lt
from luthier.errors import UsageError


def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def broken(value):
    made = net()
    made[0].weight.data[3, 2] = value
    return made


class Quantised(nn.Module):
    """Stands for PyTorch's own, whose home has that name."""


Quantised.__module__ = "torch.ao.nn.quantized.dynamic.modules.linear"
X = torch.randn(4, 8)
CASES = {
    "no number": (lambda: broken(float("nan")), X, "not finite"),
    "infinite": (lambda: broken(float("inf")), X, "not finite"),
    "scripted": (lambda: torch.jit.trace(net(), X), X, "before scripting"),
    "quantised": (lambda: nn.Sequential(net(), Quantised()), X, "then quantise it"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), X, "call the network once"),
    "no network": (lambda: "net", X, "only networks"),
    "other shapes": (net, torch.randn(4, 9), "does not run on the example inputs"),
    "other types": (lambda: net().half(), X, "does not run on the example inputs"),
    "no example": (net, torch.randn(0, 8), "are empty"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("made", "x", "words"), CASES.values(), ids=CASES)
def test_what_cannot_be_cut_is_refused(made, x, words):
    with pytest.raises(UsageError, match=words):
        lt.prune_neurons(made(), x, ratio=0.5)


@pytest.mark.parametrize(("how", "words"), [({"ratio": {}}, "names no group"), ({"threshold": float("nan")}, "number")])
def test_amounts_that_say_nothing_are_refused(how, words):
    with pytest.raises(UsageError, match=words):
        lt.prune_neurons(net(), X, **how)


@pytest.mark.parametrize("made", [lambda: nn.DataParallel(net()), lambda: net().bfloat16(), nn.Sequential])
@pytest.mark.filterwarnings("ignore")
def test_wrapped_short_and_empty_networks_are_cut(made):
    model = made()
    given = X.to(next((p.dtype for p in model.parameters()), X.dtype))
    pruned = lt.prune_neurons(model, given, ratio=0.5)
    assert all(proof.passed for proof in pruned.check)
    assert pruned.plan.parameters[1] == (8 * 8 + 8 + 3 * 8 + 3 if list(model.parameters()) else 0)
