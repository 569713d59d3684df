"""Masks put on again: what was removed stays removed, however it was and whatever comes next."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as reference

import luthier as lt
from luthier.errors import UsageError


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 25), nn.ReLU(), nn.Linear(25, 8, bias=False))


def _zeros(model: nn.Module) -> int:
    return sum(int((m.weight == 0).sum()) for m in model.modules() if isinstance(m, nn.Linear | nn.Embedding))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x):
        return self.out(self.table(x))


def _train(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    steps = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        steps.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        steps.step()


def test_gradual_pruning_holds_on_tied_weights():
    torch.manual_seed(0)
    net = Tied()
    prune = lt.GradualPruning(net, lt.Schedule(0.5, steps=2))
    prune(1)
    prune(2)
    x = torch.randint(10, (64,))
    _train(net, x, x.flip(0))
    assert int((net.table.weight == 0).sum()) == int((net.out.weight == 0).sum()) == 40
    assert torch.equal(net.table.weight, net.out.weight)
    plain = prune.finalize()
    assert plain.table.weight is plain.out.weight
    assert torch.equal(plain(x), net(x))


def test_a_gradually_pruned_network_is_reported_merged_and_saved_as_a_masked_one(tmp_path):
    net, x = _net(), torch.randn(6, 20)
    prune = lt.GradualPruning(net, lt.Schedule(0.8, steps=2))
    prune(2)
    once = lt.prune_weights(_net(), ratio=0.8)
    assert all(torch.equal(prune.masked.masks[name], mask) for name, mask in once.masks.items())
    assert str(prune.masked) == str(once)
    assert prune.masked.bytes() == once.bytes()
    plain = prune.finalize()
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in _net().named_parameters()]
    torch.save(plain, tmp_path / "plain.pt")
    lt.save(prune.masked, tmp_path / "net.luthier", inputs=x)
    for again in (torch.load(tmp_path / "plain.pt", weights_only=False), lt.load(tmp_path / "net.luthier")):
        assert torch.allclose(again(x), net(x), atol=1e-6)


@pytest.mark.parametrize("take", [lambda prune, net: net, lambda prune, net: prune.masked])
def test_a_gradually_pruned_network_is_pruned_further(take):
    net = _net()
    prune = lt.GradualPruning(net, lt.Schedule(0.5, steps=1))
    prune(1)
    first = {name: mask.clone() for name, mask in prune.masked.masks.items()}
    further = lt.prune_weights(take(prune, net), ratio=0.7)
    assert (further.sparsity, _zeros(further.finalize()), _zeros(net)) == (0.7, 490, 350)
    more = lt.GradualPruning(take(prune, net), lt.Schedule(0.9, steps=1))
    assert _zeros(net) == 350
    more(1)
    assert _zeros(net) == 630
    for masks in (further.masks, more.masked.masks):
        assert not any((masks[name] & ~first[name]).any() for name in first)


@pytest.mark.parametrize(
    ("how", "zeros"),
    [
        ({"ratio": 0.3}, 350),
        ({"ratio": 0.8}, 560),
        ({"ratio": 0.8, "scope": "layer"}, 560),
        ({"ratio": 0.8, "scope": "lamp"}, 560),
        ({"ratio": 0.8, "criterion": lambda e: -e.weight.abs()}, 560),
        ({"ratio": 0.8, "protect": ["0"]}, None),
        ({"threshold": 0.05, "criterion": lambda e: 0.2 - e.weight.abs()}, None),
        ({"pattern": "2:4"}, None),
    ],
)
def test_what_was_removed_stays_removed_when_a_masked_network_is_pruned_again(how, zeros):
    first = lt.prune_weights(_net(), ratio=0.5)
    again = lt.prune_weights(first, **how)
    assert set(again.masks) == set(first.masks)
    assert not any((again.masks[name] & ~mask).any() for name, mask in first.masks.items())
    x, y = torch.randn(64, 20), torch.randint(8, (64,))
    _train(again.model, x, y)
    plain = again.finalize()
    assert _zeros(plain) == round(again.sparsity * 700) >= 350
    assert zeros is None or _zeros(plain) == zeros
    if "pattern" in how:
        assert int((plain[0].weight.reshape(-1, 4) != 0).sum(1).max()) == 2


def test_gradients_of_removed_weights_do_not_bring_them_back():
    x, y = torch.randn(64, 20), torch.randint(8, (64,))
    how = {"criterion": "movement", "loss": "cross_entropy"}
    first = lt.prune_weights(_net(), ratio=0.5, data=[(x, y)], **how)
    again = lt.prune_weights(first, ratio=0.6, data=[(x.flip(0) + 1, y)], **how)
    assert not any((again.masks[name] & ~mask).any() for name, mask in first.masks.items())
    assert _zeros(again.finalize()) == 420


def test_masks_are_those_that_were_loaded():
    half, most = (lt.prune_weights(_net(), ratio=ratio) for ratio in (0.5, 0.8))
    most.model.load_state_dict(half.model.state_dict())
    assert most.sparsity == 0.5
    assert all(torch.equal(most.masks[name], mask) for name, mask in half.masks.items())


def test_a_weight_that_a_network_shares_with_a_part_of_it_keeps_one_mask():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 8)
            self.table = self.inner.weight

        def forward(self, x):
            return self.out(self.inner(x)) @ self.table

    torch.manual_seed(0)
    x, y = torch.randn(32, 8), torch.randint(8, (32,))
    first = lt.prune_weights(Own(), ratio=0.5, criterion="taylor", data=[(x, y)], loss="cross_entropy")
    assert list(first.masks) == ["table", "out.weight"]
    before = {name: mask.clone() for name, mask in first.masks.items()}
    more = lt.prune_weights(first, ratio=0.7, criterion="movement", data=[(x, y)], loss="cross_entropy")
    prune = lt.GradualPruning(
        first, lt.Schedule(0.7, steps=1), criterion="movement", data=[(x, y)], loss="cross_entropy"
    )
    prune(1)
    for masked in (more, prune.masked):
        assert not any((masked.masks[name] & ~before[name]).any() for name in before)
        _train(masked.model, x, y)
        assert torch.equal(masked.model.table, masked.model.inner.weight)
        plain = masked.finalize()
        assert plain.table is plain.inner.weight
        assert int((plain.table == 0).sum() + (plain.out.weight == 0).sum()) == round(0.7 * 128)


def test_parameters_come_back_in_their_order():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.shift, self.inner = nn.Parameter(torch.rand(4, 4)), nn.Parameter(torch.rand(4)), _net()
            self.last = nn.Parameter(torch.rand(4, 4))

    net = Own()
    assert list(lt.prune_weights(net, ratio=0.5).finalize().state_dict()) == list(net.state_dict())
    assert list(lt.GradualPruning(net, lt.Schedule(0.5, steps=1)).finalize().state_dict()) == list(Own().state_dict())


@pytest.mark.parametrize("name", ["out", "out.weight", "table", "table.weight"])
def test_a_shared_weight_is_protected_by_any_of_its_names(name):
    net = nn.Sequential(Tied(), nn.Linear(10, 10))
    masked = lt.prune_weights(net, ratio=0.5, protect=[f"0.{name}"])
    assert (list(masked.masks), dict(masked.skipped)) == (["1.weight"], {"0.table.weight": "protected"})


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (torch.nn.utils.weight_norm, "remove_weight_norm"),
        (torch.nn.utils.spectral_norm, "remove_spectral_norm"),
        (lambda layer: reference.l1_unstructured(layer, "weight", 0.5), "prune.remove"),
    ],
)
def test_weights_held_by_older_tools_are_refused_with_what_to_do(make, fix):
    net = nn.Sequential(make(nn.Linear(4, 4)), nn.Linear(4, 4))
    net(torch.ones(2, 4))
    for verb in (lambda: lt.prune_weights(net, ratio=0.5), lambda: lt.GradualPruning(net, lt.Schedule(0.5, steps=1))):
        with pytest.raises(UsageError, match=fix):
            verb()


def test_rewinding_keeps_the_masks_that_are_there_now():
    net = _net()
    prune, start = lt.GradualPruning(net, lt.Schedule(0.8, steps=2)), lt.Rewind(net, at=0)
    early = [net[i].weight.detach().clone() for i in (0, 2)]
    x, y = torch.randn(64, 20), torch.randint(8, (64,))
    for epoch in (1, 2):
        prune(epoch)
        _train(net, x, y)
    masks = [mask.clone() for mask in prune.masked.masks.values()]
    start.onto(prune.masked)
    assert prune.masked.sparsity == 0.8
    assert all(torch.equal(net[i].weight, w * m) for i, w, m in zip((0, 2), early, masks, strict=True))


def test_weights_of_a_masked_network_go_back_into_a_sparser_one():
    half = lt.prune_weights(_net(), ratio=0.5)
    start = lt.Rewind(half, at=0)
    most = start.onto(lt.prune_weights(half, ratio=0.8))
    assert (most.sparsity, _zeros(most.finalize())) == (0.8, 560)


def test_what_was_frozen_is_frozen_once_masks_are_merged():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    net[0].requires_grad_(False)
    masked = lt.prune_weights(net, ratio=0.5)
    wanted = {name: p.requires_grad for name, p in net.named_parameters()}
    assert {name: p.requires_grad for name, p in masked.finalize().named_parameters()} == wanted
    assert {n: p.requires_grad for n, p in lt.prune_weights(masked, ratio=0.7).finalize().named_parameters()} == wanted
