"""Least squares after a cut, against NumPy's."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import luthier as lt
from luthier.errors import UsageError
from luthier.model import analyse
from luthier.surgery import cut
from luthier.surgery.reconstruct import _fitted, reconstruct


def test_linear_consumers_are_least_squares():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    x = torch.randn(400, 6).double()
    pruned = lt.prune_neurons(model, x, ratio=0.5, data=[x[:150], x[150:]], compensate="least_squares")
    kept = pruned.plan.groups["0"]
    with torch.no_grad():
        hidden = model[1](model[0](x)).numpy()
        wanted = model(x).numpy()
        known = np.c_[hidden[:, kept], np.ones(len(x))]
        best, *_ = np.linalg.lstsq(known, wanted, rcond=None)
        mine = pruned.model(x).numpy()
        plain = lt.prune_neurons(model, x, ratio=0.5).model(x).numpy()
        floor = ((known @ best - wanted) ** 2).mean()
    assert floor <= ((mine - wanted) ** 2).mean() <= 1.01 * floor
    assert ((plain - wanted) ** 2).mean() > 1.15 * floor


def test_convolutions_are_refitted_too_and_obs_foresees_the_error():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, stride=2), nn.Flatten())
    model = nn.Sequential(model, nn.Linear(36, 3)).double()
    x = torch.randn(40, 2, 7, 7).double()
    errors = {}
    for compensate in (None, "mean", "least_squares"):
        pruned = lt.prune_neurons(
            model, x, ratio={"0.0": 0.5}, criterion="obs", data=[x[:20], x[20:]], compensate=compensate
        )
        with torch.no_grad():
            errors[compensate] = float((pruned.model[0](x) - model[0](x)).square().mean())
    assert errors["least_squares"] < 0.7 * errors[None]
    assert errors["least_squares"] < errors["mean"]


def test_it_needs_data():
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    with pytest.raises(UsageError, match="needs data="):
        lt.prune_neurons(model, torch.zeros(1, 6), ratio=0.5, compensate="least_squares")
    with pytest.raises(UsageError, match="least_squares"):
        lt.prune_neurons(model, torch.zeros(1, 6), ratio=0.5, compensate="least squares")


def test_weights_stay_where_the_data_say_nothing():
    torch.manual_seed(0)
    x = torch.cat([torch.randn(50, 3), torch.zeros(50, 2)], 1).double()  # two inputs are silent in the data
    seen, weight = torch.cat([x, torch.ones(50, 1)], 1), torch.randn(4, 5).double()
    moments = seen.T @ seen
    whole, _ = _fitted(weight, [0, 1, 2, 3, 4], moments, free=False)
    assert torch.allclose(whole, weight, atol=1e-12)
    cut, _ = _fitted(weight, [0, 2, 4], moments, free=False)
    assert torch.allclose(cut[:, 2], weight[:, 4], atol=1e-12)
    assert not torch.allclose(cut[:, 0], weight[:, 0], atol=1e-6)


def test_layers_too_wide_to_solve_are_left_as_they_are(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(50, 6)
    how = {"ratio": 0.5, "data": [x]}
    plain = lt.prune_neurons(model, x, **how).model.state_dict()
    monkeypatch.setattr(sys.modules[_fitted.__module__], "WIDEST", 10)
    fitted = lt.prune_neurons(model, x, compensate="least_squares", **how).model.state_dict()
    assert torch.equal(fitted["2.weight"], plain["2.weight"])
    assert not torch.equal(fitted["4.weight"], plain["4.weight"])


def _twins(width: int) -> nn.Sequential:
    """Every hidden unit and channel is there twice: half of them can go without any loss."""
    model = nn.Sequential(
        nn.Conv2d(2, 2 * width, 3, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * width * 9, 4),
    ).double().eval()  # fmt: skip
    with torch.no_grad():
        model[1].running_mean.normal_()
        for tensor in (model[0].weight, model[1].running_mean, model[3].weight, model[3].bias):
            tensor[1::2] = tensor[::2]
    return model


def test_what_is_there_twice_is_cut_in_every_layer_for_nothing():
    torch.manual_seed(0)
    model, x = _twins(3), torch.randn(300, 2, 7, 7).double()
    analysis = analyse(model, x[:2])
    pruned = cut(model, analysis, {"0": [0, 2, 4], "3": [0, 2, 4]})
    with torch.no_grad():
        assert (pruned.model(x) - model(x)).abs().max() / model(x).abs().max() > 0.3
    assert reconstruct(pruned.model, analysis, pruned.plan, [x]) == ["3.weight", "6.weight"]
    with torch.no_grad():
        error = (pruned.model(x) - model(x)).abs().max() / model(x).abs().max()
    assert error < 0.04  # of the damping


@pytest.mark.parametrize("target", ["module", "graph"])
def test_layers_in_order_make_good_what_came_before(target):
    torch.manual_seed(0)
    sizes = [4, *[24] * 6]
    model = nn.Sequential(*[m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.Tanh())])
    model = nn.Sequential(model, nn.Linear(24, 3)).double()
    x, errors = torch.randn(2000, 4).double(), {}
    for compensate in (None, "least_squares"):
        how = {"ratio": 0.5, "data": [x], "compensate": compensate, "target": target}
        with torch.no_grad():
            errors[compensate] = float((lt.prune_neurons(model, x, **how).model(x) - model(x)).square().mean())
    assert errors["least_squares"] < (0.01 if target == "module" else 0.2) * errors[None]


def test_a_weight_that_two_layers_share_is_left_alone():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)]
    model, x = nn.Sequential(*layers), torch.randn(50, 4)
    model[4].weight = model[2].weight
    pruned = lt.prune_neurons(model, x, ratio=0.5, data=[x], compensate="least_squares", target="module")
    kept = next(iter(pruned.plan.groups.values()))
    assert pruned.model[4].weight is pruned.model[2].weight
    assert torch.equal(pruned.model[2].weight, model[2].weight[kept][:, kept])
    assert not torch.equal(pruned.model[6].weight, model[6].weight[:, kept])


def test_one_row_a_batch_and_huge_inputs_are_fitted_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    rows = [1e4 * torch.randn(1, 6) for _ in range(12)]
    pruned = lt.prune_neurons(model, rows[0], ratio=0.5, data=rows, compensate="least_squares").model
    assert all(p.isfinite().all() for p in pruned.parameters())
