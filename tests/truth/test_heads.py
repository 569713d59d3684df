"""Models that end in softmax or sigmoid are scored as those that give the logits behind them."""

import pytest
import torch
from torch import nn

import luthier as lt
from luthier.metrics import Metric


class Head(nn.Module):
    """A linear layer and a head."""

    def __init__(self, width, head):
        super().__init__()
        self.layer, self.head = nn.Linear(4, width), head

    def forward(self, x):
        return self.head(self.layer(x))


HEADS = {
    "softmax module": (3, nn.Softmax(1)),
    "softmax": (3, lambda x: torch.softmax(x, -1)),
    "copied": (3, lambda x: x.softmax(1).clone().double()),
    "sigmoid module": (1, nn.Sequential(nn.Identity(), nn.Sigmoid())),
    "sigmoid, a column less": (1, lambda x: torch.sigmoid(x).squeeze(1)),
    "several answers": (3, nn.Sigmoid()),
    "in place": (1, lambda x: x.sigmoid_()),
}


@pytest.mark.parametrize("name", HEADS)
def test_probabilities_are_scored_as_the_logits_behind_them(name, tmp_path):
    width, head = HEADS[name]
    model, x = Head(width, head), torch.randn(100, 4)
    y = torch.randint(2, (100, 3)) if name == "several answers" else torch.randint(max(width, 2), (100,))
    wanted = ["accuracy", "f1_macro", "auroc"] + ["perplexity"] * (name != "several answers")
    lt.export_onnx(model, tmp_path / "m.onnx", x[:4])
    expected = lt.evaluate(model.layer, (x, y), wanted)
    for way in (model, tmp_path / "m.onnx", torch.jit.trace(model, x[:4])):
        assert lt.evaluate(way, (x, y), wanted) == pytest.approx(expected, abs=1e-5)
    hidden = Head(width, lambda z: head(z) * 1.0)  # nothing says so of these
    hidden.layer = model.layer
    assert lt.evaluate(hidden, (x, y), wanted, outputs="probabilities") == pytest.approx(expected, abs=1e-5)
    assert lt.evaluate(hidden, (x, y), wanted) == lt.evaluate(model, (x, y), wanted, outputs="logits")


def test_numbers_and_functions_of_ones_own_see_probabilities_as_they_are():
    model, x = Head(1, nn.Sigmoid()), torch.randn(50, 4)
    y = model(x).detach()
    seen = lt.evaluate(model, (x, y), ["mse", Metric("most", lambda out, target: out.max())])
    assert seen == {"mse": pytest.approx(0, abs=1e-12), "most": pytest.approx(float(y.max()))}


def test_a_gate_in_the_middle_makes_no_probabilities():
    class Gated(nn.Module):
        def forward(self, x):
            return (x * x.sigmoid()) @ torch.eye(3)

    x, y = torch.randn(60, 3), torch.randint(2, (60, 3))
    silu = nn.functional.silu(x)
    assert lt.evaluate(Gated(), (x, y)) == pytest.approx({"accuracy": float(((silu > 0) == y).double().mean())})
