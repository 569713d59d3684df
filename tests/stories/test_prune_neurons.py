"""Cutting a network and living with the result: training, copying, saving, cutting again."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from luthier.errors import BudgetError, CheckError, TraceError, UsageError
from luthier.model import analyse, cost
from luthier.surgery import Plan, cut, prune_neurons


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.n = nn.BatchNorm2d(c)
        self.b = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return F.relu(x + self.b(F.relu(self.n(self.a(x)))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.drop(self.blocks(F.relu(self.stem(x))).mean((2, 3))))


class Fixed(Net):
    """Has a size written into its code, which only the graph target can change."""

    def forward(self, x):
        a, b = torch.split(F.relu(self.stem(x)), [4, 4], 1)
        return self.head(self.drop(self.blocks(torch.cat([b, a], 1)).mean((2, 3))))


@pytest.fixture(params=["module", "graph", "fixed"])
def case(request):
    torch.manual_seed(0)
    net = Fixed() if request.param == "fixed" else Net()
    x = torch.randn(3, 1, 6, 6)
    pruned = prune_neurons(net, x, ratio=0.5, target="auto" if request.param != "graph" else "graph")
    assert pruned.target == ("module" if request.param == "module" else "graph")
    return net, x, pruned


def test_the_original_is_untouched(case):
    net, _, pruned = case
    assert net.stem.weight.shape == (8, 1, 3, 3)
    assert net.training
    shared = {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in pruned.model.parameters()}
    assert not shared


def test_names_shapes_and_plan_agree(case):
    net, _, pruned = case
    after = dict(pruned.model.named_parameters())
    assert set(after) == set(dict(net.named_parameters())) == set(pruned.plan.kept)
    for name, p in net.named_parameters():
        x = p
        for dim, index in enumerate(pruned.plan.kept[name]):
            x = x if index is None else x.index_select(dim, torch.tensor(index))
        assert torch.equal(after[name], x)
    assert set(pruned.model.state_dict()) == set(net.state_dict())


def test_it_trains(case):
    _, x, pruned = case
    model = copy.deepcopy(pruned.model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.state_dict()["blocks.0.n.running_mean"].clone()
    losses = []
    for _ in range(5):
        loss = F.cross_entropy(model(x), torch.tensor([0, 1, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert all(p.grad is not None for p in model.parameters())
    assert not torch.equal(before, model.state_dict()["blocks.0.n.running_mean"])


def test_modes_differ_and_switch(case):
    _, x, pruned = case
    model = pruned.model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))
    pruned.model.eval()


def test_it_copies_and_changes_type(case):
    _, x, pruned = case
    model = pruned.model.eval()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))
    assert twin.double()(x.double()).dtype == torch.float64
    assert model(x).dtype == torch.float32
    assert torch.allclose(twin(x.double()).float(), model(x), atol=1e-5)


def test_another_batch_size(case):
    _, x, pruned = case
    model = pruned.model.eval()
    assert torch.allclose(model(x[:1]), model(x)[:1], atol=1e-6)
    assert model(torch.cat([x, x, x])).shape == (9, 4)


def test_it_is_cut_again(case):
    _, x, pruned = case
    again = prune_neurons(pruned.model, x, ratio=0.5, protect=["stem"])
    assert again.model.state_dict()["stem.weight"].shape == pruned.model.state_dict()["stem.weight"].shape
    assert sum(p.numel() for p in again.model.parameters()) < sum(p.numel() for p in pruned.model.parameters())
    assert all(p.passed for p in again.check)


def test_undo_puts_the_values_back(case):
    net, _, pruned = case
    with torch.no_grad():
        for p in pruned.model.parameters():
            p.add_(1.0)
    fresh = copy.deepcopy(net)
    fresh.load_state_dict(pruned.plan.restore(pruned.model.state_dict(), net.state_dict()))
    rows, columns = pruned.plan.kept["blocks.0.a.weight"][:2]
    changed = torch.zeros(8, 8, dtype=torch.bool)
    changed[torch.tensor(rows)[:, None], torch.tensor(columns)] = True
    moved = (fresh.blocks[0].a.weight - net.blocks[0].a.weight).flatten(2)[..., 0].abs() > 0.5
    assert torch.equal(moved, changed)


def test_a_plan_prints_and_survives_json(case):
    *_, pruned = case
    assert Plan.from_json(pruned.plan.to_json()) == pruned.plan
    assert "stem" in str(pruned.plan)
    assert "cut == masked" in str(pruned)


def test_a_plan_comes_before_the_cut():
    net, x = Net(), torch.randn(2, 1, 6, 6)
    analysis = analyse(net, x)
    keep = {"blocks.0.a": [1, 2]}
    pruned = cut(net, analysis, keep)
    assert pruned.plan.groups == keep
    assert cost.parameters(analysis, keep) == sum(p.numel() for p in pruned.model.parameters())
    assert cost.macs(analysis, keep) == cost.count_macs(pruned.model, x)


def test_protect_ratio_patterns_multiples_and_minimum():
    net, x = Net(), torch.randn(2, 1, 6, 6)
    groups = {g.name: g.size for g in analyse(net, x).groups}
    assert set(groups) == {"stem", "blocks.0.a", "blocks.1.a"}
    kept = prune_neurons(net, x, ratio={"blocks.*": 0.75}).plan.groups
    assert {k: len(v) for k, v in kept.items()} == {"blocks.0.a": 2, "blocks.1.a": 2}
    assert "stem" not in prune_neurons(net, x, ratio=0.5, protect=["stem"]).plan.groups
    assert {len(v) for v in prune_neurons(net, x, ratio=0.6, multiple=4).plan.groups.values()} == {4}
    assert {len(v) for v in prune_neurons(net, x, ratio=0.9, minimum=3).plan.groups.values()} == {3}
    assert {len(v) for v in prune_neurons(net, x, ratio=0.999).plan.groups.values()} == {1}


def test_threshold_and_budget():
    net, x = Net(), torch.randn(2, 1, 6, 6)
    net.blocks[0].a.weight.data[2] = 1e-6
    net.blocks[0].n.weight.data[2] = 0
    net.blocks[0].b.weight.data[:, 2] = 0
    assert prune_neurons(net, x, threshold=1e-3).plan.groups == {"blocks.0.a": [0, 1, 3, 4, 5, 6, 7]}
    plan = prune_neurons(net, x, budget={"macs": 0.5}).plan
    assert plan.macs[1] <= 0.5 * plan.macs[0]
    with pytest.raises(BudgetError, match="no cut meets"):
        prune_neurons(net, x, budget={"macs": 1e-6})


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"ratio": 1.0}, "share that goes"),
        ({"ratio": -0.1}, "share that goes"),
        ({"ratio": 0.5, "threshold": 1.0}, "one way"),
        ({}, "one way"),
        ({"ratio": {"nothing*": 0.5}}, "matches no group"),
        ({"ratio": 0.5, "protect": ["stemm"]}, "did you mean 'stem'"),
        ({"ratio": 0.5, "criterion": "l3"}, "unknown criterion"),
        ({"ratio": 0.5, "criterion": "taylor"}, "needs data="),
        ({"ratio": 0.5, "allocate": "fair"}, "unknown allocation"),
        ({"ratio": 0.5, "multiple": 0}, "positive whole number"),
        ({"ratio": 0.5, "target": "onnx"}, "unknown target"),
        ({"budget": {"joules": 0.5}}, "unknown budget"),
    ],
)
def test_wrong_arguments_are_explained(wrong, match):
    with pytest.raises(UsageError, match=match):
        prune_neurons(Net(), torch.randn(2, 1, 6, 6), **wrong)


class Branching(Net):
    def forward(self, x):
        if x.sum() > 0:
            return super().forward(x)
        return super().forward(-x)


def test_what_cannot_be_captured_is_named_with_its_line():
    with pytest.raises(TraceError, match=r"test_prune_neurons\.py:\d+ in forward"):
        prune_neurons(Branching(), torch.randn(2, 1, 6, 6), ratio=0.5)


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.sort(self.a(x), -1).values)))


def test_an_operation_without_a_rule_freezes_and_is_named():
    analysis = analyse(Odd(), torch.randn(2, 4))
    assert [g.name for g in analysis.groups] == ["b"]
    assert any(b.op == "sort" and "test_prune_neurons.py:" in b.where for b in analysis.coverage.blockers)
    pruned = prune_neurons(Odd(), torch.randn(2, 4), ratio=0.5)
    assert pruned.model.a.out_features == 8
    assert "sort" in str(pruned.coverage)


def test_a_class_that_cannot_be_sliced_says_so():
    with pytest.raises(CheckError, match="own class cannot be sliced"):
        prune_neurons(Fixed(), torch.randn(2, 1, 6, 6), ratio=0.5, target="module")


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x, scale=None, *, shift=None):
        y = self.b(torch.relu(self.a(x)))
        y = y if scale is None else y * scale
        return {"y": y if shift is None else y + shift, "pair": (y, [y + 1])}


@pytest.mark.parametrize("target", ["module", "graph"])
def test_keyword_inputs_and_nested_outputs(target):
    net = Named()
    inputs = {"x": torch.randn(2, 3), "shift": torch.ones(2)}
    model = prune_neurons(net, inputs, ratio=0.5, target=target).model
    out = model(**inputs)
    assert torch.allclose(out["y"], out["pair"][0] + 1)
    assert torch.allclose(out["pair"][1][0], out["y"])
    assert isinstance(out["pair"][1], list)


def test_tied_tensors_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(7, 6)
            self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)
            self.out = nn.Linear(6, 7, bias=False)
            self.out.weight = self.e.weight

        def forward(self, x):
            h = self.e(x)
            return self.out(h + self.down(torch.relu(self.up(h))))

    for target in ("module", "graph"):
        model = prune_neurons(Tied(), torch.zeros(2, 3, dtype=torch.long), ratio=0.5, target=target).model
        assert model.out.weight is model.e.weight
        assert model.e.weight.shape == (7, 3)


class Whole(nn.Module):
    """Cannot be captured; its backbone can."""

    def __init__(self):
        super().__init__()
        self.backbone, self.out = Net(), nn.Linear(4, 2)

    def forward(self, x):
        y = self.backbone(x)
        return self.out(y) if float(y.sum()) > 1e9 else self.out(-y)


@pytest.mark.parametrize("target", ["module", "graph"])
def test_a_part_is_cut_where_the_whole_cannot_be_captured(target, tmp_path):
    from luthier.export.bundle import save

    model, x = Whole(), torch.randn(2, 1, 6, 6)
    pruned = prune_neurons(model, x, ratio=0.5, part="backbone", protect=["backbone.stem"], target=target)
    assert pruned.model(x).shape == (2, 2)
    assert pruned.model.out.weight is not model.out.weight
    assert pruned.model.backbone.get_parameter("stem.weight").shape[0] == 8
    assert pruned.model.backbone.get_parameter("blocks.0.a.weight").shape[0] == 4
    assert model.backbone.blocks[0].a.weight.shape[0] == 8
    with pytest.raises(UsageError, match="no stored form"):
        save(pruned, tmp_path / "x.luthier")
    with pytest.raises(UsageError, match="did you mean 'backbone'"):
        prune_neurons(model, x, ratio=0.5, part="backbon")


def test_mean_compensation_is_exact_for_constant_units_and_helps_for_others():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.Sigmoid(), nn.Linear(16, 4)).eval()
    batches = [torch.randn(64, 3) for _ in range(2)]
    x = torch.cat(batches)

    def error(**how):
        pruned = prune_neurons(net, x[:2], ratio=0.5, **how).model.eval()
        return float((pruned(x) - net(x)).square().mean())

    assert error(compensate="mean", data=batches) < 0.3 * error()
    with torch.no_grad():
        net[0].weight[:8] = 0
    keep = list(range(8, 16))
    analysis = analyse(net, x[:2])
    pruned = cut(net, analysis, {"0": keep})
    from luthier.surgery.compensate import compensate

    assert compensate(pruned.model, analysis, pruned.plan, batches) == ["2"]
    assert torch.allclose(pruned.model(x), net(x), atol=1e-5)


def test_compensation_reaches_a_batch_norm_where_there_is_no_bias():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.Sigmoid(),
        nn.Conv2d(6, 4, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(64, 2),
    ).eval()
    with torch.no_grad():
        net[0].weight[:3] = 0
    x = torch.randn(5, 1, 6, 6)
    analysis = analyse(net, x)
    pruned = cut(net, analysis, {"0": [3, 4, 5]})
    from luthier.surgery.compensate import compensate

    assert compensate(pruned.model, analysis, pruned.plan, [x]) == ["2"]
    assert torch.allclose(pruned.model.eval()(x), net(x), atol=1e-5)
    with pytest.raises(UsageError, match="needs data="):
        prune_neurons(net, x, ratio=0.5, compensate="mean")
    with pytest.raises(UsageError, match="unknown compensation"):
        prune_neurons(net, x, ratio=0.5, compensate="median")


class Drawing(nn.Module):
    """Draws random numbers, as a variational autoencoder does."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(3, 8)
        self.d = nn.Linear(8, 2)

    def forward(self, x):
        z = self.b(torch.relu(self.a(x)))
        return self.d(torch.relu(self.c(z + torch.randn_like(z))))


@pytest.mark.parametrize("target", ["module", "graph"])
def test_a_network_that_draws_random_numbers(target):
    net, x = Drawing(), torch.randn(2, 4)
    before = torch.get_rng_state()
    pruned = prune_neurons(net, x, ratio=0.5, target=target)
    assert torch.equal(before, torch.get_rng_state())
    assert [len(v) for v in pruned.plan.groups.values()] == [4, 4]
    assert pruned.model(torch.randn(5, 4)).shape == (5, 2)


def test_half_precision_networks_are_proven_too():
    net = Net().bfloat16().eval()
    pruned = prune_neurons(net, torch.randn(2, 1, 6, 6, dtype=torch.bfloat16), ratio=0.5)
    assert next(pruned.model.parameters()).dtype == torch.bfloat16
    assert pruned.model(torch.randn(1, 1, 6, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_fixed_batch_size_is_named_when_other_batches_come():
    class Static(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.b(torch.relu(self.a(x.reshape(2, 4))))

    net, x = Static(), torch.randn(2, 4)
    assert prune_neurons(net, x, ratio=0.5, criterion="activation", data=[x]).plan.groups
    with pytest.raises(UsageError, match="does not run on a batch"):
        prune_neurons(net, x, ratio=0.5, criterion="activation", data=[torch.randn(6, 4)])


def test_a_network_of_which_nothing_can_go_says_why():
    with pytest.warns(UserWarning, match=r"nothing of Linear can be cut: 0\.0%.*inputs or the outputs"):
        pruned = prune_neurons(nn.Linear(4, 3), torch.zeros(2, 4), ratio=0.5)
    assert pruned.plan.groups == {}
    assert "whole example batch" in str(pruned.plan)
