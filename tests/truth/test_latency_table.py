"""The table of layer times: kept, interpolated, added up; widths that the runtime likes; budgets of latency."""

import math
import warnings

import pytest
import torch
from torch import nn

import luthier as lt
from luthier.allocate import Rounding
from luthier.errors import BudgetError
from luthier.measure.single import KINDS, milliseconds
from luthier.measure.table import Predictor, Table
from luthier.measure.widths import kinds, liked, multiple_for, price
from luthier.model import analyse, cost
from luthier.surgery import _neighbours, latency


def work(spec):
    """Time = multiplications, for every kind of operation."""
    kind = spec[0]
    if kind == "conv":
        _, batch, inputs, outputs, groups, image, kernel = spec[:7]
        return 1e-6 * batch * inputs * outputs / groups * math.prod(image) * math.prod(kernel)
    return 0.0 if kind in ("map", "softmax", "norm", "skip norm", "gelu", "transpose") else 1e-6 * math.prod(spec[1:])


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10)).eval()


def test_where_time_is_multiplications_the_prediction_is_the_cost(net):
    analysis = analyse(net, torch.zeros(1, 3, 8, 8))
    latency = Predictor(analysis, Table(None, measure=work))
    for share in (1.0, 0.5, 0.25, 0.6):
        keep = {g.name: range(round(g.size * share)) for g in analysis.groups}
        assert latency(keep) / latency() == pytest.approx(cost.macs(analysis, keep) / cost.macs(analysis), rel=0.02)


def test_few_widths_are_measured_for_many_plans(net):
    seen = []
    analysis = analyse(net, torch.zeros(1, 3, 8, 8))
    latency = Predictor(analysis, Table(None, measure=lambda spec: seen.append(spec) or 1.0))
    for n in range(1, 32):
        latency({"0": range(n), "2": range(2 * n)})
    assert len(seen) <= 40
    assert len(seen) == len({str(s) for s in seen})


def test_a_table_is_kept_for_this_machine_and_runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    table = Table.here()
    table.times["x"] = 1.5
    table.save()
    assert Table.here().times == {"x": 1.5}
    (file,) = tmp_path.iterdir()
    file.write_text("{broken")
    assert Table.here().times == {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_operation_is_timed(kind):
    sizes = {
        "conv": (1, 8, 8, 1, [6, 6], [3, 3], [1, 1], [1, 1], [1, 1]),
        "linear": (4, 8, 8),
        "project": (4, 8, 8),
        "matmul": (2, 4, 8, 4),
    }
    sizes |= dict.fromkeys(("lstm", "gru", "rnn"), (3, 1, 8, 8, 2))
    assert 0 < milliseconds((kind, *sizes.get(kind, (4, 8)))) < 1000


def test_attention_and_every_recurrent_layer_are_looked_up():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.lstm = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), nn.LSTM(16, 8, 2)

        def forward(self, x):
            return self.lstm(self.layer(x))[0]

    seen = []
    latency = Predictor(analyse(Net(), torch.zeros(3, 5, 16)), Table(None, measure=lambda s: seen.append(s) or 1.0))
    latency()
    assert {("matmul", 6, 5, 8, 5), ("matmul", 6, 5, 5, 8), ("project", 15, 16, 24), ("project", 15, 24, 16)} < {*seen}
    assert {s for s in seen if s[0] == "lstm"} == {("lstm", 3, 5, 16, 8, 1), ("lstm", 3, 5, 8, 8, 1)}
    assert {"skip norm", "softmax", "transpose"} < {s[0] for s in seen}


def test_a_runtime_that_works_in_blocks_wants_multiples_of_them():
    blocks = Table(None, measure=lambda spec: float(-(-spec[2] // 16)) ** 2)
    fair = Table(None, measure=lambda spec: float(spec[2]) ** (1 if spec[0] == "conv" and spec[4] > 1 else 2))
    assert liked(blocks, ["linear"]) == 16
    assert liked(fair, ["linear", "depthwise"]) == 1
    assert price(blocks, "linear", 1) > price(blocks, "linear", 8) > 1


def test_auto_looks_at_the_layers_of_the_network(net):
    analysis = analyse(net, torch.zeros(1, 3, 8, 8))
    assert kinds(analysis) == ["conv", "linear"]
    assert multiple_for(analysis, 4) == 4
    assert multiple_for(analysis, "auto", Table(None, measure=lambda spec: 1.0)) == 16


@pytest.mark.parametrize(("share", "width"), [(0.5, 16), (0.3, 8), (0.1, 2)])
def test_auto_goes_below_what_is_liked_where_no_budget_can_be_met_with_it(monkeypatch, share, width):
    """Of 32 hidden units, whose number is the MACs' share: 16, the half of it, or an eighth stay in one step."""
    monkeypatch.setattr(
        "luthier.surgery.multiple_for", lambda analysis, multiple: 16 if multiple == "auto" else multiple
    )
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    with warnings.catch_warnings(action="ignore"):
        pruned = lt.prune_neurons(net, torch.zeros(1, 8), budget={"macs": share}, multiple="auto")
    assert pruned.model[0].out_features == width
    if share < 0.5:
        with pytest.raises(BudgetError, match="multiple=1"):
            lt.prune_neurons(net, torch.zeros(1, 8), budget={"macs": share}, multiple=16)


@pytest.mark.slow
def test_a_budget_of_latency_is_measured(net, tmp_path, monkeypatch):
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pruned = lt.prune_neurons(net, torch.randn(1, 3, 16, 16), budget={"latency": 0.6}, multiple=8)
    before, after = pruned.plan.macs
    assert after < before
    told = [str(w.message) for w in said if "nearest latency" in str(w.message)]
    assert len(told) <= 1


def test_a_profile_shows_each_layers_time_and_is_plain_data(net, tmp_path, monkeypatch):
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    found = lt.profile(net, torch.randn(1, 3, 8, 8), rounds=3)
    times = {layer.name: layer.ms for layer in found.layers}
    assert times["2"] > times["5"] > 0
    assert times[""] >= sum(v for name, v in times.items() if name)
    data = found.to_json()
    assert data["layers"][0]["ms"] == times[""]
    assert " ms " in str(found)


@pytest.mark.parametrize("content", ["[1, 2]", '{"x": "fast"}', '{"x": NaN}', "3", "null"])
def test_a_file_that_is_no_table_is_measured_anew(tmp_path, monkeypatch, content):
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    Table.here().save()
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert Table.here().times == {}


def test_where_times_cannot_be_kept_that_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way of a folder")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be kept"):
        Table.here().save()
    monkeypatch.delenv("LUTHIER_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert Table.here().path is None


def test_a_last_step_beside_what_was_timed_comes_near(monkeypatch):
    """Times of our own: one width costs less than is predicted, and shares in between need an uneven cut."""
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    analysis = analyse(net, torch.zeros(1, 4))
    scores = {g.name: torch.arange(g.size, 0, -1.0) for g in analysis.groups}

    def widths(keep):
        return [len(keep.get(name, range(32))) for name in ("0", "2")]

    def predicted(keep):
        return sum(widths(keep))

    def true(keep):
        return widths(keep)[0] + 0.7 * widths(keep)[1]

    timed = []
    monkeypatch.setattr(latency._Timer, "__init__", lambda self, *_: None)
    monkeypatch.setattr(latency._Timer, "ratio", lambda self, keep: timed.append(keep) or true(keep) / true({}))

    def keep_at(aim):  # equal widths, as "uniform" has them, in steps of 4
        width = min(32, max(4, 4 * int(aim * 8)))
        return {name: list(range(width)) for name in ("0", "2")} if width < 32 else {}

    def beside(keep):
        return _neighbours(analysis, scores, Rounding(2), keep)

    share = 0.685
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = latency.to_latency(analysis, share, keep_at, lambda keep: keep, latency.Nearby(predicted, beside))
    assert share * 0.98 <= true(found) / true({}) <= share
    assert len(timed) <= latency.ROUNDS + latency.LAST
    with pytest.warns(UserWarning, match="nearest latency"):
        latency.to_latency(analysis, share, keep_at, lambda keep: keep)


def test_neighbours_differ_in_one_width_and_keep_the_best():
    net = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    analysis = analyse(net, torch.zeros(1, 4))
    scores = {"0": torch.arange(12.0), "2": torch.arange(8.0)}
    found = list(_neighbours(analysis, scores, Rounding(4), {"0": [8, 9, 10, 11]}))
    assert found == [
        {"0": [4, 5, 6, 7, 8, 9, 10, 11]},
        {},
        {"0": [8, 9, 10, 11], "2": [4, 5, 6, 7]},
    ]
