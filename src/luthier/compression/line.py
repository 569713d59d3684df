"""The straight line for one network: score -> allocate -> cut -> prove -> recover -> measure."""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luthier import importance
from luthier.allocate import Rounding, allocate
from luthier.checkpoint import seeded
from luthier.distillation.cache import is_fixed, outputs_over, with_teacher
from luthier.distillation.lesson import Lesson
from luthier.export.write import write_onnx
from luthier.measure.latency import Latency, measure
from luthier.model import Analysis, analyse, cost
from luthier.recipe import Recipe
from luthier.surgery import Pruned, cut
from luthier.task import Task, device_of
from luthier.train import Curve, OnEpoch, Trainer, recalibrate

Keep = dict[str, list[int]]
MOST_FAMILIES = 6


@dataclass(frozen=True)
class Recovery:
    """How a cut network is trained back.

    Attributes:
        recipe: epochs, learning rate, weight decay ...
        kl: weight of the divergence from the dense network's outputs; 0 for plain fine-tuning.
        temperature: of that divergence.
    """

    recipe: Recipe
    kl: float = 0.0
    temperature: float = 4.0


class Line:
    """Everything needed to make one smaller network after another from the same dense one.

    Args:
        dense: the trained network; not changed.
        task: data, loss and metrics.
        batch_size: of the latency measurement.
        multiple: widths are kept at multiples of this.
    """

    def __init__(self, dense: nn.Module, task: Task, batch_size: int = 32, multiple: int = 8) -> None:
        self.dense = copy.deepcopy(dense).eval()  # what is frozen in it stays frozen in the cut networks
        self.task = task
        self.batch_size = batch_size
        self.multiple = multiple
        self._scores: dict[str, dict[str, Tensor]] = {}

    @cached_property
    def example(self) -> tuple[Tensor, ...]:
        """Inputs of a batch of the size whose latency counts."""
        rows = self.task.example()
        index = torch.arange(self.batch_size) % len(rows[0])
        return tuple(x[index] for x in rows)

    @cached_property
    def analysis(self) -> Analysis:
        """The dense network's axes."""
        dense = copy.deepcopy(self.dense)
        return analyse(dense, tuple(x[:2].to(device_of(dense)) for x in self.example))

    @cached_property
    def families(self) -> dict[str, tuple[str, ...]]:
        """Stage -> the axes in it: what one ratio of the search decides."""
        return families([group.name for group in self.analysis.groups])

    @cached_property
    def taught(self) -> Tensor | None:
        """The dense network's outputs over the training data, where these are fixed."""
        loader: Any = self.task.loader("train")
        return outputs_over(self.dense, loader) if is_fixed(loader) else None

    def scores(self, criterion: str) -> dict[str, Tensor]:
        """Importance of every unit, computed once a criterion."""
        if criterion not in self._scores:
            with seeded(0):  # the same batches in every process
                data = list(_first(self.task, batches=8))
            self._scores[criterion] = importance.score(
                self.analysis, criterion, data=data, loss=self.task.loss_function
            )
        return self._scores[criterion]

    def ratios(self, by_family: Mapping[str, float]) -> dict[str, float]:
        """Axis -> share to remove, from stage -> share to remove."""
        return {axis: by_family[family] for family, axes in self.families.items() for axis in axes}

    def keep(self, by_family: Mapping[str, float], criterion: str) -> Keep:
        """What is kept of every axis, by a criterion."""
        return self._allocated(by_family, self.scores(criterion))

    def widths(self, by_family: Mapping[str, float]) -> Keep:
        """What would be kept by position: enough to predict costs, without scores."""
        order = {g.name: torch.arange(g.size, 0, -1, dtype=torch.float32) for g in self.analysis.groups}
        return self._allocated(by_family, order)

    def _allocated(self, by_family: Mapping[str, float], scores: Mapping[str, Tensor]) -> Keep:
        return allocate(self.analysis, scores, ratio=self.ratios(by_family), rounding=Rounding(multiple=self.multiple))

    def predicted(self, keep: Keep) -> dict[str, float]:
        """MACs and parameters as shares of the dense network's, without building anything."""
        return {
            "macs": cost.macs(self.analysis, keep) / cost.macs(self.analysis),
            "parameters": cost.parameters(self.analysis, keep) / cost.parameters(self.analysis),
        }

    def cut(self, keep: Keep) -> Pruned:
        """The smaller network, proven equal to the masked one, its batch norms recalibrated."""
        pruned = cut(self.analysis.model, self.analysis, keep)
        recalibrate(pruned.model, self.task)
        return pruned

    def recover(self, model: nn.Module, recovery: Recovery, on_epoch: OnEpoch | None = None) -> Curve:
        """Trains a cut network back, in place."""
        if recovery.kl <= 0:
            return Trainer(model, self.task, recovery.recipe).run(on_epoch)
        weights = {"kl": recovery.kl, "task": 1 - recovery.kl}
        lesson = Lesson(model, self.dense, self.task, weights, recovery.temperature)
        batches = with_teacher(self.dense, self.task, self.taught)
        return Trainer(model, self.task, recovery.recipe, lesson, batches).run(on_epoch)

    def timed(self, model: nn.Module, dense_onnx: Path, rounds: int = 15) -> tuple[Latency, float]:
        """Measured latency of a network beside the dense one's file, and the ratio of the files' sizes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(model, path, self.example)
            share = path.stat().st_size / dense_onnx.stat().st_size
            return measure({"dense": dense_onnx, "cut": path}, self.example, rounds)["cut"], share


def _first(task: Task, batches: int) -> Iterator[tuple[Any, Any]]:
    for _, batch in zip(range(batches), task.batches("train"), strict=False):
        yield (batch.inputs if len(batch.inputs) > 1 else batch.inputs[0], batch.target)


def families(names: Sequence[str], most: int = MOST_FAMILIES) -> dict[str, tuple[str, ...]]:
    """Groups axes into stages: by the first part of their names that tells some apart, at most ``most``.

    Example:
        >>> families(["stem.0", "stage1.conv1", "stage1.conv2", "stage2.conv1"])
        {'stem': ('stem.0',), 'stage1': ('stage1.conv1', 'stage1.conv2'), 'stage2': ('stage2.conv1',)}
    """
    deepest = max((name.count(".") + 1 for name in names), default=1)
    for depth in range(1, deepest + 1):
        found: dict[str, tuple[str, ...]] = {}
        for name in names:
            prefix = ".".join(name.split(".")[:depth])
            found[prefix] = (*found.get(prefix, ()), name)
        if len(found) > 1:
            break
    return _merged(found, most) if names else {}


def _merged(found: Mapping[str, tuple[str, ...]], most: int) -> dict[str, tuple[str, ...]]:
    """Neighbours put together until there are at most ``most``, of about as many members each."""
    stages = list(found)
    if len(stages) <= most:
        return dict(found)
    bounds = [round(i * len(stages) / most) for i in range(most + 1)]
    out = {}
    for low, high in itertools.pairwise(bounds):
        part = stages[low:high]
        name = part[0] if len(part) == 1 else f"{part[0]}..{part[-1]}"
        out[name] = tuple(axis for stage in part for axis in found[stage])
    return out


def count_parameters(model: nn.Module) -> int:
    """How many numbers the parameters hold."""
    return sum(p.numel() for p in model.parameters())
