"""Pretrained networks that people use are cut to half, exactly."""

import runpy
from pathlib import Path

import pytest
import torch

import luthier as lt

REAL = Path(__file__).parents[2] / "bench" / "cut" / "real.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EasyOCR recogniser", "MiniLM"])
def test_a_pretrained_network_is_cut_to_half_and_proven(name):
    try:
        model, inputs = runpy.run_path(str(REAL))["NETWORKS"][name]()
    except ImportError as missing:
        pytest.skip(str(missing))
    pruned = lt.prune_neurons(model, inputs, ratio=0.5)
    before, after = pruned.plan.parameters
    assert after < 0.6 * before
    errors = {proof.name: proof.error for proof in pruned.check}
    assert errors["cut == masked"] < 1e-9
    assert all(torch.isfinite(p).all() for p in pruned.model.parameters())
