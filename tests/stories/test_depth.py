"""Whole residual branches go: what is left computes what it did without their contribution."""

import copy

import pytest
import torch
from torch import nn

from luthier.errors import UsageError
from luthier.export.bundle import load, save
from luthier.model import analyse, cost
from luthier.surgery import Plan, branch_scores, branches, drop_branches, prune_neurons


class Block(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.a, self.n = nn.Conv2d(i, o, 3, stride, 1), nn.BatchNorm2d(o)
        self.b, self.m = nn.Conv2d(o, o, 3, 1, 1), nn.BatchNorm2d(o)
        self.short = nn.Conv2d(i, o, 1, stride) if i != o else nn.Identity()

    def branch(self, x):
        return self.m(self.b(torch.relu_(self.n(self.a(x)))))

    def forward(self, x):
        y = self.branch(x)
        y += self.short(x)
        return torch.relu(y)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(4, 4), Block(4, 4), Block(4, 6, 2), Block(6, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = Net().eval()
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    return model, torch.randn(2, 1, 8, 8)


def test_branches_are_found_by_themselves(net):
    model, x = net
    found = branches(analyse(model, x))
    assert [b.name for b in found] == ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]
    assert "blocks.2.short.weight" not in found[2].parameters
    assert set(found[1].parameters) == {f"blocks.1.{n}" for n, _ in model.blocks[1].named_parameters()}


@pytest.mark.parametrize("names", [["blocks.1"], ["blocks.0", "blocks.1"], ["blocks.2", "blocks.3"]])
def test_the_rest_equals_the_original_with_the_branches_zeroed(net, names):
    model, x = net
    dropped = drop_branches(model, x, names)
    reference = copy.deepcopy(model)
    for name in names:
        block = reference.get_submodule(name)
        nn.init.zeros_(block.m.weight)
        nn.init.zeros_(block.m.bias)
    with torch.no_grad():
        assert torch.allclose(dropped.model(x), reference(x), atol=1e-6)
    gone = {n for n in model.state_dict() if any(n.startswith(k + ".") for k in names) and ".short." not in n}
    assert set(dropped.model.state_dict()) == set(model.state_dict()) - gone
    assert all(dropped.plan.kept[n][0] == [] for n, _ in model.named_parameters() if n in gone)
    assert dropped.plan.macs[1] == cost.count_macs(dropped.model, x)
    assert [p.name for p in dropped.check if not p.passed] == []
    assert Plan.from_json(dropped.plan.to_json()) == dropped.plan


def test_it_is_cut_in_width_too_saved_and_trained(net, tmp_path):
    model, x = net
    pruned = prune_neurons(drop_branches(model, x, ["blocks.1"]).model, x, ratio=0.5)
    again = load(save(pruned, tmp_path / "thin.luthier"))
    with torch.no_grad():
        assert torch.equal(again(x), pruned.model.eval()(x))
    pruned.model.train()(x).square().mean().backward()
    assert all(p.grad is not None for p in pruned.model.parameters())


def test_the_least_branch_scores_least(net):
    model, x = net
    for p in model.blocks[3].parameters():
        p.data.mul_(1e-3)
    scores = branch_scores(analyse(model, x), "l1")
    assert min(scores, key=scores.get) == "blocks.3"
    assert set(scores) == {"blocks.0", "blocks.1", "blocks.2", "blocks.3"}


def test_an_unknown_branch_is_named(net):
    with pytest.raises(UsageError, match=r"did you mean 'blocks.1'"):
        drop_branches(*net, ["block.1"])


def test_attention_and_feed_forward_are_two_branches():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    model = nn.Sequential(nn.Linear(3, 8), layer, nn.Linear(8, 2))
    x = torch.randn(2, 5, 3)
    found = [b.name for b in branches(analyse(model, x))]
    assert len(found) == 2
    thin = drop_branches(model, x, found[:1])
    assert sum(p.numel() for p in thin.model.parameters()) < sum(p.numel() for p in model.parameters())
