"""Every operation that has a rule is passed through by a network that is cut and compared with its masked original."""

import functools
import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from luthier.model.rules import names

aten = torch.ops.aten
SOMEWHERE_ELSE = ("elementwise",)
"""Families whose operations have a file of tests of their own."""


class Net(nn.Module):
    """Layers, parameters and buffers by name, and what is done with them."""

    def __init__(self, run, **parts):
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            elif isinstance(part, torch.Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.run = run

    def forward(self, *x):
        return self.run(self, *x)


def par(*shape):
    return nn.Parameter(torch.randn(*shape))


def lin(i, o, **options):
    return nn.Linear(i, o, **options)


def summed(functions, n, x):
    """Channels in and out are the same; each function's positions are summed, and once its channels."""
    positions = tuple(range(2, 2 + n))
    found = [f(x).sum(positions) for f in functions]
    return torch.stack(found).sum(0), torch.stack([v.sum(-1) for v in found], -1)


def resized(n):
    modes = ("nearest", "nearest-exact", *(("linear",), ("bilinear", "bicubic"), ("trilinear",))[n - 1])
    found = [functools.partial(F.interpolate, scale_factor=2.0, mode=mode) for mode in modes]
    smooth = [functools.partial(F.interpolate, size=(3, 3), mode=m, antialias=True) for m in ("bilinear", "bicubic")]
    return found + (smooth if n == 2 else [])


def pooled(n):
    windows = [functools.partial(getattr(F, f"{kind}_pool{n}d"), kernel_size=2) for kind in ("avg", "max")]
    adaptive = [functools.partial(getattr(F, f"adaptive_{kind}_pool{n}d"), output_size=2) for kind in ("avg", "max")]
    modes = ("reflect", "replicate", "circular", "constant")
    pads = [functools.partial(F.pad, pad=(1, 1) * n, mode=mode) for mode in modes]
    raw = [functools.partial(getattr(aten, f"{k}_pad{n}d"), padding=[1, 1] * n) for k in ("reflection", "replication")]
    return [*windows, *adaptive, *pads, *raw, lambda x: getattr(F, f"max_pool{n}d")(x, 2, return_indices=True)[0]]


def image(n, functions):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[n - 1]

    def run(m, x):
        y, sums = summed(functions, n, m.a(x))
        return torch.cat([m.o(y), sums], -1)

    return Net(run, a=conv(3, 6, 1), o=lin(6, 2)), (2, 3, *(4, 4, 4)[:n]), (6,)


def unpooled(m, x):
    flat = m.a(x)
    y = F.max_unpool2d(*F.max_pool2d(flat, 2, return_indices=True), 2)
    deep = F.max_unpool3d(*F.max_pool3d(m.c(flat[:, :, None].repeat(1, 1, 2, 1, 1)), 2, return_indices=True), 2)
    return m.o(y) + m.p(deep).sum(2)


def looked_up(m, x):
    y = m.a(x)
    grid = m.grid.expand(len(x), -1, -1, -1)
    deep = m.deep.expand(len(x), -1, -1, -1, -1)
    parts = [
        F.grid_sample(y, grid, align_corners=False),
        aten.grid_sampler_2d(y, grid, 0, 0, False),
        aten.grid_sampler_3d(y[:, :, None], deep, 0, 0, False)[:, :, 0],
        F.fractional_max_pool2d(y, 2, output_size=2, _random_samples=m.draws.expand(len(x), -1, -1)),
        F.fractional_max_pool3d(
            y[:, :, None].expand(-1, -1, 4, -1, -1), 2, output_size=(2, 2, 2), _random_samples=m.deeper
        )[:, :, 0],
    ]
    return m.o(sum(parts))


def taken(m, x):
    y = m.a(x)
    parts = [*y.split([2, 6], -1)], [*y.split(4, -1)], [*aten.unsafe_split(y, 4, -1)], [*aten.unsafe_chunk(y, 2, -1)]
    parts = [*parts, y.tensor_split((2, 5), -1), [y[..., :-3], y[..., -3:8]]]
    whole = sum(torch.cat([*p], -1) for p in parts) + aten.concat([y[..., :2], y[..., 2:]], -1)
    rows = torch.cat(y.chunk(3, 1)[::-1], 1).unbind(1)
    return m.o(whole + torch.stack(rows, 1) + y.select(1, -1)[:, None] + y[:, -2:-1])


def products(m, x):
    y, z = m.a(x), m.b(x)
    flat = y.flatten(0, 1)
    scores = torch.bmm(y, z.mT) + torch.baddbmm(m.bias, y, z.transpose(1, 2), beta=0.5)
    by_vector = (y @ m.v)[..., None] + aten.mv(flat, m.v).view(len(x), -1, 1)
    one = (
        torch.dot(m.v, m.v.abs())
        + aten.vdot(m.v, m.v)
        + F.linear(y, m.v)[..., None]
        + (y.mT @ m.u).sum(-1)[:, None, None]
    )
    return m.o(aten.mm(flat, m.w) + torch.addmm(m.c, flat, m.w)).view(len(x), 5, 2) + (
        scores.softmax(-1).sum(-1, keepdim=True) + by_vector + one.sum()
    )


def reduced(m, x):
    y = m.a(x)
    keep = {"dim": -1, "keepdim": True}
    exact = y.sum(**keep) + aten.nansum(y, [-1], True) + y.norm(**keep) + y.norm(3, **keep)
    exact = exact + aten.norm(y, 2.0, [-1], True) + aten.frobenius_norm(y, [-1], True) + y.norm(float("inf"), **keep)
    positions = y.mean(-2) + y.std(-2) + y.var(-2) + sum(torch.var_mean(y, 1)) + sum(torch.std_mean(y, 1))
    positions = positions + y.amax(1) + y.amin(1) + y.prod(1) + y.logsumexp(1) + y.max(1).values + y.min(1)[0]
    positions = positions + y.argmax(1) + y.argmin(1) + (y > 0).all(1) + (y > 1).any(1) + y.max(1).indices
    shares = aten._softmax(y, 1, False) + aten._log_softmax(y, 1, False) + y.log_softmax(1) + y.softmax(1)
    return m.o(positions)[:, None] + exact + m.o(shares + y.cumsum(1) + y.cumprod(-2))


def held(m, x):
    """Over channels all of these stay whole."""
    y = [layer(x) for layer in m.layers]
    keep = {"dim": -1, "keepdim": True}
    found = [y[0].mean(**keep), y[1].std(**keep), y[2].var(**keep), torch.var_mean(y[3], **keep)[0], y[4].amax(**keep)]
    found += [y[5].amin(**keep), y[6].prod(**keep), y[7].logsumexp(**keep), y[8].max(**keep)[0], y[9].argmax(**keep)]
    found += [y[10].norm(-1, **keep), y[11].norm(0, **keep), (y[12] > 0).all(**keep), y[13].softmax(-1)[..., :1]]
    found += [y[14].cumsum(-1)[..., :1], torch.var(y[15], -1, False, True), aten.var(y[16], True).expand(2, 5, 1)]
    found += [y[17].sort(-1)[0][..., :1], y[18].topk(2, -1)[0][..., :1], y[19].flip(-1)[..., :1]]
    return torch.cat(found, -1)


def shaped(m, x):
    y = m.a(x)
    n = len(x)
    y = aten._unsafe_view(y, [n, 5, 2, 4]).view(n, 5, 8).view_as(y).reshape_as(y).reshape(n, -1, 8)
    y = y.swapaxes(1, 2).swapdims(-1, -2).movedim(-1, 1).moveaxis(1, 2).mT.transpose(1, 2)
    y = y.permute(2, 0, 1).permute(1, 2, 0).unsqueeze(-1).squeeze(-1).squeeze(1).squeeze((0, 1))
    y = (y * 1).unsqueeze_(1).squeeze_(1).transpose_(1, 2).transpose_(-1, -2).flatten(1).unflatten(1, (5, -1))
    w = aten.matrix_H(aten.adjoint(m.w)) + aten.numpy_T(m.w.t())
    y = y * (w.t() @ m.v).sum(0) + m.c.expand(n, 5, -1) + m.c.expand_as(y)
    y = torch.cat([y.repeat(1, 2, 1).sum(1, keepdim=True), y.tile(2)[..., :8]], 1)
    y = y + (y > 9).view(torch.uint8)
    return m.o(y.repeat_interleave(2, -1, output_size=16)) + m.p(y.repeat(1, 1, 2))


def indexed(m, x):
    z = m.a(x)
    i = m.i[None, :, None].expand(len(x), -1, 8)
    y = z[:, m.i] + z.index_select(-2, m.i) + z.gather(1, i) + z.take_along_dim(m.i[None, :, None], 1)
    y = y.roll(1, 1) + y.flip(1) + y.flip((-2,)) + y.roll((1, 2), (1, -2)) + y.sort(1)[0] + y.topk(3, -2)[0]
    y = y + y.gather(1, y.argsort(1)) + z[torch.arange(len(x))[:, None], m.i]
    return m.o((m.w.tril() + m.w.triu(1)) @ y)


def moved(m, x):
    y = F.pixel_unshuffle(F.pixel_shuffle(m.a(x), 2), 2)
    y = F.channel_shuffle(y, 2) + aten.native_channel_shuffle(y, 2) + F.glu(m.g(x), 1)
    columns = F.unfold(y, 2, stride=2)
    y = F.fold(columns, (4, 4), 2, stride=2) + aten.constant_pad_nd(y, [1, -1], 0.0)
    windows = y.unfold(-1, 2, 2).unfold(2, 2, 2).flatten(2)
    return m.o(windows.transpose(1, 2))


def filled(m, x):
    y, n = m.a(x), len(x)
    zeros = y.new_zeros(n, 5, 8) + torch.zeros(n, 5, 8) + y.new_empty(n, 5, 8).fill_(0.0) + torch.empty(5, 8).fill_(1.0)
    ones = y.new_ones(8) + torch.ones(n, 1, 8) + y.new_full((5, 8), 2.0) + torch.full((8,), 0.5)
    z = torch.zeros(n, 7, 8, dtype=y.dtype)
    z[:, 1:6] = y
    z[:, 0] = m.c
    return m.o(y * ones + zeros) + m.o(z).sum(1, keepdim=True) + m.o(m.e((x[..., 0] > 0).long()))


def stepped(m, x):
    states = [None, None, None, None]
    for t in range(2):
        states = [cell(x[:, t], h) for cell, h in zip(m.cells, states, strict=True)]
    last = [h[0] if isinstance(h, tuple) else h for h in states]
    return sum(out(h) for out, h in zip(m.outs, last, strict=True))


def unrolled(m, x):
    return sum(out(layer(x)[0]) for layer, out in zip(m.layers, m.outs, strict=True))


def sampled(m, x):
    y = m.t(m.a(x))
    y = F.conv_transpose1d(F.conv1d(y, m.w, padding=1), m.w)
    return m.o(y)


@torch.library.custom_op("rule_cases::grouped_mm_fallback", mutates_args=())
def by_expert(x: torch.Tensor, w: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    parts = torch.tensor_split(x, ends.tolist()[:-1])
    return torch.cat([part @ matrix for part, matrix in zip(parts, w, strict=True)])


@by_expert.register_fake
def _(x, w, ends):
    return x.new_empty(x.shape[0], w.shape[-1])


def experts(m, x):
    rows = m.a(x).flatten(0, 1)
    mine = by_expert(rows, m.w, m.ends)
    aligned = torch._grouped_mm(m.b(x).flatten(0, 1).bfloat16(), m.v.bfloat16(), offs=m.ends)
    return m.o(mine) + aligned.to(x.dtype)[:, :2]


def attended(m, x):
    q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (m.q, m.k, m.v))
    y = F.scaled_dot_product_attention(q, k, v, m.mask, is_causal=False)
    return m.o(y.transpose(1, 2).flatten(2)) + m.n(x, x, x)[0][..., :2]


def normed(m, x):
    y = m.a(x)
    y = torch.stack([m.batch(y), m.instance(y), m.plain(y), m.group(y), m.layer(y.mT).mT, m.rms(y.mT).mT]).sum(0)
    return m.o(y.mT) + F.linear(torch.bilinear(y.mT, y.mT, m.both, m.bias), m.w)


def letters(m, x):
    y = torch.einsum("...i, ij -> ...j", m.a(x), m.w) + torch.einsum("bti,ii->bti", m.a(x), m.v)
    scores = torch.einsum("btd,bsd->bts", y, y)
    one = torch.einsum("bti,i->bt", m.b(x).sigmoid(), m.one)[..., None]
    return m.o(y) + torch.einsum("i...,...i", y.mT.transpose(0, 1), m.c)[..., None] + scores.sum(-1, keepdim=True) + one


SEQ, IMG = (2, 5, 6), (2, 3, 4, 4)
CASES = {
    "positions of lines": lambda: image(1, [*pooled(1), *resized(1)]),
    "positions of images": lambda: image(2, [*pooled(2), *resized(2)]),
    "positions of volumes": lambda: image(3, [*pooled(3), *resized(3)]),
    "unpooled": lambda: (
        Net(unpooled, a=nn.Conv2d(3, 6, 1), c=nn.Conv3d(6, 4, 1), o=nn.Conv2d(6, 2, 1), p=nn.Conv3d(4, 2, 1)),
        IMG,
        (6, 4),
    ),
    "positions looked up": lambda: (
        Net(
            looked_up,
            a=nn.Conv2d(3, 6, 1),
            o=nn.Conv2d(6, 2, 1),
            grid=torch.rand(1, 2, 2, 2) - 0.5,
            deep=torch.rand(1, 1, 2, 2, 3) - 0.5,
            draws=torch.rand(1, 6, 2),
            deeper=torch.rand(2, 6, 3),
        ),
        IMG,
        (6,),
    ),
    "taken apart": lambda: (Net(taken, a=lin(6, 8), o=lin(8, 2)), SEQ, (2, 2, 3)),
    "products": lambda: (
        Net(
            products,
            **{"a": lin(6, 8), "b": lin(6, 8), "bias": par(5, 5), "v": par(8), "u": par(5), "w": par(8, 4)},
            c=par(4),
            o=lin(4, 2),
        ),
        SEQ,
        (8, 4),
    ),
    "reduced": lambda: (Net(reduced, a=lin(6, 8), o=lin(8, 1)), SEQ, (8,)),
    "held": lambda: (Net(held, layers=nn.ModuleList([lin(6, 4) for _ in range(20)])), SEQ, ()),
    "shaped": lambda: (
        Net(shaped, **{"a": lin(6, 8), "w": par(8, 8), "v": par(8, 8), "c": par(8), "o": lin(16, 2), "p": lin(16, 2)}),
        SEQ,
        (4, 8, 8),
    ),
    "indexed": lambda: (Net(indexed, a=lin(6, 8), i=torch.tensor([3, 1, 1]), w=par(3, 3), o=lin(8, 2)), SEQ, (8,)),
    "moved": lambda: (
        Net(moved, a=nn.Conv2d(3, 16, 1), g=nn.Conv2d(3, 32, 1), o=lin(16, 2)),
        IMG,
        (2,),
    ),
    "filled": lambda: (Net(filled, a=lin(6, 8), c=par(8), e=nn.Embedding(2, 8), o=lin(8, 2)), SEQ, (8,)),
    "stepped": lambda: (
        Net(
            stepped,
            cells=nn.ModuleList(
                [nn.LSTMCell(6, 4), nn.GRUCell(6, 5), nn.RNNCell(6, 7), nn.RNNCell(6, 3, nonlinearity="relu")]
            ),
            outs=nn.ModuleList([lin(n, 2) for n in (4, 5, 7, 3)]),
        ),
        SEQ,
        (4, 5, 7, 3),
    ),
    "unrolled": lambda: (
        Net(
            unrolled,
            layers=nn.ModuleList(
                [nn.LSTM(6, 4), nn.GRU(6, 5), nn.RNN(6, 7), nn.RNN(6, 3, nonlinearity="relu", bidirectional=True)]
            ),
            outs=nn.ModuleList([lin(n, 2) for n in (4, 5, 7, 6)]),
        ),
        SEQ,
        (4, 5, 7, 3),
    ),
    "lines sampled": lambda: (
        Net(
            sampled,
            **{"a": nn.Conv1d(3, 8, 1), "t": nn.ConvTranspose1d(8, 6, 2, groups=2), "w": par(6, 6, 3)},
            o=nn.Conv1d(6, 2, 1),
        ),
        (2, 3, 4),
        (4, 3, 6),
    ),
    "volumes sampled": lambda: (
        nn.Sequential(nn.Conv3d(3, 8, 1), nn.ConvTranspose3d(8, 6, 2), nn.Conv3d(6, 2, 1)),
        (2, 3, 2, 2, 2),
        (8, 6),
    ),
    "images sampled": lambda: (
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 6, 2), nn.utils.weight_norm(nn.Conv2d(6, 2, 1))),
        IMG,
        (8, 6),
    ),
    "experts": lambda: (
        Net(
            experts,
            **{"a": lin(6, 8), "w": par(2, 8, 4), "b": lin(6, 8), "v": par(2, 8, 8), "o": lin(4, 2)},
            ends=torch.tensor([4, 10], dtype=torch.int32),
        ),
        SEQ,
        (8, 4),
    ),
    "attended": lambda: (
        Net(
            attended,
            **{"q": lin(6, 8), "k": lin(6, 8), "v": lin(6, 4), "o": lin(4, 2), "mask": par(2, 5, 5)},
            n=nn.MultiheadAttention(6, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True),
        ),
        SEQ,
        (2, 2, 4),
    ),
    "normed": lambda: (
        Net(
            normed,
            a=nn.Conv1d(6, 8, 1),
            batch=nn.BatchNorm1d(8),
            instance=nn.InstanceNorm1d(8, affine=True),
            plain=nn.InstanceNorm1d(8, track_running_stats=True),
            group=nn.GroupNorm(8, 8),
            layer=nn.LayerNorm(8),
            rms=nn.RMSNorm(8),
            **{"both": par(4, 8, 8), "bias": par(4), "w": par(2, 4), "o": lin(8, 2)},
        ),
        (2, 6, 5),
        (8, 4),
    ),
    "letters": lambda: (
        Net(letters, a=lin(6, 8), b=lin(6, 8), w=par(8, 8), v=par(8, 8), one=par(1), c=par(8), o=lin(8, 2)),
        SEQ,
        (8,),
    ),
}  # fmt: skip


PASSED: dict[str, set[str]] = {}
"""Case -> the operations in it that have a rule."""


@pytest.mark.parametrize("name", CASES)
def test_it_is_cut_exactly(name, exact):
    torch.manual_seed(0)
    net, shape, sizes = CASES[name]()
    analysis = exact(net, torch.randn(shape))
    assert sorted(g.size for g in analysis.groups) == sorted(sizes), analysis.groups
    PASSED[name] = {op.name for op, rule in analysis.operations if rule is not None}


def test_every_operation_with_a_rule_has_a_case(exact):
    for name in CASES.keys() - PASSED.keys():
        test_it_is_cut_exactly(name, exact)
    families = [importlib.import_module(f"luthier.model.rules.{f}") for f in names() if f not in SOMEWHERE_ELSE]
    missing = {op for family in families for op in family.RULES} - set().union(*PASSED.values())
    assert not missing, f"these have a rule and no case: {sorted(missing)}"
