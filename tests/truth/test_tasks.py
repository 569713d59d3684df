"""What a task says: metrics read once, batches weighed by their examples, and what makes two runs the same one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import luthier as lt
from luthier import importance
from luthier.compression.settings import Settings, fingerprint


def _half(outputs, target):
    """A loss of a target in two parts."""
    return (nn.functional.mse_loss(outputs, target[0], reduction="none") * target[1]).mean()


@pytest.mark.parametrize("named", [False, True])
def test_batches_count_by_their_examples_whatever_their_target_is(named):
    torch.manual_seed(0)
    model, x, y, weight = (
        nn.Linear(3, 1).requires_grad_(False),
        torch.randn(10, 3),
        torch.randn(10, 1),
        torch.rand(10, 1),
    )
    parts = [(x[i], {"input": x[i]}, (y[i], weight[i])) for i in (slice(0, 8), slice(8, 10))]
    batches = [(inputs if named else plain, target) for plain, inputs, target in parts]
    assert importance.mean_loss(model, batches, _half) == pytest.approx(float(_half(model(x), (y, weight))))
    alone = [(plain,) for plain, _, _ in parts]
    assert importance.mean_loss(model, alone, lambda out, _: out.mean()) == pytest.approx(float(model(x).mean()))


def test_metrics_are_read_once():
    x, y = torch.zeros(4, 2), torch.zeros(4).long()
    task = lt.Task(train=(x, y), valid=(x, y), metrics=["f1_macro", "accuracy"])
    assert [m.name for m in task.scores] == ["f1_macro", "accuracy"]
    assert all(a is b for a, b in zip(task.scores, task.scores, strict=True))
    assert task.main is task.scores[0]


def test_another_layout_is_another_run():
    x, y = torch.zeros(4, 2), torch.zeros(4).long()

    def of(**layout):
        task = lt.Task(train=(x, y), valid=(x, y), **layout)
        return fingerprint(nn.Linear(2, 2), task, {"macs": 0.5}, Settings(recipe={"epochs": 1}))

    assert of() == of(targets=1, class_dim=1)
    assert of() != of(class_dim=-1)
    assert of() != of(targets=2)


class _Wrapper(nn.Module):
    """A network with a part of the name that results have for theirs."""

    def __init__(self):
        super().__init__()
        self.model, self.head = nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.model(x).relu())


def test_a_network_with_a_part_named_model_is_taken_whole():
    net, x, y = _Wrapper(), torch.randn(8, 2), torch.tensor([2] * 8)
    with torch.no_grad():
        net.head.bias[2] += 100
    task = lt.Task(train=(x, y), valid=(x, y))
    before = net.head.weight.clone()
    assert lt.evaluate(net, (x, y)) == {"accuracy": 1.0}
    assert lt.distill(lt.fit(net, task, epochs=1, progress=False), _Wrapper(), task, epochs=1, progress=False) is net
    assert not torch.equal(net.head.weight, before)
    rewind = lt.Rewind(net, at=0)
    masked = lt.prune_weights(net, ratio=0.5)
    assert set(masked.masks) == {"model.weight", "head.weight"}
    assert rewind.onto(masked) is masked
    assert rewind.onto(net) is net
    assert lt.profile(net, x, rounds=1).macs == 2 * 4 + 4 * 3


class _Remembering(nn.Module):
    """Keeps what it computed, as networks with additional losses do: PyTorch refuses to copy that."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        self.seen = {"hidden": [self.body(x).relu()]}
        return self.head(self.seen["hidden"][0])


def test_a_network_that_keeps_what_it_computed_is_copied():
    net, x, y = _Remembering(), torch.randn(16, 4), torch.randint(2, (16,))
    task = lt.Task(train=(x, y), valid=(x, y))
    expected = net(x)
    masked = lt.prune_weights(net, ratio=0.5)
    masked(x)
    assert torch.equal(lt.prune_weights(net, ratio=0.0).finalize()(x), expected)
    assert masked.finalize()(x).shape == (16, 2)
    net(x)
    lt.distill(_Remembering(), net, task, epochs=1, progress=False)
    assert lt.prune_neurons(net, x[:2], ratio=0.5).model(x).shape == (16, 2)
