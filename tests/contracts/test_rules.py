"""Every family of operations: a small network that uses it is cut wherever it can be, and proven."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from luthier.errors import CheckError
from luthier.model import analyse, axes
from luthier.model.rules import all_rules, names
from luthier.surgery import cut


class Case(nn.Module):
    """Linear in, an operation, linear out; ``run`` gets the module with its layers."""

    def __init__(self, run, **layers):
        super().__init__()
        for name, layer in layers.items():
            if isinstance(layer, nn.Parameter):
                self.register_parameter(name, layer)
            else:
                setattr(self, name, layer)
        self.run = run

    def forward(self, *x):
        return self.run(self, *x)


def par(*shape):
    return nn.Parameter(torch.randn(*shape))


def lin(i, o):
    return nn.Linear(i, o)


def heads(x, h):
    return x.unflatten(-1, (h, -1)).transpose(1, 2)


def merged(x):
    return x.transpose(1, 2).flatten(2)


def plain_attention(m, x):
    q, k, v = heads(m.q(x), 4), heads(m.k(x), 4), heads(m.v(x), 4)
    return m.o(merged(((q @ k.mT) / 3 + m.bias).softmax(-1) @ v))


def grouped_queries(m, x):
    q, k, v = heads(m.q(x), 4), heads(m.k(x), 2), heads(m.v(x), 2)
    return m.o(merged(F.scaled_dot_product_attention(q, k, v, enable_gqa=True)))


def repeated_keys(m, x):
    q, k, v = heads(m.q(x), 4), heads(m.k(x), 2), heads(m.v(x), 2)
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    return m.o(merged(F.scaled_dot_product_attention(q, k, v)))


def rotary(m, x):
    q, k, v = heads(m.q(x), 4), heads(m.k(x), 4), heads(m.v(x), 4)
    angle = torch.arange(x.shape[1])[:, None] * m.freq
    cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))

    def turned(t):
        a, b = t.chunk(2, -1)
        return t * cos + torch.cat([-b, a], -1) * sin

    return m.o(merged(F.scaled_dot_product_attention(turned(q), turned(k), v)))


def relative(m, x):
    where = torch.arange(5)[:, None] - torch.arange(5)[None, :] + 4
    bias = m.table[where.reshape(-1)].view(5, 5, 4).permute(2, 0, 1)
    q, k, v = heads(m.q(x), 4), heads(m.k(x), 4), heads(m.v(x), 4)
    return m.o(merged(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))


def rms(m, x):
    y = m.a(x)
    return m.b(m.w * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)))


def cells(m, x):
    h = None
    for t in range(x.shape[1]):
        h = m.c(x[:, t], h)
    return m.o(h[0] if isinstance(h, tuple) else h)


def shuffled(m, x):
    y = m.a(x)
    n, c, h, w = y.shape
    y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
    return m.b(y)


def made_kernels(m, x):
    x = m.a(x)
    share = x.mean((2, 3)).sum(1)[:, None]
    kernels = torch.einsum("bk,koihw->boihw", torch.cat([share, 1 - share], 1), m.w).flatten(0, 1)
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, padding=1, groups=len(x))
    return m.o(y.view(len(x), -1, *x.shape[2:]))


QKV = {"q": lin(6, 16), "k": lin(6, 16), "v": lin(6, 16), "o": lin(16, 3)}
GQA = {"q": lin(6, 16), "k": lin(6, 8), "v": lin(6, 8), "o": lin(16, 3)}
SEQ, IMG = (2, 5, 6), (2, 3, 6, 6)
conv, norm2 = nn.Conv2d, nn.BatchNorm2d

CASES = {
    "attention with a bias per head": (Case(plain_attention, bias=par(4, 1, 1), **QKV), [SEQ], 1),
    "attention, grouped queries": (Case(grouped_queries, **GQA), [SEQ], 1),
    "attention, repeated keys": (Case(repeated_keys, **GQA), [SEQ], 1),
    "attention, rotary": (Case(rotary, freq=nn.Buffer(torch.rand(2)), **QKV), [SEQ], 1),
    "attention, relative table": (Case(relative, table=par(9, 4), **QKV), [SEQ], 1),
    "attention, module": (
        Case(lambda m, x: m.o(m.m(m.i(x), m.i(x), m.i(x))[0]), i=lin(6, 8), m=nn.MultiheadAttention(8, 4), o=lin(8, 3)),
        [SEQ],
        2,
    ),
    "lstm": (Case(lambda m, x: m.o(m.r(x)[0]), r=nn.LSTM(6, 5, 2, bidirectional=True), o=lin(10, 3)), [SEQ], 1),
    "lstm, projected": (Case(lambda m, x: m.o(m.r(x)[0]), r=nn.LSTM(6, 9, proj_size=4), o=lin(4, 2)), [SEQ], 2),
    "gru": (Case(lambda m, x: m.o(m.r(x)[0]), r=nn.GRU(6, 5, batch_first=True), o=lin(5, 3)), [SEQ], 1),
    "rnn": (Case(lambda m, x: m.o(m.r(x)[0]), r=nn.RNN(6, 5, nonlinearity="relu"), o=lin(5, 3)), [SEQ], 1),
    "lstm cell": (Case(cells, c=nn.LSTMCell(6, 5), o=lin(5, 3)), [SEQ], 1),
    "gru cell": (Case(cells, c=nn.GRUCell(6, 5), o=lin(5, 3)), [SEQ], 1),
    "rms norm by hand": (Case(rms, a=lin(6, 8), w=par(8), b=lin(8, 3)), [SEQ], 1),
    "rms norm": (nn.Sequential(lin(6, 8), nn.RMSNorm(8), lin(8, 3)), [SEQ], 1),
    "layer norm": (nn.Sequential(lin(6, 8), nn.LayerNorm(8), lin(8, 3)), [SEQ], 1),
    "group norm": (nn.Sequential(conv(3, 8, 1), nn.GroupNorm(2, 8), conv(8, 2, 1)), [IMG], 1),
    "instance norm": (nn.Sequential(conv(3, 8, 1), nn.InstanceNorm2d(8), conv(8, 2, 1)), [IMG], 1),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 8, 2, 2), norm2(8), nn.ConvTranspose2d(8, 2, 2)), [IMG], 1),
    "transposed, grouped": (
        nn.Sequential(conv(3, 8, 1), nn.ConvTranspose2d(8, 12, 2, groups=4), nn.ReLU(), conv(12, 2, 1)),
        [IMG],
        1,
    ),
    "grouped": (nn.Sequential(conv(3, 8, 1), conv(8, 12, 1, groups=2), conv(12, 2, 1)), [IMG], 2),
    "depthwise, multiplied": (nn.Sequential(conv(3, 4, 1), conv(4, 8, 3, groups=4), conv(8, 2, 1)), [IMG], 1),
    "channel shuffle": (Case(shuffled, a=conv(3, 8, 1), b=conv(8, 2, 1)), [IMG], 1),
    "pixel shuffle": (nn.Sequential(conv(3, 16, 1), nn.PixelShuffle(2), conv(4, 2, 1)), [IMG], 1),
    "pixel unshuffle": (nn.Sequential(conv(3, 4, 1), nn.PixelUnshuffle(2), conv(16, 2, 1)), [IMG], 1),
    "unfold": (
        Case(lambda m, x: m.b(F.unfold(m.a(x), 2).transpose(1, 2)), a=conv(3, 4, 1), b=lin(16, 2)),
        [IMG],
        1,
    ),
    "prelu": (nn.Sequential(conv(3, 8, 1), nn.PReLU(8), conv(8, 2, 1)), [IMG], 1),
    "glu": (nn.Sequential(lin(6, 16), nn.GLU(), lin(8, 2)), [SEQ], 1),
    "embedding": (Case(lambda m, x: m.o(m.e(x.long().abs() % 7)), e=nn.Embedding(7, 8), o=lin(8, 2)), [(2, 5)], 1),
    "einsum": (
        Case(lambda m, x: m.o(torch.einsum("bti,ij->btj", m.i(x), m.w)), i=lin(6, 8), w=par(8, 7), o=lin(7, 2)),
        [SEQ],
        2,
    ),
    "bilinear": (
        Case(lambda m, x: m.o(m.w(m.a(x), m.b(x))), a=lin(6, 8), b=lin(6, 5), w=nn.Bilinear(8, 5, 7), o=lin(7, 2)),
        [SEQ],
        3,
    ),
    "mixing positions by a convolution": (
        Case(lambda m, x: m.o(m.t(m.a(x))), a=lin(6, 8), t=nn.Conv1d(5, 9, 1), o=lin(8, 2)),
        [SEQ],
        1,
    ),
    "kernels made for each example": (
        Case(made_kernels, a=conv(3, 4, 1), w=par(2, 8, 4, 3, 3), o=conv(8, 2, 1)),
        [IMG],
        2,
    ),
    "encoder and decoder with a causal mask": (
        Case(
            lambda m, x: m.o(m.t(m.a(x), m.a(x), tgt_mask=nn.Transformer.generate_square_subsequent_mask(5))),
            a=lin(6, 8),
            t=nn.Transformer(8, 2, 1, 1, 12, batch_first=True),
            o=lin(8, 2),
        ),
        [SEQ],
        4,
    ),
    "padded channels": (
        Case(
            lambda m, x: m.o(F.pad(m.a(x), (0, 0, 0, 0, 1, 2)) + m.b(x)),
            a=conv(3, 5, 1),
            b=conv(3, 8, 1),
            o=conv(8, 2, 1),
        ),
        [IMG],
        1,
    ),
    "split sizes": (
        Case(lambda m, x: m.o(torch.cat(m.a(x).split([2, 6], -1)[::-1], -1)), a=lin(6, 8), o=lin(8, 2)),
        [SEQ],
        2,
    ),
    "slices": (Case(lambda m, x: m.o(m.a(x)[..., 2:] * m.b(x)), a=lin(6, 8), b=lin(6, 6), o=lin(6, 2)), [SEQ], 2),
    "stack": (
        Case(lambda m, x: m.o(torch.stack([m.a(x), m.b(x)]).sum(0)), a=lin(6, 8), b=lin(6, 8), o=lin(8, 2)),
        [SEQ],
        1,
    ),
    "patches, strided": (
        Case(
            lambda m, x: m.o(torch.cat([m.a(x)[:, 0::2, 0::2], m.a(x)[:, 1::2, 1::2]], -1)), a=lin(6, 8), o=lin(16, 2)
        ),
        [(2, 4, 4, 6)],
        1,
    ),
    "rolled windows": (
        Case(lambda m, x: m.o(torch.roll(m.a(x), (1, 1), (1, 2)).flatten(1, 2)), a=lin(6, 8), o=lin(8, 2)),
        [(2, 4, 4, 6)],
        1,
    ),
    "mixer": (
        Case(lambda m, x: m.o(m.t(m.a(x).transpose(1, 2)).transpose(1, 2)), a=lin(6, 8), t=lin(5, 9), o=lin(8, 2)),
        [SEQ],
        1,
    ),
    "class token": (
        Case(
            lambda m, x: m.o(torch.cat([m.c.expand(len(x), -1, -1), m.a(x)], 1)[:, 0]),
            c=par(1, 1, 8),
            a=lin(6, 8),
            o=lin(8, 2),
        ),
        [SEQ],
        1,
    ),
    "unit lengths": (
        Case(lambda m, x: m.o(F.normalize(m.a(x), dim=-1)), a=lin(6, 8), o=lin(8, 2)),
        [SEQ],
        1,
    ),
    "weight norm": (
        nn.Sequential(lin(6, 8), nn.ReLU(), nn.utils.parametrizations.weight_norm(lin(8, 2))),
        [SEQ],
        1,
    ),
    "resized": (
        Case(
            lambda m, x: m.o(F.interpolate(m.a(x), scale_factor=2.0, mode="bilinear")),
            a=conv(3, 8, 1),
            o=conv(8, 2, 1),
        ),
        [IMG],
        1,
    ),
    "unpooled": (
        Case(
            lambda m, x: m.o(F.max_unpool2d(*F.max_pool2d(m.a(x), 2, return_indices=True), 2)),
            a=conv(3, 8, 1),
            o=conv(8, 2, 1),
        ),
        [IMG],
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_cut_and_proven(name):
    torch.manual_seed(0)
    model, shapes, least = CASES[name]
    inputs = tuple(torch.randn(s) for s in shapes)
    analysis = analyse(model, inputs)
    assert len(analysis.groups) >= least, analysis.frozen
    every = {g.name: list(range(0, g.size, 2)) for g in analysis.all_groups}
    for keep in (every, {g.name: [g.size - 1] for g in analysis.groups[:1]}):
        pruned = cut(model, analysis, keep)
        assert all(p.passed for p in pruned.check)
        assert pruned.plan.macs[1] < pruned.plan.macs[0]


UNSAFE = {
    "softmax over it": lambda m, x: m.b(m.a(x).softmax(-1)),
    "a mean over it": lambda m, x: m.b(m.a(x)) + m.a(x).mean(-1, keepdim=True),
    "the maximum over it": lambda m, x: m.b(m.a(x) * m.a(x).amax(-1, keepdim=True)),
    "sorted": lambda m, x: m.b(m.a(x).sort(-1).values),
    "one of it picked": lambda m, x: m.b(m.a(x)) + m.a(x)[..., :1] + m.a(x)[..., 3, None],
    "reversed": lambda m, x: m.b(m.a(x).flip(-1)),
    "a running sum": lambda m, x: m.b(m.a(x).cumsum(-1)),
    "responses relative to their mean": lambda m, x: m.b(m.a(x) / (m.a(x).abs().mean(-1, keepdim=True) + 1)),
    "normalised over several dimensions": lambda m, x: m.b(F.layer_norm(m.a(x), (2, 8), torch.ones(2, 8))),
    "normalised without weights": lambda m, x: m.b(F.layer_norm(m.a(x), (8,))),
    "a product of what is not zero": lambda m, x: m.b(m.a(x)) + (m.a(x).sigmoid() @ m.a(x).cos().mT)[..., :2],
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_would_change_the_function_is_held(name):
    model = Case(UNSAFE[name], a=lin(6, 8), b=lin(8, 2))
    analysis = analyse(model, torch.randn(2, 2, 6))
    assert not any(axes.is_free(analysis.state["a.weight"][0].expr) for _ in [0])
    assert any(why.where.startswith(__file__) or why.op for _, _, why in analysis.frozen)


def test_widths_that_an_operation_takes_for_something_else_are_refused():
    model = Case(lambda m, x: m.o(m.r(x)[0]), r=nn.LSTM(6, 9, proj_size=4), o=lin(4, 2))
    analysis = analyse(model, torch.randn(SEQ))
    with pytest.raises(CheckError, match="does not run"):
        cut(model, analysis, {g.name: [0, 1] for g in analysis.groups})


def test_every_family_of_rules_lists_operations_that_exist():
    assert {"linear", "conv", "norm", "attention", "recurrent", "shape", "join"} <= set(names())
    rules = all_rules()
    known = [n for n in rules if hasattr(torch.ops.aten, n) or n in ("getitem",)]
    assert len(known) > 0.95 * len(rules), sorted(set(rules) - set(known))
    assert all(rule.infer.__doc__ for rule in rules.values())


def test_a_norm_without_tensors_knows_its_new_width():
    model = nn.Sequential(conv(3, 8, 1), nn.InstanceNorm2d(8), conv(8, 2, 1))
    analysis = analyse(model, torch.randn(IMG))
    pruned = cut(model, analysis, {"0": [0, 5]}, target="module")
    assert pruned.model[1].num_features == 2
