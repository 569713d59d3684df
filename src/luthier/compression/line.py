"""The straight line for one network: score -> allocate -> cut -> prove -> recover -> measure."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from luthier import importance
from luthier.allocate import Rounding, SensitivityMap, allocate, families, measure_map, needs_map
from luthier.batch import outputs_of
from luthier.checkpoint import Curve, OnEpoch, seeded
from luthier.compression.settings import digest
from luthier.distillation.cache import is_fixed, outputs_over, with_teacher
from luthier.distillation.lesson import Lesson, fading, suited
from luthier.measure.latency import Latency, measure
from luthier.measure.onnx_file import write_onnx
from luthier.measure.table import Table
from luthier.measure.widths import multiple_for
from luthier.model import Analysis, analyse, cost
from luthier.model.copies import copy_of
from luthier.recipe import Recipe
from luthier.surgery import Pruned, cut
from luthier.surgery.reconstruct import LAYERS, reconstruct
from luthier.task import Task, device_of
from luthier.train import Trainer, recalibrate

Keep = dict[str, list[int]]

_SAMPLE = 8  # batches


@dataclass(frozen=True)
class Recovery:
    """How a cut network is trained back.

    Attributes:
        recipe: epochs, learning rate, weight decay ...
        kl: weight of the divergence from the dense network's outputs at first, fading to none; 0 for plain fine-tuning.
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
        multiple: widths are kept at multiples of this; "auto": what this machine's runtime likes, measured once a run.
        allocate: how a stage's share is spread over its widths, see ``luthier methods``.
        cache: a file that keeps the sensitivity map, where ``allocate`` needs one.
    """

    def __init__(
        self,
        dense: nn.Module,
        task: Task,
        batch_size: int = 32,
        multiple: int | str = 8,
        allocate: str = "sensitivity",
        cache: Path | None = None,
    ) -> None:
        self.dense = copy_of(dense).eval()  # what is frozen in it stays frozen in the cut networks
        self.task = task
        self.batch_size = batch_size
        self._multiple = multiple
        self.allocate, self.cache = allocate, cache
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
    def multiple(self) -> int:
        """What widths are kept at multiples of; what was measured for it stays with the run."""
        kept = None if self.cache is None else Table.at(self.cache.with_name("layers.json"))
        return multiple_for(self.analysis, self._multiple, kept)

    @cached_property
    def families(self) -> dict[str, tuple[str, ...]]:
        """Stage -> the axes in it: what one ratio of the search decides."""
        return families([group.name for group in self.analysis.groups])

    @cached_property
    def taught(self) -> Tensor | None:
        """The dense network's outputs over the training data, where these are fixed."""
        loader: Any = self.task.loader("train")
        return outputs_over(self.dense, loader, self.task.layout) if is_fixed(loader) else None

    @cached_property
    def sample(self) -> list[tuple[Any, Any]]:
        """A few batches of the training data, the same in every process: what criteria go by."""
        with seeded(0):
            return sample(self.task, "train")

    def scores(self, criterion: str) -> dict[str, Tensor]:
        """Importance of every unit, computed once a criterion."""
        if criterion not in self._scores:
            self._scores[criterion] = importance.score(
                self.analysis, criterion, data=self.sample, loss=loss_of(self.task)
            )
        return self._scores[criterion]

    @cached_property
    def sensitivity(self) -> SensitivityMap | None:
        """What the removal of parts of each width does to the loss on validation data; None where nobody asks."""
        if not needs_map(self.allocate):
            return None
        with seeded(0):  # the same in every process: the map is kept under these data
            held_out = sample(self.task, "valid")

        def evaluate(model: nn.Module) -> float:
            return importance.mean_loss(model, held_out, loss_of(self.task))

        return measure_map(
            self.analysis,
            self.scores("auto"),
            evaluate,
            cache=self.cache,
            data=digest(*(t for t in pytree.tree_leaves(held_out) if isinstance(t, Tensor))),
        )

    def balanced(self, macs: float) -> dict[str, float]:
        """Stage -> share to remove, so that about this share of the MACs is left, spread as the allocation says.

        Raises:
            BudgetError: even the least widths cost more.
        """
        with warnings.catch_warnings(action="ignore"):  # of steps that are coarse
            keep = allocate(
                self.analysis,
                self.scores("auto"),
                self.allocate,
                budget={"macs": macs},
                rounding=Rounding(multiple=self.multiple),
                sensitivity=self.sensitivity,
            )
        sizes = {g.name: g.size for g in self.analysis.groups}
        left = {name: len(keep.get(name, range(size))) for name, size in sizes.items()}
        return {f: 1 - sum(left[a] for a in m) / sum(sizes[a] for a in m) for f, m in self.families.items()}

    def keep(self, by_family: Mapping[str, float], criterion: str) -> Keep:
        """What is kept of every axis, by a criterion."""
        return self._allocated(by_family, self.scores(criterion))

    def widths(self, by_family: Mapping[str, float]) -> Keep:
        """What would be kept by position: enough to predict costs, without scores."""
        order = {g.name: torch.arange(g.size, 0, -1, dtype=torch.float32) for g in self.analysis.groups}
        return self._allocated(by_family, order)

    def _allocated(self, by_family: Mapping[str, float], scores: Mapping[str, Tensor]) -> Keep:
        """Each stage loses its own share."""
        out: Keep = {}
        for family, members in self.families.items():
            mine = {name: scores[name] for name in members}
            ratio, rounding = by_family[family], Rounding(multiple=self.multiple)
            out |= allocate(
                self.analysis, mine, self.allocate, ratio=ratio, rounding=rounding, sensitivity=self.sensitivity
            )
        return out

    def predicted(self, keep: Keep) -> dict[str, float]:
        """MACs and parameters as shares of the dense network's, without building anything."""
        return {
            "macs": cost.macs(self.analysis, keep) / cost.macs(self.analysis),
            "parameters": cost.parameters(self.analysis, keep) / cost.parameters(self.analysis),
        }

    def cut(self, keep: Keep, repaired: bool = True) -> Pruned:
        """The smaller network, proven equal to the masked one.

        Args:
            keep: what is left of every axis.
            repaired: whether layers are re-fitted by least squares, or, where there are none, batch norms' statistics
                made its own; not needed where it is only timed.
        """
        pruned = cut(self.analysis.model, self.analysis, keep)
        if repaired:
            layers = any(isinstance(m, LAYERS) for m in self.dense.modules())
            fitted = layers and reconstruct(pruned.model, self.analysis, pruned.plan, self.sample)
            if not fitted or pruned.target == "graph":
                recalibrate(pruned.model, self.task)
        return pruned

    def recover(self, model: nn.Module, recovery: Recovery, on_epoch: OnEpoch | None = None) -> Curve:
        """Trains a cut network back, in place."""
        if recovery.kl <= 0:
            return Trainer(model, self.task, recovery.recipe).run(on_epoch)
        lesson = Lesson(model, self.dense, self.task, fading(recovery.kl, self._teaching), recovery.temperature)
        batches = with_teacher(self.dense, self.task, self.taught)
        return Trainer(model, self.task, recovery.recipe, lesson, batches).run(on_epoch)

    @cached_property
    def _teaching(self) -> str:
        return suited(self.task, self.dense)

    def timed(self, model: nn.Module, dense_onnx: Path, rounds: int = 15) -> tuple[Latency, float]:
        """Measured latency of a network beside the dense one's file, and the ratio of the files' sizes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(model, path, self.example)
            share = path.stat().st_size / dense_onnx.stat().st_size
            return measure({"dense": dense_onnx, "cut": path}, self.example, rounds)["cut"], share


def sample(task: Task, part: str = "train", batches: int = _SAMPLE) -> list[tuple[Any, Any]]:
    """A few batches as (inputs, target), as criteria take them."""
    found = []
    for _, batch in zip(range(batches), task.batches(part), strict=False):
        inputs: Any = batch.inputs if len(batch.inputs) > 1 else batch.inputs[0] if batch.inputs else dict(batch.named)
        found.append((inputs, batch.target))
    return found


def loss_of(task: Task) -> Callable[[Any, Any], Tensor]:
    """The task's loss of whatever a model gives, as criteria take it."""
    function = task.loss_function
    return lambda result, target: function(outputs_of(result), target)
