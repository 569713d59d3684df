"""ONNX export: what is proven, and what is refused."""

import onnxruntime
import pytest
import torch
from torch import nn

import luthier as lt
from luthier.errors import CheckError, TraceError
from luthier.export import onnx


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return x + torch.relu(self.norm(self.conv(x)))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_the_file_takes_any_batch_size(tmp_path):
    check = lt.export_onnx(Residual(), tmp_path / "m.onnx", torch.randn(4, 3, 8, 8))
    session = onnxruntime.InferenceSession(str(check.path))
    for n in (1, 4, 9):
        assert session.run(None, {session.get_inputs()[0].name: torch.randn(n, 3, 8, 8).numpy()})[0].shape[0] == n
    assert len(set(check.batch_sizes)) >= 4
    assert check.error < 1e-5
    assert check.bytes == check.path.stat().st_size


def test_a_model_that_cannot_be_exported_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(TraceError, match="Branching"):
        lt.export_onnx(Branching(), tmp_path / "m.onnx", torch.randn(2, 3))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_something_else_is_refused_and_removed(tmp_path, monkeypatch):
    def other(module, path, example):
        wrong = Residual()
        onnx_write(wrong.eval(), path, example)

    onnx_write = onnx.write_onnx
    monkeypatch.setattr(onnx, "write_onnx", other)
    with pytest.raises(CheckError, match="does not compute"):
        lt.export_onnx(Residual(), tmp_path / "m.onnx", torch.randn(2, 3, 8, 8))
    assert list(tmp_path.iterdir()) == []


def test_the_training_mode_survives(tmp_path):
    model = Residual().train()
    lt.export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 3, 8, 8))
    assert model.training
