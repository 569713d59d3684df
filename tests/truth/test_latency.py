"""Latency: the interval of a median against simulation, and order of networks of known size."""

import numpy as np
import torch
from torch import nn

from luthier.measure.latency import measure, median_interval
from luthier.measure.onnx_file import write_onnx


def test_the_interval_covers_the_median_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        low, high = median_interval(generator.exponential(size=25))
        hits += low <= np.log(2) <= high
    assert 0.95 <= hits / 2000 <= 0.985


def test_a_network_ten_times_as_large_is_slower(tmp_path):
    x = torch.randn(16, 256)
    for name, width in (("small", 64), ("large", 2048)):
        write_onnx(nn.Sequential(nn.Linear(256, width), nn.ReLU(), nn.Linear(width, 8)), tmp_path / name, (x,))
    found = measure({"large": tmp_path / "large", "small": tmp_path / "small"}, (x,), rounds=9)
    assert found["small"].ratio < 0.5
    assert found["large"].ratio == 1.0
    assert found["small"].low <= found["small"].ms <= found["small"].high
