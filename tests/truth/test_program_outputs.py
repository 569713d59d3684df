"""What a captured network returns, and what it takes: the shapes of the original's, before and after a file."""

import collections
import dataclasses

import pytest
import torch
from torch import nn

import luthier as lt
from luthier.errors import TraceError, UsageError
from luthier.model import analyse
from luthier.surgery import cut

Pair = collections.namedtuple("Pair", "u v")


@dataclasses.dataclass
class Unregistered:
    u: torch.Tensor


@dataclasses.dataclass
class Registered:
    u: torch.Tensor
    v: object = None


torch.export.register_dataclass(Registered)


class Net(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.a, self.b, self.form = nn.Linear(6, 8), nn.Linear(8, 2), form

    def forward(self, x, *rest, scale=None):
        y = self.b(self.a(x).relu())
        for other in (*rest, *([] if scale is None else [scale])):
            y = y + other
        return self.form(y)


FORMS = {
    "numbers for keys": (lambda y: {0: y, 2: y + 1}, lambda o: (o[0], o[2] - 1)),
    "ordered": (lambda y: collections.OrderedDict(u=y, v=y + 1), lambda o: (o["u"], o.v - 1, o[0])),
    "named": (lambda y: Pair(y, y + 1), lambda o: (o.u, o[1] - 1, o["u"])),
    "registered": (lambda y: Registered(y), lambda o: (o.u,)),
    "constants": (lambda y: (y, 3, None, "s", 2.5), lambda o: (o[0],) if o[1:] == (3, None, "s", 2.5) else ()),
    "nested": (lambda y: [(y, [y]), {"z": {"y": y}}, [], {}], lambda o: (o[0][1][0], o[1]["z"]["y"])),
    "one twice": (lambda y: (y, y), tuple),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_outputs_keep_their_form(name, tmp_path):
    torch.manual_seed(0)
    form, leaves = FORMS[name]
    net, x = Net(form).eval(), torch.randn(2, 6)
    analysis = analyse(net, x)
    pruned = cut(net, analysis, {g.name: [0, 3, 5] for g in analysis.groups}, target="graph")
    lt.save(pruned, tmp_path / "net.luthier")
    with torch.no_grad():
        for name_, p in net.named_parameters():
            for dim, index in enumerate(pruned.plan.kept[name_]):
                gone = [i for i in range(p.shape[dim]) if index is not None and i not in index]
                p.index_fill_(dim, torch.tensor(gone, dtype=torch.long), 0)
        expected = net(x)
        expected = expected.u if name == "registered" else next(iter(_flat(expected)))
        for model in (pruned.model, lt.load(tmp_path / "net.luthier").eval()):
            found = leaves(model(x))
            assert found
            assert all((t - expected).abs().max() < 1e-6 for t in found)


def _flat(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _flat(part)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (lambda y: {(0, 1): y}, "plain keys"),
        (lambda y: collections.deque([y]), "got: +deque"),
        (lambda y: (y, {1}), "cannot look into"),
        (Unregistered, "register_dataclass"),
    ],
)
def test_outputs_that_cannot_be_kept_are_refused(form, says):
    with pytest.raises(TraceError, match=says):
        analyse(Net(form), torch.randn(2, 6))


def test_inputs_are_those_of_the_capture():
    net, x, y = Net(lambda y: y).eval(), torch.randn(2, 6), torch.randn(2, 2)
    several = cut(net, analyse(net, (x, y, y)), {}, target="graph").model
    assert torch.allclose(several(x, y, y), net(x, y, y))
    with pytest.raises(UsageError, match="x, input_1, input_2"):
        several(x, y)
    named = cut(net, analyse(net, {"x": x, "scale": y}), {}, target="graph").model
    assert torch.allclose(named(x, scale=y), net(x, scale=y))
    with pytest.raises(UsageError, match="x, scale"):
        named(x)
    with pytest.raises(UsageError, match="another structure"):
        named(x, scale=[y, y])
