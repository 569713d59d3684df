"""Random programs over series of features, cut at random: all that is free may go, exactly.

Unlike blocks with weights of their own, these are single operations in any order, upon features and positions alike.
"""

import copy
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from luthier.model import analyse
from luthier.surgery import cut

FUNCTIONS = (
    torch.sigmoid, torch.relu, torch.cos, torch.abs, torch.square, F.softplus, F.hardswish, F.gelu,
    lambda y: y.clamp(-0.5, 0.5), lambda y: y.clamp_min(0.3), lambda y: 1 - y, lambda y: F.hardtanh(y, 0.2, 1.0),
    lambda y: y / 3, lambda y: y.exp().clamp_max(5), lambda y: torch.where(y > 0, y, 0.5),
    lambda y: (y > 0).to(y.dtype),
)  # fmt: skip


class Program(nn.Module):
    """Operations drawn by a seed; what they need of weights is made in the first run."""

    def __init__(self, seed):
        super().__init__()
        self.seed, self.made, self.weights = seed, nn.ModuleList(), nn.ParameterList()
        self.building = True
        with torch.no_grad():
            self.forward(torch.randn(2, 5, 6))
        self.building = False

    def layer(self, kind, *sizes, **options):
        if self.building:
            self.made.append(kind(*sizes, **options))
        self.layers_used += 1
        return self.made[self.layers_used - 1]

    def weight(self, *shape):
        if self.building:
            self.weights.append(nn.Parameter(torch.randn(*shape)))
        self.weights_used += 1
        return self.weights[self.weights_used - 1]

    def linear(self, y, width, bias=True):
        return self.layer(nn.Linear, y.shape[-1], width, bias=bias)(y)

    def forward(self, x):
        draw = random.Random(self.seed)
        self.layers_used = self.weights_used = 0
        values = [self.linear(x, draw.choice([4, 6, 8]), draw.random() < 0.5)]
        for _ in range(draw.randint(3, 7)):
            kind, y, z = draw.choice(KINDS), draw.choice(values), draw.choice(values)
            found = draw.choice(kind)(self, y, z)
            if found.dim() == 3 and min(found.shape) > 1 and found.numel() < 4000:
                values.append(found)
        ends = (lambda y: self.linear(y, 2).sum(1), lambda y: y.sum((1, 2))[:, None].expand(-1, 2), self._mixed)
        return torch.stack([draw.choice(ends)(y) for y in values[-3:]], 1)

    def _mixed(self, y):
        return self.linear(y.flatten(1), 2)


def alike(p, y, z):
    """z in the shape of y."""
    z = z if z.shape[2] == y.shape[2] else p.linear(z, y.shape[2])
    return z if z.shape[1] == y.shape[1] else z.sum(1, keepdim=True).expand(-1, y.shape[1], -1)


def halves(p, y):
    return (y if y.shape[2] % 2 == 0 else p.linear(y, 4)).chunk(2, -1)


def heads(p, y):
    return p.linear(y, 8).unflatten(-1, (2, 4)).transpose(1, 2)


def attended(p, y, z):
    return F.scaled_dot_product_attention(heads(p, y), heads(p, z), heads(p, z))


def shifted(p, y, z):
    out = torch.zeros_like(y)
    out[..., 1:] = y[..., :-1]
    return out


def partly(p, y, z):
    y = y * 1
    y[..., :1].sigmoid_()
    return y


def seen(p, y, z):
    y = y * 1
    view = y.flatten(1)
    y.add_(1)
    return view.unflatten(1, y.shape[1:])


KINDS = (
    [lambda p, y, z, f=f: f(y) for f in FUNCTIONS],
    [lambda p, y, z: p.linear(y, 6), lambda p, y, z: p.linear(y, 4, False)],
    [lambda p, y, z: p.layer(nn.Conv1d, y.shape[1], 6, 1)(y)],
    [lambda p, y, z: p.layer(nn.Conv1d, y.shape[1], 4, 1, bias=False)(y)],
    [lambda p, y, z: y + alike(p, y, z), lambda p, y, z: y * alike(p, y, z), lambda p, y, z: y - alike(p, y, z)],
    [lambda p, y, z: torch.maximum(y, alike(p, y, z)), lambda p, y, z: y / (alike(p, y, z).square() + 1)],
    [lambda p, y, z: torch.cat([y, alike(p, y, z)], -1), lambda p, y, z: torch.cat([alike(p, y, z), y], 1)],
    [lambda p, y, z: y[..., 1:], lambda p, y, z: y[:, -3:], lambda p, y, z: y[..., ::2], lambda p, y, z: y[..., :-1]],
    [lambda p, y, z: torch.cat(y.chunk(3, -1)[::-1], -1), lambda p, y, z: torch.cat(y.split(2, 1)[::-1], 1)],
    [lambda p, y, z: F.glu(torch.cat(halves(p, y), -1)), lambda p, y, z: torch.mul(*halves(p, y))],
    [lambda p, y, z: y[..., 1:] * y[..., :-1], lambda p, y, z: y[..., :2] @ y[:, :2, :2]],
    [lambda p, y, z: y.roll(1, -1), lambda p, y, z: y.flip(1)],
    [lambda p, y, z: y.cumsum(1), lambda p, y, z: y.sort(1)[0]],
    [lambda p, y, z: y.softmax(-1), lambda p, y, z: y.softmax(1), lambda p, y, z: F.normalize(y, dim=-1)],
    [lambda p, y, z: F.pad(y, (1, 2)), lambda p, y, z: F.pad(y, (0, 0, 1, 1), value=0.5)],
    [lambda p, y, z: y.repeat(1, 1, 2), lambda p, y, z: y.repeat_interleave(2, -1), lambda p, y, z: y.tile((2, 1))],
    [lambda p, y, z: torch.stack(halves(p, y), 2).amax(2), lambda p, y, z: torch.stack(halves(p, y), -1).flatten(2)],
    [lambda p, y, z: attended(p, y, z).transpose(1, 2).flatten(2), lambda p, y, z: attended(p, y, z).sum(1)],
    [lambda p, y, z: y @ y.mT @ y, lambda p, y, z: (y @ p.weight(y.shape[2]))[..., None] * y],
    [lambda p, y, z: torch.einsum("...c,cd->...d", y, p.weight(y.shape[2], 4))],
    [lambda p, y, z: y * y.sum(-1, keepdim=True), lambda p, y, z: y + y.mean(1, keepdim=True)],
    [lambda p, y, z: y * y.amax(-1, keepdim=True), lambda p, y, z: y / (y.norm(dim=-1, keepdim=True) + 1)],
    [shifted, partly, seen],
    [lambda p, y, z: p.layer(nn.GRU, y.shape[2], 4, batch_first=True)(y)[0], lambda p, y, z: y.transpose(1, 2)],
    [lambda p, y, z: y.reshape(len(y), y.shape[2], -1), lambda p, y, z: y.unsqueeze(1).squeeze()],
    [lambda p, y, z: y + p.weight(y.shape[1], y.shape[2]), lambda p, y, z: y * torch.ones(y.shape[2], dtype=y.dtype)],
)  # fmt: skip
"""Operations on y, and on another value z where they take two; each kind is as likely as any other."""


def masked(net, plan):
    out = copy.deepcopy(net).double()
    for name, p in out.named_parameters():
        for dim, index in enumerate(plan.kept.get(name) or []):
            gone = [i for i in range(p.shape[dim]) if index is not None and i not in index]
            p.data.index_fill_(dim, torch.tensor(gone, dtype=torch.long), 0)
    return out


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6))
def test_a_random_cut_of_a_random_program_is_exact(seed):
    torch.manual_seed(seed)
    net, x = Program(seed).eval(), torch.randn(2, 5, 6)
    analysis, draw = analyse(net, x), random.Random(seed)
    for _ in range(2):
        keep = {g.name: sorted(draw.sample(range(g.size), draw.randint(1, g.size))) for g in analysis.all_groups}
        pruned = cut(net, analysis, keep, target="graph")
        with torch.no_grad():
            got = copy.deepcopy(pruned.model).double()(x.double())
            expected = masked(net, pruned.plan)(x.double())
        assert torch.allclose(got, expected, rtol=1e-8, atol=1e-8, equal_nan=True)
