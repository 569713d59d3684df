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


class Loose(nn.Module):
    """Takes any number of positional arguments, and keywords."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, *x, y=None):
        return {"sum": self.a(x[0]) + self.b(x[1] if y is None else y)}


def test_loose_arguments_have_a_free_batch_size_too(tmp_path):
    check = lt.export_onnx(Loose(), tmp_path / "m.onnx", (torch.randn(2, 3), torch.randn(2, 5)))
    assert check.free
    assert len(check.batch_sizes) == 4


def test_keyword_inputs_name_those_of_the_file(tmp_path):
    class Keyed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, x, y):
            return self.a(x) * self.b(y)

    check = lt.export_onnx(Keyed(), tmp_path / "m.onnx", {"x": torch.randn(2, 3), "y": torch.randn(2, 5)})
    session = onnxruntime.InferenceSession(str(check.path))
    assert [i.name for i in session.get_inputs()] == ["x", "y"]
    assert check.error < 1e-5


def test_a_batch_size_that_the_network_fixes_is_said(tmp_path):
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 4)

        def forward(self, x, links):
            return links @ self.a(x)

    check = lt.export_onnx(Graph(), tmp_path / "m.onnx", (torch.randn(6, 3), torch.rand(6, 6)))
    assert not check.free
    assert set(check.batch_sizes) == {6}
    assert "the only size" in str(check)


def test_a_network_that_single_precision_shakes_is_judged_by_its_own_noise(tmp_path):
    class Shaky(nn.Module):
        def forward(self, x):
            return (x * 1e5 + 1) - x * 1e5 + 0 * x.sum(1, keepdim=True)

    check = lt.export_onnx(Shaky(), tmp_path / "m.onnx", torch.randn(2, 3))
    assert check.limit >= onnx.TOLERANCE
    assert check.error <= check.limit <= onnx.MOST_NOISE


def test_a_transformer_that_looks_at_its_mask_is_exported(tmp_path):
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.t = nn.Transformer(8, 2, 1, 1, 12, batch_first=True)

        def forward(self, x):
            return self.t(x, x, tgt_mask=nn.Transformer.generate_square_subsequent_mask(5))

    model = Decoder()
    check = lt.export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 5, 8))
    assert check.error < 1e-5
    assert nn.modules.transformer._detect_is_causal_mask(None, None) is False
