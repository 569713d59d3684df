"""A budget of latency: predicted by the table of measured layers, then measured whole, and corrected."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
LAST = 3
CLOSE = 0.02


@dataclass(frozen=True)
class Nearby:
    """What a last, finer step goes by.

    Attributes:
        predict: from what stays to its latency, in any unit.
        cuts: from a cut to those that differ from it in the width of one group.
    """

    predict: Callable[[Keep], float]
    cuts: Callable[[Keep], Iterable[Keep]]

    def nearest(self, tried: Sequence[tuple[float, Keep]], aim: float) -> Keep | None:
        """Of all cuts beside those that were timed, and not yet timed, the one that comes nearest to an aim."""
        best: tuple[float, Keep] | None = None
        for found, keep in tried:
            scale = found / self.predict(keep)
            for other in self.cuts(keep):
                off = abs(scale * self.predict(other) / aim - 1)
                if off < 2 * CLOSE and (best is None or off < best[0]) and all(other != k for _, k in tried):
                    best = (off, other)
        return None if best is None else best[1]


def to_latency(
    analysis: Analysis,
    share: float,
    keep_at: Callable[[float], Keep],
    build: Callable[[Keep], nn.Module],
    nearby: Nearby | None = None,
) -> Keep:
    """What stays so that the measured latency is a share of the dense network's: at most, and nearly.

    Args:
        analysis: of the network; its example inputs are what is timed.
        share: of the dense network's latency in ONNX Runtime on one thread.
        keep_at: from a share of the *predicted* latency to what stays.
        build: the network that is left, unproven.
        nearby: what cuts beside those that were timed are predicted with, where none of these is near enough.

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
            if _near(tried, share) or len(tried) == ROUNDS:
                break
            aim *= share * (1 - CLOSE / 2) / found
        for _ in range(LAST):
            other = nearby and not _near(tried, share) and nearby.nearest(tried, share * (1 - CLOSE / 2))
            if not other:
                break
            tried.append((timer.ratio(build(other)), other))
    within = [(found, keep) for found, keep in tried if found <= share]
    found, keep = max(within, key=lambda t: t[0]) if within else min(tried, key=lambda t: t[0])
    if not _near(tried, share):
        _say_how_near(found, tried, share)
    return keep


def _say_how_near(found: float, tried: Sequence[tuple[float, Keep]], share: float) -> None:
    others = ", ".join(f"{ratio:.3f}" for ratio, _ in sorted(tried, key=lambda t: t[0]))
    steps = len(tried) < ROUNDS
    why = "widths come in steps" if steps else f"{len(tried)} cuts were built and timed, no more are tried"
    warnings.warn(
        f"the nearest latency found is {found:.3f} of the dense network's, {share:g} asked: {why} (measured: {others})",
        stacklevel=4,
    )


def _near(tried: Sequence[tuple[float, Keep]], share: float) -> bool:
    return any(share * (1 - CLOSE) <= found <= share for found, _ in tried)


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
