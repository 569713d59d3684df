"""A budget of bytes is one of files: what they weigh is what was asked for."""

import itertools

import pytest
import torch
from torch import nn

import luthier as lt
from luthier.export.bundle import _packed, _unpacked, load_plan
from luthier.measure.onnx_file import write_onnx
from luthier.model import analyse
from luthier.model.cost import size_in_bytes


def separable(a, b):
    depthwise = nn.Conv2d(a, a, 3, groups=a, padding=1, bias=False), nn.BatchNorm2d(a), nn.ReLU()
    return *depthwise, nn.Conv2d(a, b, 1), nn.BatchNorm2d(b), nn.ReLU()


def networks():
    layers = itertools.chain.from_iterable(separable(*w) for w in ((3, 32), (32, 64), (64, 128)))
    yield nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)), torch.randn(2, 3, 8, 8)
    yield (
        nn.Sequential(nn.Linear(32, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 4)).double(),
        (torch.randn(2, 32, dtype=torch.float64)),
    )


@pytest.mark.parametrize(("net", "x"), networks(), ids=["batch norms", "doubles"])
def test_the_onnx_file_weighs_what_the_budget_says(net, x, tmp_path):
    torch.manual_seed(0)
    pruned = lt.prune_neurons(net, x, budget={"bytes": 0.4})
    for name, model in (("dense", net), ("cut", pruned.model)):
        write_onnx(model.eval(), tmp_path / name, x)
    share = (tmp_path / "cut").stat().st_size / (tmp_path / "dense").stat().st_size
    assert 0.4 * 0.96 <= share <= 0.4


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_a_cut_that_runs_as_a_graph_is_within_its_bytes_too(share, tmp_path):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    net, x = nn.Sequential(nn.Embedding(100, 64), layer, nn.Linear(64, 5)).eval(), torch.randint(100, (2, 9))
    pruned = lt.prune_neurons(net, x, budget={"bytes": share})
    assert pruned.target == "graph"
    for name, model in (("dense", net), ("cut", pruned.model)):
        write_onnx(model.eval(), tmp_path / name, x)
    assert 0.98 * share <= (tmp_path / "cut").stat().st_size / (tmp_path / "dense").stat().st_size <= share


def test_the_bundle_of_a_network_weighs_what_the_budget_says(tmp_path):
    net = nn.Sequential(nn.Linear(64, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 10))
    pruned = lt.prune_neurons(net, torch.randn(2, 64), budget={"bytes": 0.4})
    dense, cut = lt.save(net, tmp_path / "a", inputs=torch.randn(2, 64)), lt.save(pruned, tmp_path / "b")
    assert cut.stat().st_size / dense.stat().st_size == pytest.approx(0.4, rel=0.02)
    assert load_plan(cut).to_json() == pruned.plan.to_json()


def test_bytes_are_counted_by_type_and_with_buffers():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).half()
    analysis = analyse(net, torch.zeros(2, 4, dtype=torch.float16))
    left = 2 * (4 * 3 + 3 + 4 * 3 + 3 * 2 + 2) + 8  # the batch counter is an integer of 8 bytes
    assert size_in_bytes(analysis, {"0": [0, 1, 5]}) == left


@pytest.mark.parametrize("value", [list(range(3, 90, 7)), [1, 2], [9, *range(9)], {"a": [None, list(range(20))]}, [[]]])
def test_packed_indices_come_back(value):
    assert _unpacked(_packed(value)) == value
    assert len(str(_packed(list(range(0, 4000, 2))))) < 800


def test_files_hold_nothing_of_the_machine_that_wrote_them(tmp_path):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    lt.export_onnx(net, tmp_path / "a.onnx", torch.zeros(2, 4))
    assert b".py" not in (tmp_path / "a.onnx").read_bytes()
