"""Weight masks: exact counts, against torch.nn.utils.prune, and through everything that could undo them."""

import copy
import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as reference

import luthier as lt
from luthier.errors import UsageError
from luthier.gradual import GradualPruning, Rewind
from luthier.schedule import Schedule


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 4))


def _zeros(model: nn.Module) -> int:
    return sum(int((m.weight == 0).sum()) for m in model if isinstance(m, nn.Conv2d | nn.Linear))


def test_global_magnitude_removes_what_torch_removes():
    theirs = _net()
    layers = [(m, "weight") for m in theirs if isinstance(m, nn.Conv2d | nn.Linear)]
    reference.global_unstructured(layers, reference.L1Unstructured, amount=0.7)
    ours = lt.prune_weights(_net(), ratio=0.7)
    for (module, _), name in zip(layers, ("0.weight", "4.weight"), strict=True):
        assert torch.equal(ours.masks[name], module.weight_mask.bool())


def test_scope_layer_removes_the_share_from_each():
    masked = lt.prune_weights(_net(), ratio=0.5, scope="layer")
    assert [int(m.sum()) for m in masked.masks.values()] == [72, 64]


def test_threshold_removes_what_is_below():
    model = _net()
    masked = lt.prune_weights(model, threshold=0.1)
    assert torch.equal(masked.masks["4.weight"], model[4].weight.abs() >= 0.1)


def test_pattern_keeps_the_two_largest_of_every_four():
    model = _net()
    masked = lt.prune_weights(model, pattern="2:4")
    rows = masked.masks["4.weight"].reshape(-1, 4)
    assert rows.sum(1).eq(2).all()
    weight = model[4].weight.detach().abs().reshape(-1, 4)
    assert (torch.where(rows, weight, torch.inf).amin(1) >= torch.where(rows, 0, weight).amax(1)).all()
    assert "0.weight" in masked.skipped  # two input channels are no multiple of four


def test_ties_are_cut_to_the_exact_share():
    model = nn.Linear(10, 10)
    nn.init.constant_(model.weight, 1.0)
    assert int(lt.prune_weights(model, ratio=0.37).model.weight.count_nonzero()) == 63


def test_the_original_is_untouched():
    model = _net()
    before = copy.deepcopy(model.state_dict())
    lt.prune_weights(model, ratio=0.9)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5),
        lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
    ],
)
def test_masks_hold_through_any_optimiser(optimizer):
    masked = lt.prune_weights(_net(), ratio=0.8)
    wanted = _zeros(masked.model)
    steps = optimizer(masked.model.parameters())
    for _ in range(3):
        steps.zero_grad()
        masked.model(torch.randn(4, 2, 4, 4)).square().mean().backward()
        steps.step()
        assert _zeros(masked.model) >= wanted
    assert not torch.equal(masked.model[4].weight, _net()[4].weight)


def test_masks_hold_though_momentum_was_there_before():
    model = _net()
    steps = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(4, 2, 4, 4)).square().mean().backward()
    steps.step()
    gradual = GradualPruning(model, Schedule(0.9, steps=1, kind="one-shot"))
    gradual(1, {})
    before = _zeros(model)
    steps.step()
    assert _zeros(model) == before > 0


def test_masks_hold_through_copy_state_dict_and_finalize(tmp_path):
    masked = lt.prune_weights(_net(), ratio=0.8)
    x = torch.randn(3, 2, 4, 4)
    masked.model.eval()
    expected = masked(x)
    assert torch.equal(copy.deepcopy(masked.model)(x), expected)
    again = lt.prune_weights(_net(), ratio=0.1).model.eval()
    again.load_state_dict(masked.model.state_dict())
    assert torch.equal(again(x), expected)
    plain = masked.finalize()
    assert [type(m) for m in plain] == [type(m) for m in _net()]
    assert lt.prune_weights(plain, ratio=0.9).sparsity == pytest.approx(0.9, abs=0.01)
    assert lt.prune_weights(masked, ratio=0.9).sparsity == pytest.approx(0.9, abs=0.01)
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in _net().named_parameters()]
    assert torch.equal(plain(x), expected)
    lt.export_onnx(masked, tmp_path / "masked.onnx", x)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Sequential(nn.Linear(8, 4, bias=False)), (3, 8)),
        (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)), (3, 2, 5, 5)),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, bias=False, batch_first=True), (3, 4, 8)),
    ],
)
def test_layers_without_a_bias_are_whole_again_after_finalize(make, shape):
    model = make().eval()
    masked = lt.prune_weights(model, ratio=0.5)
    plain, x = masked.finalize(), torch.randn(shape)
    assert torch.equal(plain(x), masked.model(x))
    assert repr(plain) == repr(model)
    assert lt.prune_weights(masked, ratio=0.8).sparsity == pytest.approx(0.8, abs=0.02)


def test_shared_weights_share_their_mask_and_stay_shared():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.c.weight = self.b.weight

        def forward(self, x):
            return self.c(torch.relu(self.b(torch.relu(self.a(x)))))

    x, y = torch.randn(32, 6), torch.randint(8, (32,))
    masked = lt.prune_weights(Tied(), ratio=0.5)
    lt.fit(masked, lt.Task(train=(x, y), valid=(x, y)), epochs=2, lr=0.1, progress=False)
    plain = masked.finalize()
    assert plain.b.weight is plain.c.weight
    assert sum(int((p == 0).sum()) for n, p in plain.named_parameters() if "weight" in n) == (48 + 64) // 2
    assert torch.equal(plain(x), masked(x))
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in Tied().parameters())


@pytest.mark.slow
def test_masks_hold_through_torch_compile():
    torch.manual_seed(0)
    masked = lt.prune_weights(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), ratio=0.8)
    x, wanted = torch.randn(5, 6), sum(int((masked.model[i].weight == 0).sum()) for i in (0, 2))
    try:
        compiled = torch.compile(masked.model)
        got = compiled(x)
    except Exception as error:  # no compiler for C++ here
        pytest.skip(f"torch.compile does not run here: {type(error).__name__}")
    assert torch.allclose(got, masked.model(x), atol=1e-6)
    steps = torch.optim.SGD(compiled.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        steps.zero_grad()
        compiled(x).square().mean().backward()
        steps.step()
    assert sum(int((masked.model[i].weight == 0).sum()) for i in (0, 2)) == wanted
    assert torch.allclose(compiled(x), masked.finalize()(x), atol=1e-6)


def test_pattern_four_of_eight():
    torch.manual_seed(0)
    masked = lt.prune_weights(nn.Linear(32, 5), pattern="4:8")
    assert masked.masks["weight"].reshape(-1, 8).sum(1).eq(4).all()


def test_lamp_s_masks_by_hand():
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Linear(1, 2, bias=False))
    model[0].weight.data = torch.tensor([[3.0, 1.0, 2.0]])  # shares 1, 1/14, 4/13
    model[1].weight.data = torch.tensor([[100.0], [50.0]])  # shares 1, 1/5
    masked = lt.prune_weights(model, ratio=0.4, scope="lamp")
    assert masked.masks["0.weight"].tolist() == [[True, False, True]]
    assert masked.masks["1.weight"].tolist() == [[True], [False]]


@pytest.mark.parametrize("how", [{"ratio": 0.6, "scope": "layer"}, {"pattern": "2:4"}])
def test_obs_re_fits_what_it_keeps(how):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    x = torch.randn(300, 16) @ torch.randn(16, 16)
    plain = lt.prune_weights(model, criterion="magnitude", **how).finalize()
    masked = lt.prune_weights(model, criterion="obs", data=[x[:100], x[100:]], **how)
    assert all((masked.model[i].weight[~masked.masks[f"{i}.weight"]] == 0).all() for i in (0, 2))
    with torch.no_grad():
        true = model(x)
        errors = [float((m(x) - true).square().mean()) for m in (masked.finalize(), plain)]
    assert errors[0] < 0.6 * errors[1]


def test_rewinding_puts_the_early_weights_back_and_keeps_the_zeros():
    torch.manual_seed(0)
    x, y = torch.randn(64, 2, 4, 4), torch.randint(4, (64,))
    task = lt.Task(train=(x, y), valid=(x, y))
    model, seen = _net(), {}
    rewind = Rewind(model, at=2)

    def each(epoch, scores):
        rewind(epoch, scores)
        seen[epoch] = copy.deepcopy(model.state_dict())

    lt.fit(model, task, epochs=4, keep="last", progress=False, on_epoch=each)
    masked = rewind.onto(lt.prune_weights(model, ratio=0.7))
    plain = masked.finalize().state_dict()
    for name, early in seen[2].items():
        kept = masked.masks.get(name, torch.ones_like(early, dtype=torch.bool))
        assert torch.equal(plain[name], early * kept), name
    assert not torch.equal(plain["4.bias"], seen[4]["4.bias"])
    lt.fit(masked, task, epochs=1, progress=False)
    assert masked.sparsity == pytest.approx(0.7, abs=0.01)
    with pytest.raises(UsageError, match="has not come"):
        Rewind(_net(), at=3).onto(masked)
    with pytest.raises(UsageError, match=r"no '0.weight'|another"):
        rewind.onto(lt.prune_weights(nn.Linear(4, 4), ratio=0.5))


def test_the_iterative_schedule_removes_the_same_share_of_what_is_left():
    schedule = Schedule(0.9, steps=4, kind="iterative")
    left = [1 - schedule(t) for t in range(6)]
    assert left[0] == 1
    assert left[4] == left[5] == pytest.approx(0.1)
    assert all(b / a == pytest.approx(0.1**0.25) for a, b in itertools.pairwise(left[:5]))


@pytest.mark.parametrize("criterion", ["snip", "movement", "wanda"])
def test_gradual_pruning_by_any_criterion(criterion):
    torch.manual_seed(0)
    x, y = torch.randn(32, 2, 4, 4), torch.randint(4, (32,))
    model, removed = _net(), []
    prune = GradualPruning(
        model, Schedule(0.8, steps=2), criterion=criterion, data=[(x, y)], loss=nn.functional.cross_entropy
    )
    steps = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in (1, 2, 3):
        model(x).square().mean().backward()
        steps.step()
        prune(epoch)
        removed.append(model[4].weight == 0)
    assert all((early & ~late).sum() == 0 for early, late in itertools.pairwise(removed))
    total = sum(m.weight.numel() for m in model if isinstance(m, nn.Conv2d | nn.Linear))
    assert _zeros(model) == round(0.8 * total)


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ({"criterion": "fpgm"}, "scores neurons"),
        ({"criterion": lambda e: torch.ones_like(e.weight)}, "says nothing about 0.weight, 4.weight"),
        ({"criterion": "taylor"}, "needs data"),
        ({"criterion": "taylor", "data": [(torch.ones(1, 2, 4, 4), torch.ones(1))]}, "needs loss"),
        ({"criterion": "wanda", "data": (torch.ones(1, 2, 4, 4) for _ in range(3))}, "generator"),
    ],
)
def test_gradual_pruning_refuses_at_once_what_it_could_not_use_later(how, word):
    model = _net()
    with pytest.raises(UsageError, match=word):
        GradualPruning(model, Schedule(0.5, steps=2), **how)
    assert list(model.state_dict()) == list(_net().state_dict())


def test_sizes_are_those_of_the_weights():
    masked = lt.prune_weights(nn.Linear(100, 50), ratio=0.9)
    sizes = masked.bytes()
    assert sizes["dense"] == 4 * 5000
    assert sizes["csr"] == 8 * 500 + 4 * 51
    assert 4 * 500 < sizes["gzip"] < sizes["dense"] / 3
    assert f"{sizes['csr']:,} as compressed sparse rows. Ordinary runtimes are not faster for zeros" in str(masked)


def test_gradual_pruning_follows_its_schedule_and_never_brings_back():
    x, y = torch.randn(64, 2, 4, 4), torch.randint(4, (64,))
    model, removed = _net(), []
    prune = GradualPruning(model, Schedule(0.9, steps=4))

    def each_epoch(epoch, scores):
        prune(epoch, scores)
        removed.append((model[4].weight == 0) | False)

    lt.fit(model, lt.Task(train=(x, y), valid=(x, y)), epochs=5, keep="last", progress=False, on_epoch=each_epoch)
    assert all((early & ~late).sum() == 0 for early, late in itertools.pairwise(removed))
    total = sum(m.weight.numel() for m in model if isinstance(m, nn.Conv2d | nn.Linear))
    assert _zeros(model) == round(0.9 * total)


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ({}, "exactly one way"),
        ({"ratio": 0.5, "threshold": 0.1}, "exactly one way"),
        ({"ratio": 1.0}, "ratio"),
        ({"ratio": -0.1}, "ratio"),
        ({"threshold": float("nan")}, "threshold"),
        ({"pattern": "4:2"}, "pattern"),
        ({"pattern": "most"}, "pattern"),
        ({"ratio": 0.5, "scope": "galaxy"}, "scope"),
        ({"ratio": 0.5, "criterion": "tailor"}, "taylor"),
        ({"ratio": 0.5, "protect": ["nowhere"]}, "nowhere"),
        ({"ratio": 0.5, "protect": "layer"}, "list of names"),
        ({"ratio": "0.5"}, "ratio"),
        ({"ratio": 0.5, "protect": ["0", "4"]}, "no weights"),
    ],
)
def test_bad_input_is_named(how, word):
    with pytest.raises(UsageError, match=word):
        lt.prune_weights(_net(), **how)


def test_layers_of_signed_scores_compare_over_all_layers_while_masks_grow():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    values = [[[-9.0, -8.0], [-7.0, -6.0]], [[1.0, 2.0], [3.0, 4.0]]]
    with torch.no_grad():
        for layer, weight in zip(model, values, strict=True):
            layer.weight.copy_(torch.tensor(weight))
    prune = GradualPruning(model, Schedule(0.5, steps=1, kind="one-shot"), criterion=lambda e: e.weight)
    prune(1)
    prune(2)
    assert [int(layer.weight.count_nonzero()) for layer in model] == [0, 4]


def test_lamp_removes_the_lowest_of_signed_scores():
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-5.0, -0.1, 0.1, 5.0]]))
    masked = lt.prune_weights(model, ratio=0.5, scope="lamp", criterion=lambda e: e.weight)
    assert masked.masks["0.weight"].tolist() == [[False, False, True, True]]


def test_biases_and_norms_of_several_dimensions_are_left_alone():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.LayerNorm([4, 6, 6])
            self.bias, self.unbiased = nn.Parameter(torch.zeros(4, 6, 6)), nn.Parameter(torch.rand(3, 3))

    masked = lt.prune_weights(Own(), ratio=0.5)
    assert set(masked.masks) == {"conv.weight", "unbiased"}
    assert dict(masked.skipped) == {
        "norm.weight": "norms are left alone",
        "norm.bias": "norms are left alone",
        "bias": "biases are left alone",
    }


def test_nothing_masked_is_nothing_removed():
    masked = lt.prune_weights(nn.Linear(6, 8), pattern="2:4")
    assert (masked.sparsity, dict(masked.masks)) == (0.0, {})
    assert "  0.0% of these weights are zero: 0 bytes" in str(masked)


def test_a_layer_of_which_nothing_is_left_is_named_once():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 50))
    with torch.no_grad():
        model[0].weight.mul_(1e-3)
    with pytest.warns(UserWarning, match=r"nothing is left of 0\.weight: ") as seen:
        masked = lt.prune_weights(model, ratio=0.5)
    assert len(seen) == 1
    assert [bool(m.any()) for m in masked.masks.values()] == [False, True]
    prune = GradualPruning(model, Schedule(0.5, steps=1))
    with warnings.catch_warnings(record=True) as seen:
        prune(1)
        prune(2)
        lt.prune_weights(model, ratio=0.6)
    assert ["nothing is left of 0.weight" in str(warning.message) for warning in seen] == [True]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d])
def test_a_pattern_goes_along_the_inputs_of_transposed_convolutions(kind, groups):
    torch.manual_seed(0)
    layer = kind(8, 6, 3, groups=groups, bias=False).requires_grad_(False)
    kept = lt.prune_weights(layer, pattern="2:4").finalize().requires_grad_(False)
    size = [5] * (layer.weight.ndim - 2)
    for output in range(6):  # which inputs reach an output through the middle of the kernel, asked one at a time
        mine = [i for i in range(8) if i * groups // 8 == output * groups // 6]
        for weighed, expected in ((layer, 4), (kept, 2)):
            reach = []
            for i in mine:
                x = torch.zeros(1, 8, *size)
                x[(0, i, *[2] * len(size))] = 1
                reach.append(float(weighed(x)[(0, output, *[3] * len(size))]))
            fours = torch.tensor(reach).reshape(-1, 4)
            assert (fours != 0).sum(1).eq(expected).all()
    odd = lt.prune_weights(kind(6, 8, 3), pattern="2:4")
    assert dict(odd.skipped) == {"weight": "its 6 inputs are no multiple of 4"}
