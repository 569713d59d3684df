"""Each criterion against a value counted by hand or by brute force."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from luthier import importance
from luthier.model import analyse


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(8, 3).double(), torch.randint(0, 2, (8,))
    return model, [(x, y)], analyse(model, x)


def masked(model, unit, scale=0.0):
    out = copy.deepcopy(model)
    with torch.no_grad():
        out[0].weight[unit] *= scale
        out[0].bias[unit] *= scale
        out[2].weight[:, unit] *= scale
    return out


def test_norms_run_over_all_that_goes_with_a_unit():
    model, _, analysis = net()
    l1, l2 = (importance.score(analysis, name)["0"] for name in ("l1", "l2"))
    for i in range(4):
        mine = torch.cat([model[0].weight[i], model[0].bias[i : i + 1], model[2].weight[:, i]]).detach()
        assert float(l1[i]) == pytest.approx(float(mine.abs().sum()))
        assert float(l2[i]) == pytest.approx(float(mine.norm()))


def test_taylor_is_the_slope_of_the_loss_as_a_unit_fades():
    model, data, analysis = net()
    x, y = data[0]
    scores = importance.score(analysis, "taylor", data, "cross_entropy")["0"]
    step = 1e-6
    for i in range(4):
        slope = (F.cross_entropy(masked(model, i, 1 - step)(x), y) - F.cross_entropy(model(x), y)) / step
        assert float(scores[i]) == pytest.approx(abs(float(slope)), rel=1e-4)


def test_gradient_criteria_by_hand():
    model, data, _ = net()
    x, y = data[0]
    grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    for (name, w), g in zip(model.named_parameters(), grads, strict=True):
        wanted = {
            "taylor": (w * g).abs(),
            "snip": (w * g).abs(),
            "movement": -w * g,
            "fisher": 0.5 * (w * g) ** 2,
        }
        for criterion, value in wanted.items():
            got = importance.weight_scores(model, criterion, data, "cross_entropy")[name]
            assert torch.allclose(got, value.detach())


def test_fisher_averages_squares_over_batches():
    model, data, _ = net()
    x, y = data[0]
    parts = [(x[:4], y[:4]), (x[4:], y[4:])]
    got = importance.weight_scores(model, "fisher", parts, "cross_entropy")["2.weight"]
    squares = []
    for a, b in parts:
        squares.append(torch.autograd.grad(F.cross_entropy(model(a), b), model[2].weight)[0] ** 2)
    assert torch.allclose(got, 0.5 * model[2].weight.detach() ** 2 * sum(squares) / 2)


def test_activation_statistics_counted_by_hand():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(8, 2))
    batches = [torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)]
    analysis = analyse(model, batches[0])
    with torch.no_grad():
        a = model[1](model[0](torch.cat(batches))).movedim(1, 0).flatten(1).double()
    expected = {
        "activation": a.abs().mean(1),
        "apoz": 1 - (a == 0).double().mean(1),
        "variance": a.var(1, unbiased=False),
    }
    for name, value in expected.items():
        got = importance.score(analysis, name, batches)["0"]
        assert torch.allclose(got, value, atol=1e-6), name


def test_activations_of_flattened_channels_are_averaged_over_their_positions():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(12, 2))
    x = torch.randn(5, 1, 4, 4)
    got = importance.score(analyse(model, x), "activation", [x])["0"]
    with torch.no_grad():
        assert torch.allclose(got, model[1](model[0](x)).double().mean((0, 2, 3)))


def test_wanda_multiplies_by_the_norm_of_each_input():
    torch.manual_seed(2)
    linear = nn.Linear(3, 2)
    x = torch.randn(6, 3)
    got = importance.weight_scores(linear, "wanda", [x])["weight"]
    assert torch.allclose(got.float(), linear.weight.abs() * x.square().mean(0).sqrt(), atol=1e-6)
    grouped = nn.Conv2d(4, 6, 1, groups=2)
    x = torch.randn(3, 4, 2, 2)
    got = importance.weight_scores(grouped, "wanda", [x])["weight"]
    rms = x.square().mean((0, 2, 3)).sqrt()
    for o in range(6):
        mine = rms[:2] if o < 3 else rms[2:]
        assert torch.allclose(got[o, :, 0, 0].float(), grouped.weight[o, :, 0, 0].abs() * mine, atol=1e-6)


def test_batch_norm_scale_looks_at_nothing_else():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    model[1].weight.data = torch.tensor([0.5, -2.0, 0.0, 1.0])
    got = importance.score(analyse(model, torch.zeros(2, 1, 3, 3)), "bn_scale")["0"]
    assert got.tolist() == [0.5, 2.0, 0.0, 1.0]


def test_the_filter_in_the_middle_scores_least():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
    rows = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]])
    model[0].weight.data = rows
    got = importance.score(analyse(model, torch.zeros(1, 2)), "fpgm")["0"].numpy()
    by_hand = [sum(np.linalg.norm(a - b) for b in rows.numpy()) for a in rows.numpy()]
    assert got == pytest.approx(by_hand)
    assert got.argmin() == 1


def test_heads_are_scored_whole():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out, self.head = nn.Linear(6, 18), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            n, t, _ = x.shape
            q, k, v = self.qkv(x).reshape(n, t, 3, 3, 2).permute(2, 0, 3, 1, 4).unbind(0)
            a = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
            return self.head(x + self.out(a.transpose(1, 2).reshape(n, t, 6)))

    model = Attention()
    analysis = analyse(model, torch.randn(2, 4, 6))
    (heads,) = [g for g in analysis.groups if "heads" in g.roles]
    got = importance.score(analysis, "l1")[heads.name]
    for h in range(3):
        rows = [q * 6 + h * 2 + i for q in range(3) for i in range(2)]
        columns = [h * 2, h * 2 + 1]
        mine = model.qkv.weight[rows].abs().sum() + model.qkv.bias[rows].abs().sum()
        mine = mine + model.out.weight[:, columns].abs().sum()
        assert float(got[h]) == pytest.approx(float(mine), rel=1e-6)
