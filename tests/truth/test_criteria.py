"""Each criterion against a value counted by hand or by brute force."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from luthier import importance
from luthier.errors import UsageError
from luthier.importance import _refit, obs
from luthier.importance._layers import patches_of
from luthier.mask import prune_weights
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
        }
        for criterion, value in wanted.items():
            got = importance.weight_scores(model, criterion, data, "cross_entropy")[name]
            assert torch.allclose(got, value.detach())


def test_fisher_averages_the_squares_of_single_examples():
    model, data, _ = net()
    x, y = data[0]
    parts = [(x[:3], y[:3]), (x[3:], y[3:])]
    got = importance.weight_scores(model, "fisher", parts, "cross_entropy")["2.weight"]
    squares = [
        torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), model[2].weight)[0] ** 2
        for i in range(8)
    ]
    assert torch.allclose(got, 0.5 * model[2].weight.detach() ** 2 * sum(squares) / 8)


def gate_slopes(model, data, gate):
    """By finite differences: the derivative of each example's loss by a gate on what each unit feeds into a layer."""
    x, y = data[0]
    step = 1e-5
    out = torch.zeros(len(x), 4).double()
    for i in range(4):
        with torch.no_grad():
            above, below = (F.cross_entropy(gate(model, i, 1 + s)(x), y, reduction="none") for s in (step, -step))
        out[:, i] = (above - below) / (2 * step)
    return out


def gated(model, unit, scale):
    out = copy.deepcopy(model)
    with torch.no_grad():
        out[2].weight[:, unit] *= scale
    return out


def test_gates_on_units_example_by_example():
    model, data, analysis = net()
    slopes = gate_slopes(model, data, gated)
    got = importance.score_many(analysis, ["fisher", "activation_taylor", "activation_gradient"], data, "cross_entropy")
    assert torch.allclose(got[0]["0"], 0.5 * slopes.square().mean(0), rtol=1e-6)
    assert torch.allclose(got[1]["0"], slopes.abs().mean(0), rtol=1e-6)
    x, y = data[0]
    a = model[1](model[0](x)).detach().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model[2](a), y, reduction="sum"), a)
    assert torch.allclose(got[2]["0"], g.abs().mean(0))


class Skip(nn.Module):
    """A stream that is read twice by layers and once by a sum."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.back, self.head = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        return self.head(x + self.back(torch.tanh(self.inner(x))))


def test_gates_on_a_stream_count_every_layer_that_reads_it_once():
    torch.manual_seed(3)
    model = Skip().double()
    x, y = torch.randn(8, 3).double(), torch.randint(0, 2, (8,))

    def stream(model, unit, scale):
        out = copy.deepcopy(model)
        with torch.no_grad():
            out.inner.weight[:, unit] *= scale
            out.head.weight[:, unit] *= scale
        return out

    got = importance.score(analyse(model, x), "fisher", [(x, y)], "cross_entropy")["stem"]
    assert torch.allclose(got, 0.5 * gate_slopes(model, [(x, y)], stream).square().mean(0), rtol=1e-6)


def test_second_order_taylor_is_the_change_of_the_loss_as_a_unit_fades_a_little():
    model, data, analysis = net()
    x, y = data[0]
    (first, both) = importance.score_many(analysis, ["taylor", "taylor2"], data, "cross_entropy")

    def change(unit, step):
        with torch.no_grad():
            return float(F.cross_entropy(masked(model, unit, 1 - step)(x), y) - F.cross_entropy(model(x), y))

    step = 1e-3
    for i in range(4):
        slope = (change(i, step) - change(i, -step)) / (2 * step)
        bend = (change(i, step) + change(i, -step)) / step**2
        assert float(first["0"][i]) == pytest.approx(abs(slope), rel=1e-4)
        assert float(both["0"][i]) == pytest.approx(abs(slope + bend / 2), rel=1e-4)


def test_taylor_foretells_the_true_change_of_removing_a_unit_second_order_better():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 2)).double()
    with torch.no_grad():
        model[2].weight *= 0.3  # small changes, where a series is worth something
    x, y = torch.randn(64, 3).double(), torch.randint(0, 2, (64,))
    first, both = importance.score_many(analyse(model, x), ["taylor", "taylor2"], [(x, y)], "cross_entropy")
    with torch.no_grad():
        true = torch.stack([F.cross_entropy(masked(model, i)(x), y) - F.cross_entropy(model(x), y) for i in range(24)])
    errors = [(scores["0"] - true.abs()).abs().mean() for scores in (first, both)]
    assert errors[1] < 0.6 * errors[0]


def test_curvature_is_the_diagonal_of_the_hessian():
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x, y = torch.randn(16, 2).double(), torch.randint(0, 2, (16,))
    obd = importance.weigh(model, "obd", [(x, y)] * 500, "cross_entropy")
    named = {n: p.detach() for n, p in model.named_parameters()}
    for name, w in named.items():

        def loss(v, name=name):
            return F.cross_entropy(torch.func.functional_call(model, {**named, name: v}, (x,)), y)

        exact = torch.func.hessian(loss)(w).reshape(w.numel(), -1).diagonal().view(w.shape)
        slope = torch.func.grad(loss)(w)
        assert torch.allclose(obd.evidence[name].curvature, exact, atol=0.03)
        assert torch.equal(obd.scores[name], 0.5 * obd.evidence[name].curvature * w**2)
        second = importance.get("taylor2").elements(obd.evidence[name])
        assert torch.allclose(second, (obd.scores[name] - slope * w).abs())


def least_squares_error(x, w, kept):
    """The least mean squared error of x v against x w with v zero outside ``kept``, for one row."""
    v = np.zeros(len(w))
    v[kept] = np.linalg.lstsq(x[:, kept], x @ w, rcond=None)[0]
    return np.mean((x @ v - x @ w) ** 2), v


def test_obs_is_the_error_that_least_squares_cannot_undo():
    torch.manual_seed(5)
    layer = nn.Linear(5, 3, bias=False).double()
    x = (torch.randn(40, 5) @ torch.randn(5, 5)).double()
    got = importance.weight_scores(layer, obs.Obs(damping=0.0), [x])["weight"]
    for row in range(3):
        for i in range(5):
            kept = [j for j in range(5) if j != i]
            error, _ = least_squares_error(x.numpy(), layer.weight[row].detach().numpy(), kept)
            assert float(got[row, i]) == pytest.approx(error, rel=1e-8)


def test_obs_of_a_unit_is_the_error_of_the_layers_that_it_feeds():
    torch.manual_seed(6)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1, stride=2, bias=False)).double()
    x = torch.randn(6, 1, 7, 7).double()
    got = importance.score(analyse(model, x), obs.Obs(damping=0.0), [x])["0"]
    with torch.no_grad():
        patches = F.unfold(model[1](model[0](x)), 3, padding=1, stride=2).movedim(1, 2).flatten(0, 1).numpy()
    for i in range(3):
        kept = [j for j in range(27) if j // 9 != i]
        rows = model[2].weight.detach().flatten(1).numpy()
        error = sum(least_squares_error(patches, w, kept)[0] for w in rows)
        assert float(got[i]) == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize(
    "layer", [nn.Linear(8, 4), nn.Conv2d(4, 6, 3, groups=2), nn.Conv1d(4, 3, 3, dilation=2, padding=1)]
)
def test_what_obs_keeps_is_the_least_squares_solution(layer):
    torch.manual_seed(7)
    layer = copy.deepcopy(layer).double()
    x = torch.randn(*{2: (50, 8), 4: (20, 4, 5, 5), 3: (20, 4, 9)}[layer.weight.dim()]).double()
    weighed = importance.weigh(layer, obs.Obs(damping=0.0), [x])
    kept = torch.rand(layer.weight.shape) < 0.5
    mine = weighed.refit("weight", kept)
    rows = layer.weight.detach().flatten(1)
    patches = patches_of(layer, x).movedim(1, 2).numpy()  # [groups, positions, features]
    for i, row in enumerate(rows):
        group = i * len(patches) // len(rows)
        where = kept.flatten(1)[i].nonzero()[:, 0].tolist()
        _, v = least_squares_error(patches[group], row.numpy(), where)
        assert torch.allclose(mine.flatten(1)[i], torch.from_numpy(v), atol=1e-8)


def test_patches_are_what_a_convolution_multiplies():
    torch.manual_seed(8)
    for layer, shape in (
        (nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2, bias=False), (3, 4, 7, 6)),
        (nn.Conv1d(4, 3, 3, dilation=2, padding=1, padding_mode="circular", bias=False), (2, 4, 9)),
        (nn.Conv2d(2, 3, 3, padding="same", bias=False), (2, 2, 5, 5)),
    ):
        layer = layer.double()
        x = torch.randn(shape).double()
        patches = patches_of(layer, x)
        rows = layer.weight.detach().flatten(1).view(layer.groups, -1, patches.shape[1])
        with torch.no_grad():
            expected = layer(x).flatten(2).movedim(0, 1).flatten(1)  # [out, batch * positions]
        assert torch.allclose((rows @ patches).flatten(0, 1), expected)


def test_wide_rows_are_refitted_by_descent(monkeypatch):
    torch.manual_seed(9)
    x = (torch.randn(200, 12) @ torch.randn(12, 12)).double()
    w, kept = torch.randn(5, 12).double(), torch.rand(5, 12) < 0.5
    kept[0] = False
    h = x.T @ x / len(x)
    exact = _refit.refit(w, kept, h)
    monkeypatch.setattr(_refit, "MOST_EXACT", 4)
    descended = _refit.refit(w, kept, h)
    assert (descended[~kept] == 0).all()
    assert torch.allclose(descended, exact, atol=1e-6)


def test_the_surgeon_s_step():
    """Removing one column: the rest moves by -w_0 / [H^-1]_00 times the inverse's first column."""
    torch.manual_seed(10)
    x = torch.randn(30, 4).double()
    h, w = x.T @ x / 30, torch.randn(2, 4).double()
    kept = torch.ones(2, 4, dtype=torch.bool)
    kept[:, 0] = False
    inverse = torch.linalg.inv(h)
    assert torch.allclose(_refit.refit(w, kept, h), w - w[:, :1] / inverse[0, 0] * inverse[0])


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


@pytest.mark.parametrize("criterion", ["fisher", "activation_taylor"])
def test_positions_flattened_into_the_batch_count_for_their_example(criterion):
    class Net(nn.Module):
        def __init__(self, flat):
            super().__init__()
            self.flat, self.inner = flat, nn.Linear(3, 6)
            self.one, self.two = nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, x):
            y = torch.tanh(self.inner(x))
            first = self.one(y)
            second = self.two(y.reshape(-1, 6)).reshape(first.shape) if self.flat else self.two(y)
            return (first * second).sum((1, 2))

    found = []
    for flat in (True, False):
        torch.manual_seed(0)
        net, x = Net(flat).double(), torch.randn(4, 5, 3).double()
        analysis = analyse(net, x)
        found.append(importance.score(analysis, criterion, [(x, torch.ones(4).double())], "mse_loss")["inner"])
    assert torch.allclose(found[0], found[1])


class TorchAttention(nn.Module):
    """PyTorch's own layers, which put time first inside, whatever they are given."""

    def __init__(self, whole, batch_first, turned):
        super().__init__()
        self.whole, self.turned, self.over = whole, turned, 1 if batch_first or turned else 0
        make = nn.TransformerEncoderLayer if whole else nn.MultiheadAttention
        how = {"dim_feedforward": 5, "dropout": 0.0} if whole else {}
        self.inner = make(8, 2, batch_first=batch_first, **how)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = x.transpose(0, 1) if self.turned else x
        x = self.inner(x) if self.whole else self.inner(x, x, x, need_weights=False)[0]
        x = x.transpose(0, 1) if self.turned else x
        return self.head(torch.tanh(x).mean(self.over))


def columns_gated(model, name, unit_of, x, target):
    """By autograd, one example at a time: the derivative of its loss by gates on the columns of a weight."""
    named, rows = {n: p.detach() for n, p in model.named_parameters()}, []
    for one, wanted in zip(x, target, strict=True):
        gates = torch.ones(int(unit_of.max()) + 1, dtype=torch.double, requires_grad=True)
        out = torch.func.functional_call(model, {**named, name: named[name] * gates[unit_of]}, (one,))
        rows.append(torch.autograd.grad(F.cross_entropy(out, wanted[None]), gates)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("steps", [8, 7])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("batch_first", "turned"), [(True, False), (False, True), (False, False)])
def test_examples_are_told_apart_inside_torch_s_own_attention(whole, batch_first, turned, steps):
    torch.manual_seed(11)
    model = TorchAttention(whole, batch_first, turned).double().eval()
    at = 0 if batch_first or turned else 1
    x, y = torch.randn(4, steps, 8).double(), torch.randint(0, 3, (4,))
    given = x.movedim(0, at)
    attention, name = ("inner.self_attn", "inner.self_attn") if whole else ("inner", "inner")
    wanted = {attention: (f"{name}.out_proj.weight", torch.arange(8) // 4)}
    wanted |= {"inner.linear1": ("inner.linear2.weight", torch.arange(5))} if whole else {}
    analysis = analyse(model, given.narrow(at, 0, 3))
    fisher, taylor = importance.score_many(analysis, ["fisher", "activation_taylor"], [(given, y)], "cross_entropy")
    single = [part.movedim(0, at) for part in x.split(1)]
    for group, (weight, unit_of) in wanted.items():
        slopes = columns_gated(model, weight, unit_of, single, y)
        assert torch.allclose(fisher[group], 0.5 * slopes.square().mean(0), rtol=1e-6), group
        assert torch.allclose(taylor[group], slopes.abs().mean(0), rtol=1e-6), group


@pytest.mark.parametrize("steps", [8, 7])
def test_examples_are_told_apart_after_a_recurrent_layer_with_time_first(steps):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.r, self.q, self.o = nn.LSTM(3, 6), nn.Linear(6, 7), nn.Linear(7, 4)

        def forward(self, x):
            return self.o(torch.tanh(self.q(self.r(x.transpose(0, 1))[0]))).mean(0)

    torch.manual_seed(12)
    model, x, y = Net().double(), torch.randn(4, steps, 3).double(), torch.randint(0, 4, (4,))
    got = importance.score(analyse(model, x), "fisher", [(x, y)], "cross_entropy")["q"]
    slopes = columns_gated(model, "o.weight", torch.arange(7), x.split(1), y)
    assert torch.allclose(got, 0.5 * slopes.square().mean(0), rtol=1e-6)


def test_other_lengths_than_the_example_s_are_taken_one_by_one():
    torch.manual_seed(13)
    model = TorchAttention(False, False, True).double().eval()
    x, y = torch.randn(4, 6, 8).double(), torch.randint(0, 3, (4,))
    got = importance.score(analyse(model, torch.randn(3, 8, 8).double()), "fisher", [(x, y)], "cross_entropy")["inner"]
    slopes = columns_gated(model, "inner.out_proj.weight", torch.arange(8) // 4, x.split(1), y)
    assert torch.allclose(got, 0.5 * slopes.square().mean(0), rtol=1e-6)


def test_a_group_without_a_score_is_an_error_that_names_it():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.b(torch.relu(self.a(x))), self.d(torch.relu(self.c(x)))

    x, y = torch.randn(6, 3), torch.randint(0, 2, (6,))
    for criterion in ("fisher", "activation_taylor", "activation_gradient"):
        with pytest.raises(UsageError, match=f"{criterion!r} says nothing about c"):
            importance.score(analyse(Aside(), x), criterion, [(x, y)], lambda out, t: F.cross_entropy(out[0], t))


@pytest.mark.parametrize("criterion", ["taylor", "movement", "snip", "fisher", "activation_taylor"])
def test_batches_count_by_their_examples(criterion):
    model, _, analysis = net()
    x, y = torch.randn(10, 3).double(), torch.randint(0, 2, (10,))
    for parts in ([(x[:8], y[:8]), (x[8:], y[8:])], [(x[:1], y[:1]), (x[1:], y[1:])]):
        got, whole = (importance.score(analysis, criterion, d, "cross_entropy")["0"] for d in (parts, [(x, y)]))
        assert torch.allclose(got, whole)
        if hasattr(importance.get(criterion), "elements"):
            got, whole = (importance.weight_scores(model, criterion, d, "cross_entropy") for d in (parts, [(x, y)]))
            assert all(torch.allclose(got[n], whole[n]) for n in whole)


def test_curvature_of_units_counts_batches_by_their_examples():
    _, _, analysis = net()
    x, y = torch.randn(10, 3).double(), torch.randint(0, 2, (10,))
    uneven, whole = (
        importance.score(analysis, "taylor2", data, "cross_entropy")["0"]
        for data in ([(x[:9], y[:9]), (x[9:], y[9:])], [(x, y)])
    )
    assert torch.allclose(uneven, whole)


def test_data_are_read_as_a_task_reads_them():
    torch.manual_seed(14)
    model, x, y = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(150, 3), torch.arange(150) % 2
    analysis = analyse(model, x[:2])
    before = torch.get_rng_state()
    for criterion in ("wanda", "taylor", "fisher", "obs"):
        for given in ((x, y), (x.numpy(), y.numpy())):
            got = importance.score(analysis, criterion, given, "cross_entropy")["0"]
            wanted = importance.score(analysis, criterion, [(x[:70], y[:70]), (x[70:], y[70:])], "cross_entropy")["0"]
            assert torch.allclose(got, wanted, rtol=1e-4)
    assert importance.mean_loss(model, (x, y), "cross_entropy") == pytest.approx(float(F.cross_entropy(model(x), y)))
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(UsageError, match="differ in length"):
        importance.score(analysis, "wanda", (x, y[:9]))


def test_losses_go_by_the_names_that_tasks_know():
    torch.manual_seed(15)
    model, x = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(20, 3)
    answers, values = (torch.rand(20) > 0.5).long(), torch.randn(20)
    functions = {
        "bce": (answers, lambda out, t: F.binary_cross_entropy_with_logits(out[:, 0], t.float())),
        "mse": (values, lambda out, t: F.mse_loss(out[:, 0], t)),
        "l1": (values, lambda out, t: F.l1_loss(out[:, 0], t)),
    }
    for name, (target, function) in functions.items():
        got, wanted = (importance.weight_scores(model, "taylor", [(x, target)], loss) for loss in (name, function))
        assert all(torch.allclose(got[n], wanted[n]) for n in wanted), name
    with pytest.raises(UsageError, match="one of cross_entropy, bce"):
        importance.weight_scores(model, "taylor", [(x, values)], "mseloss")


def test_layers_that_are_called_by_keyword_are_looked_at():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.l, self.named = nn.Linear(4, 3), True

        def forward(self, x):
            return self.l(input=x) if self.named else self.l(x)

    torch.manual_seed(16)
    model, x = Named(), torch.randn(9, 4)
    for criterion in ("wanda", "obs"):
        model.named = True
        got = importance.weight_scores(model, criterion, [x])["l.weight"]
        model.named = False
        assert torch.equal(got, importance.weight_scores(model, criterion, [x])["l.weight"])


class _Worded(nn.Module):
    """Takes arguments by name and gives a dict, as language models do."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(9, 5), nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, ids, labels=None):
        found = {"logits": self.head(self.layer(self.embed(ids).mean(1)).tanh())}
        return found if labels is None else {"loss": F.cross_entropy(found["logits"], labels), **found}


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "obd", "wanda", "activation", "activation_gradient"])
def test_dicts_with_labels_are_read_and_named_losses_look_at_the_logits(criterion):
    torch.manual_seed(0)
    model, ids, y = _Worded(), torch.randint(9, (12, 4)), torch.randint(3, (12,))
    named = [{"ids": ids[i : i + 4], "labels": y[i : i + 4]} for i in (0, 4, 8)]
    pairs = [({"ids": ids[i : i + 4]}, y[i : i + 4]) for i in (0, 4, 8)]
    analysis = analyse(model, {"ids": ids[:2]})
    found = importance.score(analysis, criterion, named, "cross_entropy")
    wanted = importance.score(analysis, criterion, pairs, lambda out, y: F.cross_entropy(out["logits"], y))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[n], wanted[n]) for n in found)
    losses = [importance.mean_loss(model, named, "cross_entropy"), float(F.cross_entropy(model(ids)["logits"], y))]
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.parametrize(("kind", "close"), [(torch.bfloat16, 0.02), (torch.float16, 0.005)])
@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_means_over_many_batches_hold_in_half_precision(kind, close, criterion):
    torch.manual_seed(0)
    short = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).to(kind)
    data = [(x.to(kind), torch.tensor([int(x[0, 0] > -0.5)])) for x in torch.randn(400, 1, 4)]
    exact = [(x.double(), y) for x, y in data]
    found = importance.weight_scores(short, criterion, data, "cross_entropy")
    wanted = importance.weight_scores(copy.deepcopy(short).double(), criterion, exact, "cross_entropy")
    for name in ("0.weight", "2.weight"):
        assert float((found[name] - wanted[name]).norm() / wanted[name].norm()) < close


class _Tied(nn.Module):
    """The first layer's weight is the last one's: its name is that of a module without inputs of its own."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(9, 5), nn.Linear(5, 5), nn.Linear(5, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.layer(self.embed(ids).mean(1)).tanh())


def test_a_shared_weight_goes_by_the_inputs_of_the_layer_that_has_some():
    torch.manual_seed(0)
    model, ids = _Tied(), torch.randint(9, (30, 4))
    found = importance.weight_scores(model, "wanda", [(ids, None)])["embed.weight"]
    inputs = model.layer(model.embed(ids).mean(1)).tanh()
    assert torch.allclose(found.float(), model.embed.weight.abs() * inputs.square().mean(0).sqrt(), atol=1e-6)
    kept = importance.weigh(model, "obs", [(ids, None)]).evidence["embed.weight"].covariance
    assert torch.allclose(kept[0].float(), inputs.mT @ inputs / 30, atol=1e-6)


def test_a_unit_that_passes_a_depthwise_convolution_is_looked_at_once_where_it_is_summed():
    torch.manual_seed(0)
    first, depthwise = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
    model = nn.Sequential(first, nn.ReLU(), depthwise, nn.ReLU(), nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(100, 3))
    model, x, y = model.double().eval(), torch.randn(7, 3, 5, 5).double(), torch.randint(3, (7,))
    names = ["activation", "variance", "fisher", "activation_taylor"]
    analysis = analyse(model, x[:2])
    seen = importance.score_many(analysis, names, [(x[:4], y[:4]), (x[4:], y[4:])], "cross_entropy")
    found = {name: scores["0"] for name, scores in zip(names, seen, strict=True)}
    gates = torch.ones(7, 6, 1, 1, dtype=torch.double, requires_grad=True)  # one for each example and unit
    value = F.cross_entropy(model[4:](model[:4](x) * gates), y, reduction="sum")
    slopes = torch.autograd.grad(value, gates)[0].flatten(1)
    kept = model[:4](x).detach().movedim(1, 0).flatten(1)
    wanted = {"fisher": 0.5 * slopes.square().mean(0), "activation_taylor": slopes.abs().mean(0)}
    wanted |= {"activation": kept.abs().mean(1), "variance": kept.var(1, unbiased=False)}
    assert all(torch.allclose(found[name], wanted[name]) for name in names)


def test_the_norm_of_a_single_weight_is_its_magnitude():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    found = importance.weight_scores(model, "l2")
    assert all(torch.equal(found[name], p.abs()) for name, p in model.named_parameters())
    cut = prune_weights(model, threshold=0.1, criterion="l2")
    assert all(torch.equal(kept, model.get_parameter(name).abs() >= 0.1) for name, kept in cut.masks.items())
    lamps = [prune_weights(model, ratio=0.5, scope="lamp", criterion=c).masks for c in ("l1", "l2")]
    assert all(torch.equal(lamps[0][name], lamps[1][name]) for name in lamps[0])


def test_a_tensor_of_inputs_is_data_without_targets():
    layer, x = nn.Linear(5, 3), torch.randn(150, 5)
    found = importance.weight_scores(layer, "wanda", x)["weight"].float()
    assert torch.allclose(found, layer.weight.abs() * x.square().mean(0).sqrt(), atol=1e-6)


@pytest.mark.parametrize("data", ["x", 5, [torch.zeros(4, 5), torch.zeros(4).long()]])
def test_data_that_are_no_batches_with_targets_are_named(data):
    with pytest.raises(UsageError, match=r"no batches|needs a target"):
        importance.weight_scores(nn.Linear(5, 3), "taylor", data, "cross_entropy")
