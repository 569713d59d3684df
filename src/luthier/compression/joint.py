"""The joint search: training, pruning and distillation settings at once, several objectives, cheap steps first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from luthier.compression.budget import Budget
from luthier.compression.line import Line, Recovery
from luthier.compression.settings import Settings
from luthier.errors import BudgetError
from luthier.export.bundle import save
from luthier.keys import Key
from luthier.measure.latency import Latency
from luthier.model.cost import count_macs
from luthier.recipe import Recipe
from luthier.space import Choice, Float, Int, Params, Space
from luthier.task import Task
from luthier.train import validate

CRITERIA = ("auto", "l1", "taylor", "activation")
_SLACK = 1.08  # a predicted cost may be this much over the budget: predictions err, measurements decide
_SAFE = 0.94  # a first guess should be this much under it
_PROBES = (0.3, 0.6)


@dataclass(frozen=True)
class CostTable:
    """Measured latencies of uniform cuts, to predict a plan's before it is built.

    Attributes:
        macs: ratios to dense, rising, shape (k,).
        latency: measured ratios to dense, shape (k,).
    """

    macs: tuple[float, ...]
    latency: tuple[float, ...]

    def predict(self, macs: float) -> float:
        """Latency ratio at a ratio of MACs, by linear interpolation."""
        return float(np.interp(macs, self.macs, self.latency))


def measure_table(line: Line, dense_onnx: Path, settings: Settings) -> CostTable:
    """Cuts every stage alike at a few ratios and measures each."""
    rows = {1.0: 1.0}
    for ratio in (*_PROBES, settings.max_ratio):
        keep = line.widths(dict.fromkeys(line.families, ratio))
        rows[line.predicted(keep)["macs"]] = line.timed(line.cut(keep, repaired=False).model, dense_onnx)[0].ratio
    macs = sorted(rows)
    return CostTable(tuple(macs), tuple(rows[m] for m in macs))


@dataclass(frozen=True)
class Plans:
    """Which settings are worth a trial: a picklable predicate over parameters.

    Attributes:
        line: predicts MACs and parameters of a plan.
        table: predicts its latency from these.
        budget: what both are held against.
    """

    line: Line
    table: CostTable
    budget: Budget
    known: dict[tuple[float, ...], bool] = field(default_factory=dict)

    def costs(self, by_family: Mapping[str, float]) -> dict[str, float]:
        """Predicted ratios to dense; bytes go with parameters."""
        shares = self.line.predicted(self.line.widths(by_family))
        return {**shares, "bytes": shares["parameters"], "latency": self.table.predict(shares["macs"])}

    def _meets(self, by_family: Mapping[str, float], slack: float) -> bool:
        costs = self.costs(by_family)
        loose = {name: costs[name] / (slack if name in ("latency", "bytes") else 1.0) for name in costs}
        return self.budget.meets(loose)

    def within_budget(self, params: Params) -> bool:
        """Whether a plan may meet the budget."""
        ratios = tuple(params[name_of(family)] for family in self.line.families)
        if ratios not in self.known:
            self.known[ratios] = self._meets(dict(zip(self.line.families, ratios, strict=True)), _SLACK)
        return self.known[ratios]

    def start(self, max_ratio: float) -> dict[str, float]:
        """Stage -> ratio of the smallest cut that is predicted to meet the budget, spread as the allocation says.

        Raises:
            BudgetError: not even the largest ratio does.
        """
        largest = dict.fromkeys(self.line.families, max_ratio)
        for slack in (_SAFE, 1.0):
            if self._meets(largest, slack):
                return self._smallest(largest, slack)
        costs = self.costs(largest)
        missed = next(n for n, limit in self.budget.costs.items() if costs[n] > limit)
        reached = self.table.latency[0] if missed == "latency" else costs[missed]
        raise BudgetError(
            f"the budget for {missed} cannot be met",
            expected=f"{missed} <= {self.budget.costs[missed]:g} of the dense network's",
            got=f"{reached:.3f} with {max_ratio:.0%} of every stage removed, the smallest network allowed",
            cause="too tight a budget, or layers that cannot be cut (see `luthier profile`)",
            fix=f"--budget {missed}={min(max(reached * 1.2, 0.02), 1.0):.2f} or more, or a larger latency batch size",
        )

    def _smallest(self, largest: dict[str, float], slack: float) -> dict[str, float]:
        """By bisection on the MACs left; the largest cut where no balanced one meets the budget."""
        best, low, high = largest, self.costs(largest)["macs"], 1.0
        for _ in range(8):
            middle = (low + high) / 2
            try:
                found = {f: min(share, largest[f]) for f, share in self.line.balanced(middle).items()}
            except BudgetError:
                low = middle
                continue
            if self._meets(found, slack):
                best, low = found, middle
            else:
                high = middle
        return best


def name_of(family: str) -> str:
    """The search parameter that holds a stage's ratio."""
    return f"ratio_{family}"


def space(plans: Plans, settings: Settings) -> Space:
    """Training, pruning and distillation settings, without the plans that cannot meet the budget."""
    few, many = settings.epochs
    return Space(
        {
            **{name_of(f): Float(0.0, settings.max_ratio) for f in plans.line.families},
            "criterion": Choice(list(CRITERIA) if settings.criterion == "auto" else [settings.criterion]),
            "lr": Float(2e-4, 1e-2, log=True),
            "weight_decay": Float(1e-4, 0.2, log=True),
            "epochs": Int(few, many),
            "distill": Choice([True, False]),
            "kl": Float(0.1, 0.95).when(distill=True),
            "temperature": Float(1.0, 8.0, log=True).when(distill=True),
        },
        where=[plans.within_budget],
    )


def baselines(plans: Plans, settings: Settings) -> list[Params]:
    """What a careful engineer would try first: the smallest cut that fits, with and without a teacher; and a cut
    half-way to the largest.
    """
    start = plans.start(settings.max_ratio)
    plain = {"criterion": settings.criterion, "lr": 1e-3, "weight_decay": 0.01, "epochs": settings.epochs[1]}
    teacher = {"distill": True, "kl": 0.5, "temperature": 4.0}
    smaller = {family: ratio + (settings.max_ratio - ratio) / 2 for family, ratio in start.items()}
    return [
        {**{name_of(f): ratio for f, ratio in ratios.items()}, **plain, **how}
        for ratios, how in ((start, teacher), (start, {"distill": False}), (smaller, teacher))
    ]


@dataclass
class JointObjective:
    """One trial: cut, measure, and, within the budget, train back.

    Attributes:
        dense: the trained network.
        task: data, loss and metrics.
        budget: a cut network over it is not trained.
        settings: of the run.
        folder: where trials leave their networks.
        dense_onnx: the dense network's file, to time beside.
        dense_ms: its latency; a cut network's is the measured ratio times this.
    """

    dense: nn.Module
    task: Task
    budget: Budget
    settings: Settings
    folder: Path
    dense_onnx: Path
    dense_ms: float
    _line: Line | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_line": None}

    @property
    def line(self) -> Line:
        """Made once a process: traces and scores are shared by its trials."""
        if self._line is None:
            self._line = line_of(self.dense, self.task, self.settings, self.folder.parent)
        return self._line

    def __call__(self, trial: Any) -> dict[str, float]:
        """Runs a trial; see :func:`luthier.tune`."""
        line, params = self.line, trial.params
        keep = line.keep({f: params[name_of(f)] for f in line.families}, params["criterion"])
        pruned = line.cut(keep)
        costs = self._costs(pruned.model, line.predicted(keep), *line.timed(pruned.model, self.dense_onnx))
        scores = validate(pruned.model, self.task)
        trial.report(0, **scores, **costs)
        if self.budget.meets({name: costs[f"{name}_ratio"] for name in self.budget.costs}):
            recovery = recovery_of(params, Key(self.settings.seed, trial.number).integer("recovery", 31))
            line.recover(pruned.model, recovery, lambda epoch, s: trial.report(epoch, **s, **costs))
            scores = validate(pruned.model, self.task)
            save(pruned, self.folder / f"trial-{trial.number:04d}.luthier")
        return {**scores, **costs}

    def _costs(self, model: nn.Module, shares: Mapping[str, float], latency: Latency, size: float) -> dict[str, float]:
        return {
            "latency_ms": latency.ratio * self.dense_ms,
            "latency_ratio": latency.ratio,
            "macs_ratio": shares["macs"],
            "parameters_ratio": shares["parameters"],
            "bytes_ratio": size,
            "macs": float(count_macs(model, tuple(x[:1] for x in self.line.example))),
        }


def line_of(dense: nn.Module, task: Task, settings: Settings, folder: Path) -> Line:
    """The line of a run, whose sensitivity map lies in its folder."""
    cache = folder / "sensitivity.json"
    return Line(dense, task, settings.batch_size, settings.multiple, settings.allocate, cache)


def recovery_of(params: Mapping[str, Any], seed: int) -> Recovery:
    """A trial's way of training back."""
    recipe = Recipe(epochs=params["epochs"], lr=params["lr"], weight_decay=params["weight_decay"], seed=seed)
    return Recovery(recipe, params.get("kl", 0.0), params.get("temperature", 4.0))
