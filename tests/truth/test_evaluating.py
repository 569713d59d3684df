"""Evaluation for a while: two at once, in any order, leave PyTorch as it was."""

import contextlib

import pytest
import torch
from torch import nn

from luthier.model.evaluating import evaluating


def _switches():
    return torch.backends.mha.get_fastpath_enabled(), nn.modules.transformer._detect_is_causal_mask


@pytest.mark.parametrize("first", [0, 1])
def test_overlapping_evaluations_put_everything_back(first):
    before, nets = _switches(), [nn.Linear(2, 2), nn.Linear(2, 2).eval()]
    opened = [contextlib.ExitStack() for _ in nets]
    for stack, net in zip(opened, nets, strict=True):
        stack.enter_context(evaluating(net))
    assert not nets[0].training
    opened[first].close()
    assert _switches()[0] is False
    assert _switches()[1] is not before[1]
    opened[1 - first].close()
    assert _switches() == before
    assert [net.training for net in nets] == [True, False]


def test_a_pytorch_without_the_private_name_will_do(monkeypatch):
    monkeypatch.delattr(nn.modules.transformer, "_detect_is_causal_mask")
    with evaluating(nn.Linear(2, 2)):
        assert not torch.backends.mha.get_fastpath_enabled()
    assert not hasattr(nn.modules.transformer, "_detect_is_causal_mask")
