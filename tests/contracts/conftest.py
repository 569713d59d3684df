"""What the tests of rules share: the masked original, made without the library, and cuts compared with it."""

import copy

import pytest
import torch

from luthier.model import analyse
from luthier.surgery import cut


def masked(net, plan):
    """The user's own network in double precision, what is removed of its parameters zeroed."""
    out = copy.deepcopy(net).double()
    for name, p in out.named_parameters():
        for dim, index in enumerate(plan.kept.get(name) or []):
            if index is not None:
                gone = torch.ones(p.shape[dim], dtype=torch.bool)
                gone[list(index)] = False
                p.data[(slice(None),) * dim + (gone,)] = 0
    return out


def compared(net, analysis, keep, inputs):
    """Cuts, and compares with the masked original, except where a normalisation runs over what is left."""
    pruned = cut(net, analysis, keep, target="graph")
    assert all(p.passed for p in pruned.check)
    if any("statistics" in analysis.group(name).roles for name in keep):
        return
    doubles = [x.double() if x.is_floating_point() else x for x in inputs]
    with torch.no_grad():
        got, expected = copy.deepcopy(pruned.model).double()(*doubles), masked(net, pruned.plan)(*doubles)
    assert got.shape == expected.shape
    assert expected.abs().max() > 0
    assert (got - expected).abs().max() <= 1e-9 * expected.abs().max()


@pytest.fixture
def exact():
    """Analyses a network, cuts it in several ways, compares each time; returns the analysis."""

    def run(net, *inputs):
        net.eval()
        analysis = analyse(net, inputs)
        groups = analysis.all_groups
        compared(net, analysis, {g.name: list(range(0, g.size, 2)) for g in groups}, inputs)
        compared(net, analysis, {g.name: [g.size - 1] for g in groups}, inputs)
        return analysis

    return run
