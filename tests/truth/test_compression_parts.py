"""The small parts of a compression run: budgets, stages, the choice of the best, settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import luthier as lt
from luthier.allocate._families import MOST_FAMILIES, families
from luthier.compression.budget import Budget
from luthier.compression.joint import CostTable
from luthier.compression.line import Line, Recovery
from luthier.compression.result import Point
from luthier.compression.settings import Settings, fingerprint
from luthier.compression.verdict import choose, note
from luthier.distillation.lesson import Lesson
from luthier.errors import UsageError
from luthier.measure.table import Table
from luthier.metrics import metric
from luthier.recipe import Recipe
from luthier.surgery import Proof
from luthier.train import recalibrate

ACCURACY = metric("accuracy")


def _task() -> lt.Task:
    x, y = torch.zeros(4, 2), torch.zeros(4).long()
    return lt.Task(train=(x, y), valid=(x, y))


def _point(trial, accuracy, latency, macs=0.4) -> Point:
    ratio = {"latency": latency, "macs": macs, "latency_low": latency, "latency_high": latency}
    return Point("pruned", trial, Path("p"), {}, {"accuracy": accuracy}, {}, {"bytes": 10.0}, ratio)


def test_a_budget_is_read():
    budget = Budget.of({"latency": 0.5, "macs": 0.4, "accuracy": -0.01}, ACCURACY)
    assert (budget.costs, budget.loss) == ({"latency": 0.5, "macs": 0.4}, 0.01)
    assert budget.to_json() == {"latency": 0.5, "macs": 0.4, "accuracy": -0.01}
    assert budget.meets({"latency": 0.5, "macs": 0.1})
    assert not budget.meets({"latency": 0.51, "macs": 0.1})


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ({"latncy": 0.5}, "latency"),
        ({"latency": 0.0}, "latency"),
        ({"latency": 1.5}, "latency"),
        ({"latency": float("nan")}, "latency"),
        ({"latency": "half"}, "latency"),
        ({"latency": True}, "latency"),
        ({"accuracy": 0.01}, "accuracy"),
        ({"f1": -0.1}, "f1"),
    ],
)
def test_a_bad_budget_is_named(wanted, word):
    with pytest.raises(UsageError, match=word):
        Budget.of(wanted, ACCURACY)


def test_the_best_is_the_most_accurate_within_the_budget_then_the_fastest():
    dense = _point(None, 0.99, 1.0)
    points = [_point(1, 0.99, 0.6), _point(2, 0.98, 0.4), _point(3, 0.98, 0.3), _point(4, 0.9, 0.1)]
    best = choose(points, dense, Budget({"latency": 0.5}), _task())
    assert best is not None
    assert best.trial == 3
    assert choose(points, dense, Budget({"latency": 0.5}, loss=0.001), _task()) is None
    assert "keep the dense network" in note(None, dense, Budget({"latency": 0.5}), _task())


def test_a_metric_to_minimise_is_minimised():
    task = lt.Task(
        train=(torch.zeros(2, 1), torch.zeros(2)), valid=(torch.zeros(2, 1), torch.zeros(2)), metrics=["mse"]
    )
    points = [
        Point("pruned", i, Path("p"), {}, {"mse": v}, {}, {}, {"latency": 0.3}) for i, v in enumerate((0.3, 0.1, 0.2))
    ]
    best = choose(points, points[0], Budget({"latency": 0.5}), task)
    assert best is not None
    assert best.trial == 1


@given(st.lists(st.from_regex(r"[a-c](\.[0-9]){0,2}", fullmatch=True), unique=True))
def test_stages_hold_every_axis_once_and_are_few(names):
    found = families(names)
    assert sorted(axis for axes in found.values() for axis in axes) == sorted(names)
    assert len(found) <= MOST_FAMILIES


def test_stages_are_told_apart_where_names_first_differ():
    assert list(families(["net.a.conv1", "net.a.conv2", "net.b.conv1"])) == ["net.a", "net.b"]


def test_the_cost_table_interpolates():
    assert CostTable((0.1, 0.5, 1.0), (0.2, 0.6, 1.0)).predict(0.3) == pytest.approx(0.4)


def test_a_point_survives_json(tmp_path):
    point = Point(
        "pruned", 3, tmp_path / "point-03", {"lr": 0.1}, {"accuracy": 1.0}, {}, {}, {}, (), (Proof("a", 0, 1, "how"),)
    )
    assert Point.from_json(point.to_json(), tmp_path) == point


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"batchsize": 3}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "auto"}, "batch_size"),
        ({"multiple": "some"}, "multiple"),
        ({"max_ratio": 1.0}, "max_ratio"),
        ({"epochs": (5, 2)}, "epochs"),
        ({"recipe": {"epoch": 3}}, "epochs"),
    ],
)
def test_bad_settings_are_named(settings, word):
    with pytest.raises(UsageError, match=word):
        Settings.of(settings)


def test_runs_differ_by_what_changes_their_outcome():
    def of(width=4, budget=0.5, **settings):
        torch.manual_seed(0)
        return fingerprint(nn.Linear(2, width), _task(), {"latency": budget}, Settings(**settings))

    def of_metric(function):
        x, y = torch.zeros(4, 2), torch.zeros(4).long()
        task = lt.Task(train=(x, y), valid=(x, y), metrics=[function])
        return fingerprint(nn.Linear(2, 2), task, {}, Settings(recipe={"epochs": 1}))["metrics"]

    assert of() == of()
    assert of() == of(progress=False, command="again")
    tables = [of_metric(lambda o, t: sum(x for x in [1, 2])), of_metric(lambda o, t: sum(x for x in [1, 3]))]
    assert tables[0] != tables[1]
    assert "0x" not in str(tables)
    for other in (of(width=5), of(budget=0.4), of(seed=1), of(batch_size=8), of(recipe={"epochs": 2})):
        assert other != of()


class _Half(nn.Module):
    """A loss of several targets."""

    def forward(self, outputs, target):
        return nn.functional.cross_entropy(outputs, target[0]) * target[1].mean()


def _agree(outputs, target):
    return (outputs.argmax(1) == target[0]).float().mean()


def _weighted(shuffled: bool) -> lt.Task:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, x[:, :2].argmax(1), torch.ones(64))
    valid = DataLoader(data, batch_size=4, shuffle=shuffled)
    return lt.Task(train=data.tensors, valid=valid, targets=2, loss=_Half(), metrics=[_agree], batch_size=16)


def _small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


def test_a_line_takes_several_targets():
    line = Line(_small(), _weighted(shuffled=False), multiple=1)
    assert line.taught.shape == (64, 2)
    pruned = line.cut(line.keep(dict.fromkeys(line.families, 0.5), "magnitude"))
    curve = line.recover(pruned.model, Recovery(Recipe(epochs=1), kl=0.5))
    assert curve[0]["loss"] > 0


def test_a_line_lets_its_teacher_fade(monkeypatch):
    made = []
    monkeypatch.setattr("luthier.compression.line.Lesson", lambda *args: made.append(Lesson(*args)) or made[-1])
    line = Line(_small(), _weighted(shuffled=False), multiple=1)
    line.recover(_small(), Recovery(Recipe(epochs=1), kl=0.8))
    (lesson,) = made
    for done, kl in ((0.0, 0.8), (0.5, 0.4), (1.0, 0.0)):
        lesson.done = done
        assert lesson.weight("kl") == pytest.approx(kl)
        assert lesson.weight("kl") + lesson.weight("task") == pytest.approx(1.0)


def test_a_line_keeps_widths_at_what_the_runtime_likes_and_keeps_what_it_measured(tmp_path, monkeypatch):
    times = []
    monkeypatch.setattr(
        "luthier.measure.table.Table.at",
        lambda path, at=Table.at: replace(at(path), measure=lambda s: times.append(s) or float(-(-s[2] // 8)) ** 2),
    )
    settings = Settings.of({"multiple": "auto"})
    lines = [
        Line(_small(), _weighted(False), multiple=settings.multiple, cache=tmp_path / "sensitivity.json")
        for _ in range(2)
    ]
    assert lines[0].multiple == 8
    measured = len(times)
    assert lines[1].multiple == 8
    assert len(times) == measured > 0


def test_params_are_parameters():
    assert Budget.of({"params": 0.5}, ACCURACY) == Budget.of({"parameters": 0.5}, ACCURACY)
    with pytest.raises(UsageError, match="twice"):
        Budget.of({"params": 0.5, "parameters": 0.4}, ACCURACY)


def test_every_process_makes_one_sensitivity_map(tmp_path):
    maps = []
    for seed in range(3):
        dense = _small()
        torch.manual_seed(seed)  # a process of its own has a random stream of its own
        line = Line(dense, _weighted(shuffled=True), multiple=1, cache=tmp_path / f"{seed}.json")
        maps.append(line.sensitivity)
        keys = {json.loads(p.read_text())["key"] for p in tmp_path.iterdir()}
    assert maps[0] == maps[1] == maps[2]
    assert len(keys) == 1


def test_maps_of_other_targets_are_other_maps(tmp_path):
    keys = set()
    for labels in (torch.zeros(8).long(), torch.ones(8).long()):
        held_out = [(torch.ones(8, 4), (labels, torch.ones(8)))]
        task = lt.Task(train=_weighted(False).train, valid=[(x, *t) for x, t in held_out], targets=2, loss=_Half(),
                       metrics=[_agree])  # fmt: skip
        path = tmp_path / f"{int(labels[0])}.json"
        assert Line(_small(), task, multiple=1, cache=path).sensitivity is not None
        keys.add(json.loads(path.read_text())["key"])
    assert len(keys) == 2


def test_a_network_that_is_only_timed_is_not_repaired():
    line = Line(_small(), _weighted(shuffled=False), multiple=1)
    keep = line.widths(dict.fromkeys(line.families, 0.5))
    weight = line.dense.get_parameter("3.weight")[:, keep["0"]]
    assert torch.equal(line.cut(keep, repaired=False).model.get_parameter("3.weight"), weight)
    assert not torch.equal(line.cut(keep).model.get_parameter("3.weight"), weight)


def test_a_model_with_more_than_tensors_has_a_fingerprint():
    class Stateful(nn.Linear):
        extra: object = None

        def get_extra_state(self):
            return self.extra

    def found(extra):
        model = Stateful(2, 2)
        with torch.no_grad():
            model.weight.zero_()
            model.bias.zero_()
        model.extra = extra
        return fingerprint(model, _task(), {"macs": 0.5}, Settings())

    assert found({"scale": 1}) == found({"scale": 1})
    assert found({"scale": 1}) != found({"scale": 2})


def test_what_is_cut_is_fitted_to_what_was_there():
    torch.manual_seed(0)
    x = torch.randn(256, 3)
    task = lt.Task(train=(x, x[:, 0].gt(0).long()), valid=(x, x[:, 0].gt(0).long()))
    dense = nn.Sequential(nn.Linear(3, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    recalibrate(dense, task)
    line = Line(dense, task, multiple=1)
    keep = line.keep(dict.fromkeys(line.families, 0.5), "l2")
    errors = {}
    for repaired in (False, True):
        model = line.cut(keep, repaired=repaired).model
        with torch.no_grad():
            errors[repaired] = float((model(x) - line.dense(x)).square().mean())
    assert errors[True] < 0.2 * errors[False]


def test_a_network_without_layers_to_fit_is_cut_all_the_same():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.scale, self.out = nn.Embedding(5, 8), nn.LayerNorm(8), nn.Parameter(torch.randn(4, 8))

        def forward(self, x):
            return self.scale(self.rows(x).mean(1)) @ self.out.T

    x = torch.randint(0, 5, (8, 3))
    line = Line(Table(), lt.Task(train=(x, x[:, 0] % 4), valid=(x, x[:, 0] % 4)), multiple=1)
    pruned = line.cut(line.keep(dict.fromkeys(line.families, 0.5), "l2"))
    assert pruned.model(x).shape == (8, 4)
    assert pruned.model.get_parameter("out").shape == (4, 4)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_a_stage_of_one_width_loses_its_ratio(ratio):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 3))
    line = Line(dense, lt.Task(train=(x, x[:, 0].gt(0).long()), valid=(x, x[:, 0].gt(0).long())), multiple=1)
    (kept,) = line.keep(dict.fromkeys(line.families, ratio), "l2").values()
    assert len(kept) == round(32 * (1 - ratio))
