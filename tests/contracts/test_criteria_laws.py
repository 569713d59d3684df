"""Laws that every criterion and every allocation must keep; both are found by their files."""

import gc
import math
import weakref

import pytest
import torch
from torch import nn

import luthier as lt
from luthier import allocate as allocations
from luthier import importance
from luthier.errors import UsageError
from luthier.importance import Own
from luthier.model import analyse, cost

CRITERIA = importance.names()
ALLOCATIONS = allocations.names()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 6, 3, padding=1)
        self.n = nn.BatchNorm2d(6)
        self.g = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.m = nn.BatchNorm2d(12)
        self.b = nn.Linear(12 * 4, 5)
        self.norm = nn.LayerNorm(5)
        self.c = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.relu(self.n(self.a(x)))
        x = nn.functional.adaptive_avg_pool2d(torch.relu(self.m(self.g(x))), 2)
        return self.c(torch.relu(self.norm(self.b(x.flatten(1)))))


def net():
    torch.manual_seed(0)
    model = Net()
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    return model


def data(batches=2):
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 2, 6, 6, generator=g), torch.randint(0, 3, (4,), generator=g)) for _ in range(batches)]


@pytest.fixture(scope="module")
def analysis():
    return analyse(net(), torch.randn(2, 2, 6, 6))


@pytest.fixture(scope="module")
def sensitivity(analysis):
    scores = scored(analysis, "l2")
    return allocations.measure_map(analysis, scores, lambda m: importance.mean_loss(m, data(), "cross_entropy"))


def scored(analysis, name, **changes):
    return importance.score(analysis, name, **{"data": data(), "loss": "cross_entropy", **changes})


@pytest.mark.parametrize("name", CRITERIA)
def test_one_finite_score_per_index_that_tells_them_apart(analysis, name):
    scores = scored(analysis, name)
    assert set(scores) == {g.name for g in analysis.groups}
    for group in analysis.groups:
        assert scores[group.name].shape == (group.size,)
        assert torch.isfinite(scores[group.name]).all()
        assert scores[group.name].unique().numel() > 1 or name == "apoz"


@pytest.mark.parametrize("name", CRITERIA)
def test_the_same_evidence_gives_the_same_scores_and_changes_nothing(analysis, name):
    before = {k: v.clone() for k, v in analysis.model.state_dict().items()}
    first, second = scored(analysis, name), scored(analysis, name)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert all(torch.equal(v, before[k]) for k, v in analysis.model.state_dict().items())
    assert analysis.model.training
    assert all(p.grad is None and p.requires_grad for p in analysis.model.parameters())


@pytest.mark.parametrize("name", CRITERIA)
def test_missing_evidence_is_named(analysis, name):
    needs = importance.neurons_need(importance.get(name))
    if needs == "nothing":
        assert importance.score(analysis, name)
        return
    with pytest.raises(UsageError, match=r"needs data="):
        importance.score(analysis, name)
    with pytest.raises(UsageError, match="no batch"):
        scored(analysis, name, data=[])
    if needs in importance.WITH_LOSS:
        with pytest.raises(UsageError, match=r"needs loss="):
            scored(analysis, name, loss=None)


@pytest.mark.parametrize("name", CRITERIA)
def test_weights_are_scored_one_by_one_or_refused(name):
    model = net()
    if not hasattr(importance.get(name), "elements"):
        with pytest.raises(UsageError, match="scores neurons"):
            importance.weight_scores(model, name)
        return
    if name == "bn_scale":
        with pytest.raises(UsageError, match="says nothing"):
            importance.weight_scores(model, name)
        return
    scores = importance.weight_scores(model, name, data(), "cross_entropy")
    assert {k: v.shape for k, v in scores.items()} == {k: v.shape for k, v in model.named_parameters()}
    assert all(torch.isfinite(v).all() for v in scores.values())


@pytest.mark.parametrize("name", CRITERIA)
def test_it_has_a_card(name):
    text = importance.get(name).__doc__
    assert text.strip().split("\n")[0].endswith(".")
    assert "Formula:" in text
    assert "Source:" in text or name == "random"


@pytest.mark.parametrize("name", ALLOCATIONS)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.95])
def test_an_allocation_keeps_the_best_and_empties_nothing(analysis, sensitivity, name, ratio):
    scores = scored(analysis, "l2")
    how = {"threshold": float(ratio)} if name == "threshold" else {"ratio": ratio}
    keep = allocations.allocate(analysis, scores, name, sensitivity=sensitivity, **how)
    for group in analysis.groups:
        kept = keep.get(group.name, list(range(group.size)))
        assert kept == sorted(set(kept))
        assert 1 <= len(kept) <= group.size
        gone = [i for i in range(group.size) if i not in kept]
        if gone and len(kept) > 1:
            assert scores[group.name][kept].min() >= scores[group.name][gone].max()


@pytest.mark.parametrize("name", [n for n in ALLOCATIONS if n != "threshold"])
def test_more_ratio_never_keeps_more(analysis, sensitivity, name):
    scores = scored(analysis, "l1")
    sizes = []
    for ratio in (0.0, 0.2, 0.4, 0.6, 0.8):
        keep = allocations.allocate(analysis, scores, name, ratio=ratio, sensitivity=sensitivity)
        sizes.append(sum(len(keep.get(g.name, range(g.size))) for g in analysis.groups))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == sum(g.size for g in analysis.groups)


@pytest.mark.parametrize("name", [n for n in ALLOCATIONS if n != "threshold"])
@pytest.mark.filterwarnings("ignore:the nearest widths")
def test_a_budget_is_met(analysis, sensitivity, name):
    budget = {"macs": 0.5, "params": 0.6}
    keep = allocations.allocate(analysis, scored(analysis, "l2"), name, budget=budget, sensitivity=sensitivity)
    assert cost.macs(analysis, keep) <= 0.5 * cost.macs(analysis)
    assert cost.parameters(analysis, keep) <= 0.6 * cost.parameters(analysis)


@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_widths_are_rounded(analysis, multiple):
    rounding = allocations.Rounding(multiple=multiple, minimum=2)
    keep = allocations.allocate(analysis, scored(analysis, "l2"), ratio=0.6, rounding=rounding)
    for group in analysis.groups:
        left = len(keep.get(group.name, range(group.size)))
        assert left >= min(2, group.size)
        step = allocations.step_of(group, multiple)
        assert left % step == 0 or step > group.size


class Counted:
    """A loader that counts how often it is gone through, and how many batches are alive at a time."""

    def __init__(self, batches):
        self.batches, self.passes, self.alive, self.most = batches, 0, weakref.WeakSet(), 0

    def __iter__(self):
        self.passes += 1
        g = torch.Generator().manual_seed(2)
        for _ in range(self.batches):
            x = torch.randn(4, 2, 6, 6, generator=g)
            self.alive.add(x)
            gc.collect()
            self.most = max(self.most, len(self.alive))
            yield x, torch.randint(0, 3, (4,), generator=g)


def test_all_criteria_at_once_take_one_pass_and_say_what_each_says_alone(analysis):
    loader = Counted(3)
    together = importance.score_many(analysis, CRITERIA, loader, "cross_entropy")
    assert loader.passes == 1
    for name, scores in zip(CRITERIA, together, strict=True):
        alone = importance.score(analysis, name, Counted(3), "cross_entropy")
        assert all(torch.equal(scores[g], alone[g]) for g in alone), name


def test_memory_does_not_grow_with_the_data(analysis):
    sizes = []
    for batches in (2, 12):
        loader = Counted(batches)
        gc.collect()
        before = held()
        scores = importance.score_many(analysis, CRITERIA, loader, "cross_entropy")
        gc.collect()
        sizes.append(held() - before)
        assert loader.most <= 2
        del scores
    assert sizes[1] <= sizes[0] + 1


def held():
    """How many tensors there are."""
    return sum(isinstance(o, torch.Tensor) for o in gc.get_objects() if type(o) in (torch.Tensor, nn.Parameter))


def test_auto_goes_by_what_there_is(analysis):
    with_data, without = importance.AUTO
    for name, how in ((with_data, (data(), "cross_entropy")), (without, ())):
        auto, plain = importance.score(analysis, "auto", *how), importance.score(analysis, name, *how)
        assert all(torch.equal(auto[g], plain[g]) for g in plain)


def test_your_own_criterion_is_a_function(analysis):
    mine = importance.score(analysis, lambda e: e.weight.double() ** 2)
    theirs = importance.score(analysis, "l2")
    assert all(torch.allclose(mine[k].sqrt(), theirs[k]) for k in mine)


def test_your_own_criterion_is_given_what_it_needs(analysis):
    def plain(e):
        return e.weight.abs()

    def seen(e):
        return e.weight.abs() * (1.0 if e.inputs is None else e.inputs)

    without = importance.score(analysis, plain, data())  # data for something else, and no loss
    assert all(torch.equal(without[g], s) for g, s in importance.score(analysis, "l1").items())
    mine = importance.score(analysis, Own(seen, needs="inputs"), data())
    assert all(torch.allclose(mine[g], s) for g, s in scored(analysis, "wanda").items())
    with pytest.raises(UsageError, match="seen needs data="):
        importance.score(analysis, Own(seen, needs="inputs"))


def test_a_criterion_that_says_nothing_is_refused():
    bare = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(UsageError, match="says nothing about 0"):
        importance.score(analyse(bare, torch.zeros(2, 3)), "bn_scale")


def bare():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))


REFUSED = {
    "one score for all": (lambda e: torch.full_like(e.weight, 2.0), "every score is 2"),
    "not a number": (lambda e: e.weight * float("nan"), "not finite"),
    "one number": (lambda e: e.weight.abs().sum(), "does not give one score"),
    "no tensor": (lambda e: None, "does not give one score"),
    "gradients without data": (lambda e: e.weight.abs() * e.gradient.abs(), "none were gathered"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_scores_that_say_nothing_are_refused_on_every_path(why):
    function, message = REFUSED[why]
    with pytest.raises(UsageError, match=message):
        lt.prune_weights(bare(), ratio=0.5, criterion=function)
    with pytest.raises(UsageError, match=message):
        lt.GradualPruning(bare(), lt.Schedule(0.5, steps=1), criterion=function)(1)
    if why != "one score for all":  # summed over what goes with a unit, they tell wide units from narrow ones
        with pytest.raises(UsageError, match=message):
            lt.prune_neurons(bare(), torch.zeros(2, 3), ratio=0.5, criterion=function)


def test_a_criterion_of_norms_says_nothing_about_matrices():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(UsageError, match=r"'bn_scale' says nothing about 0.weight, 3.weight"):
        lt.prune_weights(model, ratio=0.5, criterion="bn_scale")


def test_data_that_are_no_numbers_are_refused():
    broken = [(torch.full((4, 3), float("nan")), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(UsageError, match=r"'taylor' gives .* not finite"):
        lt.prune_weights(bare(), ratio=0.5, criterion="taylor", data=broken, loss="cross_entropy")
    for criterion in ("taylor", "activation", "fisher"):
        with pytest.raises(UsageError, match=rf"{criterion!r} gives .* not finite"):
            importance.score(analyse(bare(), broken[0][0]), criterion, broken, "cross_entropy")


def test_activations_that_are_never_zero_are_refused_or_said():
    x = torch.randn(16, 3)
    with pytest.raises(UsageError, match="'apoz' says nothing about 0: every score is 1"):
        importance.score(analyse(bare(), x), "apoz", [x])
    mixed = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    with pytest.warns(UserWarning, match="all of 0 alike"):
        importance.score(analyse(mixed, x), "apoz", [x])


def test_random_follows_its_seed(analysis):
    a, b, c = (importance.score(analysis, "random", seed=s) for s in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)
    assert not any(math.isnan(float(v.sum())) for v in a.values())
