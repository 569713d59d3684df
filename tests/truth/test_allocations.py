"""Allocations against hand calculations and brute force."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import luthier as lt
from luthier import allocate as allocations
from luthier import importance
from luthier.allocate import SensitivityMap, allocate, measure_map, ratios
from luthier.allocate._scores import lamp
from luthier.allocate.knapsack import Knapsack, exact
from luthier.allocate.sensitivity import Sensitivity
from luthier.errors import BudgetError, UsageError
from luthier.model import analyse, cost


def chain(*widths):
    torch.manual_seed(0)
    layers = []
    for a, b in itertools.pairwise((4, *widths, 3)):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_lamp_by_hand():
    scores = torch.tensor([3.0, 1.0, 2.0])
    assert lamp(scores).tolist() == pytest.approx([1.0, 1 / 14, 4 / 13])
    analysis = analyse(chain(3, 3), torch.zeros(1, 4))
    keep = allocate(analysis, {"0": scores, "2": 100 * torch.tensor([1.0, 1.0, 1.0])}, "lamp", ratio=0.5)
    # shares: "0": 1/14, 4/13, 1; "2": 1/3, 1/2, 1: three of the six go
    assert keep == {"0": [0], "2": [0, 1]}


def test_a_stage_loses_its_share_and_competes_inside():
    stages = [nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 4))]
    analysis = analyse(nn.Sequential(*stages, nn.Linear(4, 3)), torch.zeros(1, 4))
    scores = {"0.0": torch.ones(4), "0.2": torch.tensor([0.1, 0.2, 0.3, 3.4]), "1.0": torch.arange(4.0)}
    keep = allocate(analysis, scores, "family", ratio=0.25)
    assert keep == {"0.2": [2, 3], "1.0": [1, 2, 3]}


def test_the_map_is_what_removal_does_to_the_loss_and_changes_nothing(tmp_path):
    model = chain(4, 6).double()
    x, y = torch.randn(20, 4).double(), torch.randint(3, (20,))
    analysis = analyse(model, x)
    scores = importance.score(analysis, "l2")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    calls = []

    def evaluate(m):
        calls.append(m)
        return importance.mean_loss(m, [(x[:7], y[:7]), (x[7:], y[7:])], "cross_entropy")

    found = measure_map(analysis, scores, evaluate, ratios=(0.5, 0.75), cache=tmp_path / "map.json", data="mine")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for name in ("0", "2"):
        for ratio, rise in zip((0.5, 0.75), found.rises[name], strict=True):
            keep = allocate(analysis, scores, ratio={name: ratio})
            cut = lt.prune_neurons(model, x, ratio={name: ratio}).model
            assert len(keep) == 1
            with torch.no_grad():
                after, dense = (nn.functional.cross_entropy(m(x), y) for m in (cut, model))
            assert rise == pytest.approx(float(after - dense), abs=1e-9)
    assert len(calls) == 5
    again = measure_map(analysis, scores, evaluate, ratios=(0.5, 0.75), cache=tmp_path / "map.json", data="mine")
    assert again == found
    assert len(calls) == 5  # read, not measured
    measure_map(analysis, scores, evaluate, ratios=(0.5, 0.75), cache=tmp_path / "map.json", data="other")
    assert len(calls) == 10
    (tmp_path / "map.json").write_text("{")
    assert measure_map(analysis, scores, evaluate, ratios=(0.5, 0.75), cache=tmp_path / "map.json").rises == found.rises


def test_the_map_as_a_picture():
    text = str(SensitivityMap((0.5, 0.9), {"a": (0.0, 1.0), "bb": (0.5, 0.7)}, 0.25))
    assert text.splitlines()[0].split()[:3] == ["removed", "50%", "90%"]
    assert "██  1.000" in text
    assert "▒▒  0.500" in text


def test_sensitivity_takes_what_hurts_least_for_what_it_saves():
    """Against every pair of shares that saves as much."""
    analysis = analyse(chain(100, 60), torch.zeros(1, 4))
    scores = {"0": torch.arange(100.0), "2": torch.arange(60.0)}
    found = SensitivityMap((0.5, 0.9), {"0": (0.1, 0.9), "2": (0.5, 0.9)}, 1.0)
    keep = allocate(analysis, scores, Sensitivity(found), ratio=0.4)
    mine = 1 - len(keep["0"]) / 100, 1 - len(keep["2"]) / 60
    saved = allocations.savings(analysis.groups, lambda keep: cost.macs(analysis, keep))
    assert saved == {"0": pytest.approx(6400), "2": pytest.approx(6180)}

    slopes = {name: (rises[0] * 1 + rises[1] * 9) / 82 for name, rises in found.rises.items()}  # odds of 1 and 9
    assert found.slopes() == {name: pytest.approx(a) for name, a in slopes.items()}

    def pain(r0, r2):
        return slopes["0"] * r0 / (1 - r0) + slopes["2"] * r2 / (1 - r2)

    assert abs(100 * mine[0] + 60 * mine[1] - 64) <= 1
    enough = saved["0"] * mine[0] + saved["2"] * mine[1]
    grid = np.linspace(0, 0.98, 99)
    pairs = [(a, b) for a in grid for b in grid if saved["0"] * a + saved["2"] * b >= enough]
    assert pain(*mine) <= min(pain(*p) for p in pairs) + 0.01
    with pytest.raises(UsageError, match="needs a map"):
        allocate(analysis, scores, "sensitivity", ratio=0.3)


def test_the_exact_knapsack_is_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(30):
        costs = [sorted(rng.integers(0, 20, 4).tolist(), reverse=True) for _ in range(4)]
        losses = [sorted(rng.integers(0, 20, 4).tolist()) for _ in range(4)]
        limit = int(rng.integers(0, 60))
        picks = [
            p
            for p in itertools.product(range(4), repeat=4)
            if sum(c[i] for c, i in zip(costs, p, strict=True)) <= limit
        ]
        found = exact(costs, losses, limit)
        if not picks:
            assert found is None
            continue
        best = min(sum(row[i] for row, i in zip(losses, p, strict=True)) for p in picks)
        assert sum(c[i] for c, i in zip(costs, found, strict=True)) <= limit
        assert sum(row[i] for row, i in zip(losses, found, strict=True)) == best


def test_the_law_is_found_in_a_map_that_follows_it():
    ratios = (0.25, 0.5, 0.75, 0.9)
    law = {"a": 0.2, "b": 1.5}
    found = SensitivityMap(ratios, {n: tuple(a * r / (1 - r) for r in ratios) for n, a in law.items()}, 1.0)
    assert found.slopes() == {n: pytest.approx(a) for n, a in law.items()}
    flat = SensitivityMap(ratios, {"a": (-0.1, 0.0, 0.0, 0.0), "b": (0.0, -0.2, 0.0, 0.0)}, 1.0)
    assert len(set(flat.slopes().values())) == 1
    assert min(flat.slopes().values()) > 0


@pytest.mark.parametrize("share", [0.7, 0.5, 0.3])
@pytest.mark.parametrize("method", [Knapsack, Sensitivity])
def test_a_budget_is_near_brute_force_where_costs_multiply(method, share):
    """Three widths, MACs of products of neighbours: every combination of widths tried."""
    model = chain(6, 8, 5)
    analysis = analyse(model, torch.zeros(1, 4))
    scores = importance.score(analysis, "l2")
    found = SensitivityMap((0.5, 0.9), {"0": (0.1, 0.9), "2": (0.3, 1.9), "4": (0.2, 0.5)}, 1.0)
    limit = share * cost.macs(analysis)
    with warnings.catch_warnings(action="ignore"):
        keep = allocate(analysis, scores, method(found), budget={"macs": share})
    slopes = found.slopes()

    def loss(widths):
        removed = [(n, 1 - w / s) for n, w, s in zip("024", widths, (6, 8, 5), strict=True)]
        if method is Knapsack:
            return sum(found.rise(n, r) for n, r in removed)
        return sum(slopes[n] * r / (1 - r) for n, r in removed)

    def macs(widths):
        return cost.macs(analysis, {n: range(w) for n, w in zip("024", widths, strict=True)})

    every = [w for w in itertools.product(range(1, 7), range(1, 9), range(1, 6)) if macs(w) <= limit]
    best = min(map(loss, every))
    mine = tuple(len(keep.get(n, range(s))) for n, s in zip("024", (6, 8, 5), strict=True))
    assert macs(mine) <= limit
    assert loss(mine) <= 1.05 * best + 1e-6


def test_the_knapsack_spares_what_is_cheap():
    analysis = analyse(chain(16, 16), torch.zeros(1, 4))
    scores = {"0": torch.ones(16), "2": torch.ones(16)}

    def latency(keep):
        return 10 + 3 * len(keep.get("0", range(16))) + len(keep.get("2", range(16)))

    keep = allocate(analysis, scores, "knapsack", budget={"latency": 0.7}, costs={"latency": latency})
    assert "2" not in keep
    assert latency(keep) <= 0.7 * latency({}) < latency({"0": [0] * (len(keep["0"]) + 1)})


@pytest.mark.parametrize("method", [n for n in allocations.names() if n not in ("threshold",)])
@pytest.mark.parametrize("budget", [{"macs": 0.5}, {"params": 0.35}, {"bytes": 0.7}, {"latency": 0.6}])
def test_budgets_are_met_within_two_per_cent(method, budget):
    analysis = analyse(chain(120, 160, 100), torch.zeros(1, 4))
    scores = importance.score(analysis, "l2")
    found = SensitivityMap((0.5, 0.9), {"0": (0.1, 0.9), "2": (0.5, 1.9), "4": (0.2, 0.5)}, 1.0)
    costs = {
        "macs": lambda keep: cost.macs(analysis, keep),
        "params": lambda keep: cost.parameters(analysis, keep),
        "bytes": lambda keep: cost.parameters(analysis, keep),
        "latency": lambda keep: 100 + sum(len(keep.get(g.name, range(g.size))) ** 1.5 for g in analysis.groups),
    }
    with warnings.catch_warnings(action="error"):
        keep = allocate(analysis, scores, method, budget=budget, sensitivity=found, costs={"latency": costs["latency"]})
    ((name, share),) = budget.items()
    assert 0.98 * share <= costs[name](keep) / costs[name]({}) <= share


def test_coarse_widths_are_said_to_be_coarse():
    analysis = analyse(chain(16, 16), torch.zeros(1, 4))
    scores = importance.score(analysis, "l2")
    with pytest.warns(UserWarning, match=r"nearest widths leave \d+% of the budget unused"):
        allocate(analysis, scores, budget={"macs": 0.6}, rounding=allocations.Rounding(multiple=8))


def test_budgets_that_cannot_be_are_refused():
    analysis = analyse(chain(16, 16), torch.zeros(1, 4))
    scores = importance.score(analysis, "l2")
    for method in ("uniform", "knapsack", "lamp"):
        with pytest.raises(BudgetError, match="no cut meets"):
            allocate(analysis, scores, method, budget={"macs": 0.001})
    with pytest.raises(UsageError, match="costs="):
        allocate(analysis, scores, budget={"latency": 0.5})


def test_prune_neurons_measures_the_map_itself():
    torch.manual_seed(0)
    model = chain(16, 16)
    x, y = torch.randn(40, 4), torch.randint(3, (40,))
    pruned = lt.prune_neurons(
        model, x, budget={"macs": 0.5}, criterion="auto", allocate="sensitivity", data=[(x, y)], loss="cross_entropy"
    )
    assert 0.45 <= pruned.plan.macs[1] / pruned.plan.macs[0] <= 0.5
    with pytest.raises(UsageError, match="needs data= and loss="):
        lt.prune_neurons(model, x, ratio=0.5, allocate="sensitivity")


def test_an_empty_budget_is_refused():
    analysis = analyse(chain(4), torch.zeros(1, 4))
    with pytest.raises(UsageError, match="names no cost"):
        allocate(analysis, importance.score(analysis, "l2"), budget={})


def test_lamp_keeps_the_highest_of_scores_that_fall_below_zero():
    scores = torch.tensor([-5.0, -0.1, 0.1, 5.0])
    assert (lamp(scores) > lamp(scores).median()).tolist() == [False, False, True, True]
    analysis = analyse(chain(4), torch.zeros(1, 4))
    assert allocate(analysis, {"0": scores}, "lamp", ratio=0.5) == {"0": [2, 3]}


def test_a_measure_that_is_no_number_is_the_worst_rise():
    analysis = analyse(chain(4, 4), torch.zeros(1, 4))
    scores = importance.score(analysis, "l2")
    first = dict(analysis.model.named_parameters())["0.weight"]

    def evaluate(model):
        gone = int((dict(model.named_parameters())["0.weight"].abs().sum(1) == 0).sum())
        return float("nan") if gone == 3 else float("inf") if gone == 2 else 5.0 + gone

    assert first.abs().sum(1).min() > 0
    with pytest.warns(UserWarning, match="no finite number"):
        found = measure_map(analysis, scores, evaluate, ratios=(0.25, 0.5, 0.75))
    assert found.rises == {"0": (1.0, 3.0, 3.0), "2": (0.0, 0.0, 0.0)}
    with pytest.raises(UsageError, match="no number"):
        measure_map(analysis, scores, lambda m: float("nan"))


def test_a_network_with_extra_state_has_a_map(tmp_path):
    class Counting(nn.Sequential):
        def get_extra_state(self):
            return {"calls": 3}

        def set_extra_state(self, state):
            pass

    analysis = analyse(Counting(*chain(4)), torch.zeros(1, 4))
    calls = []
    for _ in range(2):
        found = measure_map(
            analysis, {"0": torch.arange(4.0)}, lambda m: calls.append(m) or 1.0, cache=tmp_path / "m.json"
        )
    assert found.rises == {"0": (0.0,) * 4}
    assert len(calls) == 5 + 2  # the dense network and one removal are looked at again


def test_a_kept_map_is_not_taken_for_another_measure_s(tmp_path):
    torch.manual_seed(0)
    model, x, y = chain(4, 6), torch.randn(32, 4), torch.randint(3, (32,))
    analysis = analyse(model, x)
    scores = importance.score(analysis, "l2")

    def mapped(data, loss="cross_entropy", **how):
        return measure_map(analysis, scores, lambda m: importance.mean_loss(m, data, loss), **how)

    file = tmp_path / "map.json"
    first = mapped([(x, y)], cache=file)
    assert mapped([(x, y)], cache=file) == first
    for data, loss in (([(x, (y + 1) % 3)], "cross_entropy"), ([(x, y)], "multi_margin_loss")):
        assert mapped(data, loss, cache=file) == mapped(data, loss) != first
    # a measure of the same dense value: one removal tells
    dense = importance.mean_loss(model, [(x, y)], "cross_entropy")
    mapped([(x, y)], cache=file)
    assert measure_map(analysis, scores, lambda m: dense, cache=file).rises == {"0": (0.0,) * 4, "2": (0.0,) * 4}


@pytest.mark.parametrize("method", ["global", "lamp", "family", "sensitivity", "knapsack", Knapsack()])
def test_a_threshold_and_an_allocation_by_shares_are_refused_together(method):
    x, y = torch.randn(8, 4), torch.randint(3, (8,))
    with pytest.raises(UsageError, match="two ways to say"):
        lt.prune_neurons(chain(4, 6), x, threshold=1.0, allocate=method, data=[(x, y)], loss="cross_entropy")


def test_a_budget_that_multiples_stand_in_the_way_of_says_so():
    analysis = analyse(chain(16, 16), torch.zeros(1, 4))
    scores = importance.score(analysis, "l2")
    with pytest.raises(BudgetError, match="multiples of 16: multiple=1"):
        allocate(analysis, scores, budget={"macs": 0.5}, rounding=allocations.Rounding(16))
    with pytest.raises(BudgetError) as plain:
        allocate(analysis, scores, budget={"macs": 0.001})
    assert "multiple" not in str(plain.value)


@pytest.mark.parametrize("order", [1, -1])
def test_a_groups_own_name_counts_before_patterns(order):
    groups = analyse(
        nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 2)), torch.zeros(1, 4)
    ).groups
    shares = ratios(tuple(groups), dict([("0", 0.5), ("*", 0.1)][::order]))
    assert shares == {"0": 0.5, "2": 0.1}


def test_a_cost_that_is_nothing_for_the_whole_network_is_refused():
    net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2))
    costs = {"energy": lambda keep: sum(len(kept) for kept in keep.values())}  # of the whole network none is named
    with pytest.raises(UsageError, match="energy"):
        lt.prune_neurons(net, torch.zeros(1, 4), budget={"energy": 0.5}, costs=costs)


@pytest.mark.parametrize("method", ["uniform", "global", "family"])
@pytest.mark.parametrize("widths", [(13, 30), (23, 19), (9, 20, 14)])
@pytest.mark.parametrize("share", [{"macs": 0.5}, {"params": 0.3}, {"macs": 0.15}])
def test_budgets_are_met_within_two_per_cent_by_narrow_networks(method, share, widths):
    """One width alone steps over the budget; brute force says that widths within 2 % exist."""
    torch.manual_seed(0)
    analysis = analyse(chain(*widths), torch.zeros(2, 4))
    name, limit = next(iter(share.items()))
    measure = {"macs": cost.macs, "params": cost.parameters}[name]
    dense = measure(analysis)

    def used(keep):
        return measure(analysis, keep) / dense / limit

    sizes = {g.name: g.size for g in analysis.groups}
    every = itertools.product(*(range(1, size + 1) for size in sizes.values()))
    found = [used({n: list(range(w)) for n, w in zip(sizes, each, strict=True)}) for each in every]
    assert any(0.98 <= each <= 1 for each in found)
    assert 0.98 <= used(allocate(analysis, importance.score(analysis, "l2"), method, budget=share)) <= 1
