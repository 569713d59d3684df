"""Random small networks, cut at random: the result equals the original with what was removed zeroed.

The reference is made without the library's own check: the user's module with masked parameters, run as it is.
"""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from luthier.model import analyse, cost
from luthier.model.axes import leaves
from luthier.surgery import cut


class Random(nn.Module):
    """Blocks drawn by number: each takes and returns an image of any number of channels."""

    def __init__(self, choices, channels):
        super().__init__()
        self.stem = nn.Conv2d(2, channels, 3, padding=1)
        self.kinds = []
        self.blocks = nn.ModuleList()
        c = channels
        for kind in choices:
            block, c = BLOCKS[kind](c)
            self.kinds.append(kind)
            self.blocks.append(block)
        self.head = nn.Linear(c * 4, 3) if choices and choices[-1] % 2 else nn.Linear(c, 3)
        self.flat = bool(choices and choices[-1] % 2)

    def forward(self, x):
        x = self.stem(x)
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            x = RUN[kind](block, x)
        x = nn.functional.adaptive_avg_pool2d(x, 2 if self.flat else 1).flatten(1)
        return self.head(x)


def plain(c):
    return nn.Sequential(nn.Conv2d(c, c + 2, 3, padding=1), nn.BatchNorm2d(c + 2), nn.ReLU()), c + 2


def residual(c):
    return nn.Sequential(nn.Conv2d(c, 6, 1), nn.Sigmoid(), nn.Conv2d(6, c, 1)), c


def dense(c):
    return nn.Sequential(nn.BatchNorm2d(c), nn.SiLU(), nn.Conv2d(c, 4, 1)), c + 4


def grouped(c):
    return nn.Sequential(nn.Conv2d(c, 12, 1), nn.Conv2d(12, 24, 3, padding=1, groups=3), nn.ReLU()), 24


def depthwise(c):
    return nn.Sequential(nn.Conv2d(c, c, 3, padding=1, groups=c), nn.Tanh()), c


def gate(c):
    return nn.Conv2d(c, 2 * c, 1), c


def squeeze(c):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, c, 1), nn.Sigmoid()), c


def csp(c):
    c = c + c % 2
    return nn.ModuleList(
        [nn.LazyConv2d(c, 1), nn.Conv2d(c // 2, c // 2, 3, padding=1), nn.Conv2d(c // 2, c, 1)]
    ), c + c // 2


def shuffle(c):
    return nn.Conv2d(c, 16, 1), 4


def attention(c):
    return nn.ModuleList([nn.Linear(c, 24), nn.Linear(8, c)]), c


def transposed(c):
    return nn.ConvTranspose2d(c, 6, 2, 2), 6


def recurrent(c):
    return nn.LSTM(c, 5, batch_first=True, bidirectional=True), 10


def run_csp(block, x):
    a, b = block[0](x).chunk(2, 1)
    return torch.cat([torch.relu(a), block[2](block[1](b))], 1)


def run_attention(block, x):
    n, c, h, w = x.shape
    qkv = block[0](x.flatten(2).transpose(1, 2)).reshape(n, h * w, 3, 4, 2).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    out = ((q @ k.transpose(-2, -1) / 2).softmax(-1) @ v).transpose(1, 2).reshape(n, h * w, 8)
    return x + block[1](out).transpose(1, 2).reshape(n, c, h, w)


def run_recurrent(block, x):
    n, _, h, w = x.shape
    return block(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).reshape(n, 10, h, w)


def run_gate(block, x):
    a, b = block(x).chunk(2, 1)
    return a * torch.sigmoid(b)


BLOCKS = [plain, residual, dense, grouped, depthwise, gate, squeeze, csp, shuffle, attention, transposed, recurrent]
RUN = [
    lambda b, x: b(x),
    lambda b, x: x + b(x),
    lambda b, x: torch.cat([x, b(x)], 1),
    lambda b, x: b(x),
    lambda b, x: b(x),
    run_gate,
    lambda b, x: x * b(x),
    run_csp,
    lambda b, x: nn.functional.avg_pool2d(nn.functional.pixel_shuffle(b(x), 2), 2),
    run_attention,
    lambda b, x: nn.functional.max_pool2d(b(x), 2),
    run_recurrent,
]


def built(choices, channels, seed):
    torch.manual_seed(seed)
    net = Random(choices, channels)
    net(torch.randn(2, 2, 4, 4))
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.3)
            m.running_var.uniform_(0.5, 1.5)
    return net.eval()


def masked(net, plan):
    out = copy.deepcopy(net).double()
    for name, p in out.named_parameters():
        for dim, index in enumerate(plan.kept[name]):
            if index is not None:
                gone = torch.tensor(sorted(set(range(p.shape[dim])) - set(index)), dtype=torch.long)
                p.data.index_fill_(dim, gone, 0)
    return out


def random_cut(analysis, seed):
    """Every group at random, those that are left alone by default too."""
    g = torch.Generator().manual_seed(seed)
    keep = {}
    for group in analysis.all_groups:
        count = int(torch.randint(1, group.size + 1, (1,), generator=g))
        keep[group.name] = torch.randperm(group.size, generator=g)[:count].sort().values.tolist()
    return keep


def check(choices, channels, seed):
    net = built(choices, channels, seed)
    x = torch.randn(2, 2, 4, 4)
    analysis = analyse(net, x)
    for target in ("graph", "auto"):
        pruned = cut(net, analysis, random_cut(analysis, seed), target=target)
        with torch.no_grad():
            got = copy.deepcopy(pruned.model).double()(x.double())
            expected = masked(net, pruned.plan)(x.double())
        assert (got - expected).abs().max() <= 1e-9 * expected.abs().max()
        assert sum(p.numel() for p in pruned.model.parameters()) == cost.parameters(analysis, pruned.plan.groups)
        assert cost.count_macs(pruned.model, x) == cost.macs(analysis, pruned.plan.groups)
    return analysis


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, len(BLOCKS) - 1), max_size=5), st.sampled_from([4, 6, 8]), st.integers(0, 10**6))
def test_a_random_cut_of_a_random_network_is_exact(choices, channels, seed):
    check(choices, channels, seed)


@pytest.mark.parametrize("kind", range(len(BLOCKS)))
def test_every_block_can_be_cut(kind):
    analysis = check([kind], 8, seed=kind)
    inside = [g for g in analysis.all_groups if any("blocks.0" in p.parameter for p in g.occurrences)]
    assert inside, "nothing of the block is free"
    assert all(not a.why for g in inside for a in leaves(g.axis))
