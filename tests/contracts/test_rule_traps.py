"""Networks made to be cut wrongly: each is cut exactly, or what cannot be cut is held."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from luthier.errors import TraceError
from luthier.model import analyse
from luthier.surgery import cut

aten = torch.ops.aten


class Net(nn.Module):
    """From 6 to 8 features (``a``) and to 2 (``o``), from 5 to 9 positions (``t``), and what is done in between."""

    def __init__(self, run, **parts):
        super().__init__()
        parts = {"a": nn.Linear(6, 8), "o": nn.Linear(8, 2), "t": nn.Conv1d(5, 9, 1, bias=False)} | parts
        for name, part in parts.items():
            if isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            elif isinstance(part, torch.Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def par(*shape):
    return nn.Parameter(torch.randn(*shape))


def heads(x, h):
    return x.unflatten(-1, (h, -1)).transpose(1, 2)


def queries(m, x, **options):
    return F.scaled_dot_product_attention(m.q.expand(len(x), -1, -1), m.k(x), m.v(x), **options)


def by(f):
    """``f`` of the features and their last axis, then a layer."""
    return lambda m, x: m.o(f(m.a(x)))


def feature(f):
    """``f`` of the features beside a layer that consumes them."""
    return lambda m, x: (lambda y: m.o(y) + f(y))(m.a(x))


KEPT = {"dim": -1, "keepdim": True}
NORMALISING = {
    "a spread as a feature": (feature(lambda y: torch.var_mean(y, **KEPT)[0]), ()),
    "times its spread": (by(lambda y: y * y.std(**KEPT)), ()),
    "times the root of its mean square": (by(lambda y: y * y.pow(2).mean(**KEPT).sqrt()), ()),
    "a spread over it": (by(lambda y: y.std(**KEPT) / (y + 9)), ()),
    "divided by a mean, no root": (by(lambda y: y / (y.pow(2).mean(**KEPT) + 1)), ()),
    "divided by a distance": (by(lambda y: y * torch.rsqrt((y - y.sigmoid()).pow(2).mean(**KEPT) + 1)), ()),
    "centred only": (by(lambda y: (lambda c: c + c * c)(y - y.mean(**KEPT))), ()),
    "normalised by hand": (
        by(lambda y: (y - y.mean(**KEPT)) / (torch.var(y, -1, unbiased=False, keepdim=True) + 1e-5).sqrt()),
        (8,),
    ),
    "normalised by both at once": (
        by(lambda y: (lambda v, u: (y - u) * torch.rsqrt(v + 1e-5))(*torch.var_mean(y, **KEPT))),
        (8,),
    ),
    "its root mean square is one": (by(lambda y: y * (y.pow(2).mean(**KEPT) + 1e-5).pow(-0.5)), (8,)),
}  # fmt: skip
ROWS = {
    "a bias": (nn.Linear(6, 6), (6,)),
    "a norm's shift": (nn.LayerNorm(6), ()),
    "no shift": (nn.RMSNorm(6), (9,)),
    "steps": (nn.LSTM(6, 6, batch_first=True), (6,)),
}  # fmt: skip
FEATURES = {
    "squeezed to one": (lambda m, x: m.o(m.a(x).squeeze(-1)), {}, (8,)),
    "squeezed without saying what": (lambda m, x: m.o(m.a(x)[:, :1].squeeze()), {}, (8,)),
    "squeezed in place": (lambda m, x: m.o((m.a(x) * 1).unsqueeze(-1).squeeze_((1, -1))), {}, (8,)),
    "a diagonal written": (by(lambda y: y.flatten(0, 1).fill_diagonal_(0.0).view(2, 5, 8)), {}, ()),
    "a buffer as large": (
        lambda m, x: m.o(m.a(x)) + (m.c(x) * m.w.expand_as(m.a(x))).sum(**KEPT),
        {"c": nn.Linear(6, 8), "w": torch.rand(8)},
        (8,),
    ),
    "shaped as another": (
        lambda m, x: m.o(m.a(x)) + m.d(m.c(x).flatten(1).view_as(m.a(x))),
        {"c": nn.Linear(6, 8), "d": nn.Linear(8, 2)},
        (8,),
    ),
    "heads times a vector": (feature(lambda y: (heads(y, 2) @ y.new_ones(4)).sum(1)[..., None]), {}, (4,)),
    "written into": (lambda m, x: m.o(_shifted(m.a(x))), {}, (8,)),
    "a channel written": (lambda m, x: m.o(_written(m.a(x) * 1)), {}, (7,)),
    "picked by another": (feature(lambda y: y.gather(-1, y.argmax(-1, keepdim=True))), {}, ()),
    "scattered": (by(lambda y: torch.zeros_like(y).scatter(1, torch.ones_like(y).long(), y)), {}, ()),
    "put at indices": (by(lambda y: y.index_put((torch.tensor([1]),), y[:1])), {}, ()),
    "some of them reordered": (
        lambda m, x: m.o(m.a(x).index_select(-1, m.i)),
        {"i": torch.tensor([3, 1, 1, 0, 2, 4, 5, 6])},
        (),
    ),
    "rolled": (by(lambda y: y.roll(1, -1)), {}, ()),
    "rolled flat": (by(lambda y: y.roll(1)), {}, ()),
    "reflected": (by(lambda y: F.pad(y, (1, 1), mode="reflect")[..., :8]), {}, ()),
    "reflected by the operation": (by(lambda y: aten.reflection_pad1d(y, [1, 1])[..., 1:9]), {}, ()),
    "neighbours over channels": (by(lambda y: F.local_response_norm(y.mT, 3).mT), {}, ()),
    "mixed constants": (
        lambda m, x: m.d(torch.cat([m.a(x), torch.ones(2, 5, 2), m.c.expand(2, 5, -1), m.a(x)[..., :1] * 0], -1)),
        {"c": torch.rand(3), "d": nn.Linear(14, 2)},
        (7, 2, 3),
    ),
    "spectral norm": (
        lambda m, x: m.o(m.s(m.a(x)).relu()),
        {"s": nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))},
        (8, 8),
    ),
    "weight norm by hand": (
        lambda m, x: m.o(F.linear(m.a(x), m.v / m.v.norm(dim=1, keepdim=True)).relu()),
        {"v": par(8, 8)},
        (8,),
    ),
    "a tracked norm without weights": (
        lambda m, x: m.o(m.a(x)) + m.n(m.a(x).mT).sum(1)[..., None],
        {"n": nn.InstanceNorm1d(8, track_running_stats=True)},
        (),
    ),
    "positions of a norm": (
        lambda m, x: m.o(m.a(x)) + m.n(m.a(x)).sum(**KEPT),
        {"n": nn.BatchNorm1d(5)},
        (),
    ),
    "a table that is renormed": (
        lambda m, x: m.o(m.e((x[..., 0] > 0).long())),
        {"e": nn.Embedding(2, 8, max_norm=0.5)},
        (),
    ),
}  # fmt: skip


def _shifted(y):
    z = torch.zeros_like(y)
    z[:, 1:] = y[:, :-1]
    return z


def _written(y):
    y[..., :1] = 1.0
    return y


class All(nn.Module):
    """Several networks side by side, which share nothing but their input."""

    def __init__(self, nets):
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x):
        return torch.cat([net(x).flatten(1) for net in self.nets], -1)


def sizes(analysis, i=None):
    """Of what is free, in the network of that number."""
    mine = "" if i is None else f"nets.{i}."
    return sorted(g.size for g in analysis.groups if g.occurrences[0].parameter.startswith(mine))


def check(exact, table):
    """Each entry's network is free in what is said of it, and all are cut at once."""
    torch.manual_seed(0)
    analysis = exact(All([make() for make, _ in table.values()]), torch.randn(2, 5, 6))
    for i, (name, (_, expected)) in enumerate(table.items()):
        assert sizes(analysis, i) == sorted(expected), name


def test_statistics_are_free_only_where_they_normalise(exact):
    check(exact, {name: ((lambda run=run: Net(run)), free) for name, (run, free) in NORMALISING.items()})


def test_features(exact):
    check(exact, {n: (lambda run=run, p=p: Net(run, **p), free) for n, (run, p, free) in FEATURES.items()})


def test_positions_where_more_than_zero_arrives(exact):
    def made(layer):
        def run(m, x):
            y = m.l(m.t(x))
            return m.last((y[0] if isinstance(y, tuple) else y).sum(1))

        return Net(run, l=layer, last=nn.Linear(6, 2))

    check(exact, {name: (lambda layer=layer: made(layer), free) for name, (layer, free) in ROWS.items()})


@pytest.mark.parametrize(("kind", "expected"), [(torch.int32, [8]), (torch.int16, [])])
def test_bytes_read_as_another_type(kind, expected):
    torch.manual_seed(0)
    net, x = Net(feature(lambda y: (y.view(kind) != 0).sum(**KEPT))), torch.randn(2, 5, 6)
    analysis = analyse(net, x)
    assert sizes(analysis) == expected
    pruned = cut(net, analysis, {g.name: [0, 3, 5] for g in analysis.groups})
    with torch.no_grad():
        for p in (net.a.weight, net.a.bias):
            p[[i for i in range(8) if expected and i not in (0, 3, 5)]] = 0
        assert (pruned.model(x) - net(x)).abs().max() < 1e-6


def test_attention(exact):
    def mixed(m, x, **options):
        return m.o(m.t2(queries(m, x, **options)))

    def unlike(m, x):
        return F.scaled_dot_product_attention(m.q.cos().expand(len(x), -1, -1), m.k(x).sigmoid(), m.v(x)).sum(1)

    def summed(m, x):
        q, k, v = heads(m.q(x), 4), heads(m.k(x), 4), heads(m.v(x), 4).sigmoid()
        return m.last(F.scaled_dot_product_attention(q, k, v).sum(1))

    def learned(run):
        return Net(run, q=par(7, 8), k=nn.Linear(6, 8), v=nn.Linear(6, 8), t2=nn.Conv1d(7, 3, 1))

    def headed():
        return Net(summed, last=nn.Linear(4, 2), **{name: nn.Linear(6, 16) for name in "qkv"})

    table = {
        "learned queries, summed": (lambda: learned(lambda m, x: m.o(queries(m, x).sum(1))), (8, 8)),
        "learned queries, mixed": (lambda: learned(mixed), (7, 8, 8)),
        "learned queries, causal": (lambda: learned(lambda m, x: mixed(m, x, is_causal=True)), (8, 8)),
        "heads whose values do not vanish": (headed, ()),
        "queries and keys that do not vanish": (lambda: learned(lambda m, x: m.o(unlike(m, x))), (8,)),
    }
    check(exact, table)


def test_states_that_are_learned_have_whole_layers(exact):
    torch.manual_seed(0)

    def run(m, x):
        start = m.h.expand(-1, len(x), -1).contiguous()
        return m.o(m.r(x, (start, start))[0])

    net = Net(run, h=par(4, 1, 4), r=nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True))
    assert sizes(exact(net, torch.randn(2, 5, 6))) == [4]


@pytest.mark.parametrize(
    ("what", "f"),
    [
        ("torch.vmap", lambda y: torch.vmap(lambda row: row + 1)(y)),
        ("cond", lambda y: torch.cond(y.sum() > 0, lambda z: z * 2, lambda z: z * 3, (y,))),
    ],
)
def test_functions_within_the_graph_are_refused(what, f):
    with pytest.raises(TraceError, match=rf"{what} has no plain form(?s:.)*test_rule_traps.py"):
        analyse(Net(by(f)), torch.randn(2, 5, 6))


def test_sizes_that_depend_on_values_are_refused():
    net = Net(lambda m, x: m.o(m.a(x)).sum((0, 1)) + m.a(x)[x[..., 0] > 0].sum())
    with pytest.raises(TraceError, match=r"depends on the values(?s:.)*test_rule_traps.py"):
        analyse(net, torch.randn(2, 5, 6))
