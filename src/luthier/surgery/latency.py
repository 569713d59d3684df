"""A budget of latency: predicted by the table of measured layers, then measured whole, and corrected."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils import _pytree as pytree

from luthier.errors import BudgetError
from luthier.measure.latency import measure
from luthier.measure.onnx_file import write_onnx
from luthier.model import Analysis
from luthier.model.evaluating import evaluating
from luthier.model.trace import Inputs

Keep = dict[str, list[int]]
ROUNDS = 6
CLOSE = 0.02


def to_latency(
    analysis: Analysis, share: float, keep_at: Callable[[float], Keep], build: Callable[[Keep], nn.Module]
) -> Keep:
    """What stays so that the measured latency is a share of the dense network's: at most, and nearly.

    Args:
        analysis: of the network; its example inputs are what is timed.
        share: of the dense network's latency in ONNX Runtime on one thread.
        keep_at: from a share of the *predicted* latency to what stays.
        build: the network that is left, unproven.

    Returns:
        the slowest of the cuts tried that is within the budget, or the nearest one, with a warning that says so.

    Raises:
        TraceError: the network cannot be exported to ONNX, so there is nothing to time.
    """
    tried: list[tuple[float, Keep]] = []
    aim, given = share, analysis.traced.inputs
    with tempfile.TemporaryDirectory() as folder:
        timer = _Timer(Path(folder), analysis.model, given)
        for _ in range(3 * ROUNDS):
            try:
                keep = keep_at(min(aim, 1.0))
            except BudgetError:
                if not tried:
                    raise
                break
            found = next((ratio for ratio, before in tried if before == keep), None)
            if found is not None:  # the widths have steps: a little further
                aim *= 0.97 if found > share else 1.03
                continue
            found = timer.ratio(build(keep))
            tried.append((found, keep))
            if share * (1 - CLOSE) <= found <= share or len(tried) == ROUNDS:
                break
            aim *= share * (1 - CLOSE / 2) / found
    within = [(found, keep) for found, keep in tried if found <= share]
    found, keep = max(within, key=lambda t: t[0]) if within else min(tried, key=lambda t: t[0])
    if not share * (1 - CLOSE) <= found <= share:
        others = ", ".join(f"{ratio:.3f}" for ratio, _ in sorted(tried, key=lambda t: t[0]))
        why = (
            "widths come in steps" if len(tried) < ROUNDS else f"{ROUNDS} cuts were built and timed, no more are tried"
        )
        warnings.warn(
            f"the nearest latency found is {found:.3f} of the dense network's, {share:g} asked: {why} "
            f"(measured: {others})",
            stacklevel=3,
        )
    return keep


class _Timer:
    """Times networks beside the dense one."""

    def __init__(self, folder: Path, dense: nn.Module, inputs: Inputs) -> None:
        self.folder, self.inputs = folder, inputs
        self.dense = self._written(dense, "dense.onnx")

    def _written(self, model: nn.Module, name: str) -> Path:
        with evaluating(model):
            write_onnx(model, self.folder / name, self.inputs)
        return self.folder / name

    def ratio(self, model: nn.Module) -> float:
        """The median ratio of its time to the dense network's, on one thread."""
        files = {"dense": self.dense, "cut": self._written(model, "cut.onnx")}
        leaves = pytree.tree_leaves((self.inputs.args, self.inputs.kwargs))
        return measure(files, [t for t in leaves if isinstance(t, torch.Tensor)])["cut"].ratio
