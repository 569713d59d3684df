"""Lengths of sequences: free where the graph follows the network at others, held and said where it does not."""

import pytest
import torch
from torch import nn

import luthier as lt
from luthier.errors import UsageError
from luthier.model.trace import trace


class Encoder(nn.Module):
    """Tokens with learned positions, 40 of them."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(50, 16), nn.Embedding(40, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layer(self.tokens(x) + self.places.weight[: x.shape[1]]).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(6, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.gru(x)[0])


class Deciding(nn.Module):
    """What it does depends on the length: on whether it is even, or on its size."""

    def __init__(self, when):
        super().__init__()
        self.first, self.last, self.when = nn.Linear(6, 16), nn.Linear(16, 3), when

    def forward(self, x):
        y = self.first(x)
        return self.last(y * 3 if self.when(x.shape[1]) else y)


def bounds(net, x):
    torch.manual_seed(0)
    return {(n.leaf, n.dim): (n.least, n.most) for n in trace(net.eval(), x).program.lengths if not n.fixed}


def test_a_transformer_takes_as_many_positions_as_it_has():
    assert bounds(Encoder(), torch.zeros(2, 12, dtype=torch.long)) == {(0, 1): (1, 40)}


def test_a_recurrent_network_takes_any_length():
    assert bounds(Recurrent(), torch.randn(1, 12, 6)) == {(0, 1): (1, None)}


def test_what_code_decides_by_the_length_is_held():
    assert bounds(Deciding(lambda n: n % 2 == 0), torch.randn(2, 12, 6)) == {}
    assert bounds(Deciding(lambda n: n > 8), torch.randn(2, 12, 6)) == {(0, 1): (9, None)}


@pytest.mark.parametrize("target", ["graph", "auto"])
def test_a_cut_network_computes_the_same_at_other_lengths(target, tmp_path):
    torch.manual_seed(0)
    net = Encoder().eval()
    pruned = lt.prune_neurons(net, torch.randint(0, 50, (2, 12)), ratio=0.5, target=target)
    assert any("any length up to 40" in words for words in pruned.dynamic)
    assert any(proof.name == "cut == masked" and "two lengths" in proof.words for proof in pruned.check)
    lt.save(pruned, tmp_path / "net.luthier")
    stored, x = lt.load(tmp_path / "net.luthier"), torch.randint(0, 50, (3, 29))
    torch.testing.assert_close(stored(x), pruned.model.eval()(x))
    with pytest.raises(UsageError, match="up to 40"):
        stored(torch.zeros(1, 41, dtype=torch.long))


def test_other_lengths_than_the_one_that_is_held_are_refused(tmp_path):
    net = Deciding(lambda n: n % 2 == 0)
    stored = lt.load(lt.save(net, tmp_path / "net.luthier", inputs=torch.randn(2, 12, 6)))
    with pytest.raises(UsageError, match="only length 12"):
        stored(torch.randn(2, 13, 6))


@pytest.mark.slow
def test_an_onnx_file_takes_other_lengths_where_it_follows_the_network(tmp_path):
    from luthier.measure.runtime import Session

    net, x = Recurrent().eval(), torch.randn(2, 12, 6)
    check = lt.export_onnx(net, tmp_path / "net.onnx", x)
    assert [(n.leaf, n.dim, n.least, n.most) for n in check.lengths] == [(0, 1, 1, None)]
    other = torch.randn(3, 31, 6)
    torch.testing.assert_close(
        torch.from_numpy(Session(check.path)(other)[0]), net(other).detach(), rtol=1e-4, atol=1e-5
    )
    held = lt.export_onnx(Deciding(lambda n: n % 2 == 0), tmp_path / "held.onnx", x)
    assert held.lengths == ()
