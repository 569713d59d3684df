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
