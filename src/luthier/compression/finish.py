"""From trials to files: every point of the front exported, measured and proven."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from luthier.checkpoint import seeded
from luthier.compression.joint import recovery_of
from luthier.compression.line import Line
from luthier.compression.result import Point
from luthier.errors import CheckError, ObjectiveError, StoreError
from luthier.export.bundle import load, load_plan
from luthier.export.onnx import OnnxCheck, export_onnx
from luthier.files import write_json
from luthier.measure.latency import Latency, measure
from luthier.metrics import Area, Classification
from luthier.model.cost import count_macs, count_parameters
from luthier.surgery import Plan, Proof, Pruned
from luthier.task import Task
from luthier.train import validate
from luthier.trial import Trial

_ROUNDS = 41


def kind_of(params: Mapping[str, Any]) -> str:
    """How a trial trained back."""
    return "distilled" if params.get("distill") else "pruned"


class Publisher:
    """Makes the folders of a run's points.

    Args:
        line: of the dense network.
        task: data and metrics.
        out: the run's folder.
        trials: where trials left their networks.
    """

    def __init__(self, line: Line, task: Task, out: Path, trials: Path) -> None:
        self.line, self.task, self.out, self.trials = line, task, out, trials

    def dense(self, check: OnnxCheck) -> Point:
        """The dense network as a point, not yet timed."""
        cost = self._counts(self.line.dense, check)
        return Point("dense", None, check.path.parent, {}, validate(self.line.dense, self.task), {}, cost, {})

    def point(self, trial: Trial) -> Point:
        """Exports and proves a trial's network; its folder is there whole or not at all.

        Raises:
            CheckError: a proof failed.
            StoreError: the trial's network is not there.
        """
        folder = self.out / f"point-{trial.number:02d}"
        draft = self.out / f".point-{trial.number:02d}.{os.getpid()}.tmp"
        source = self._file(trial)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        shutil.copyfile(source, draft / "model.luthier")
        model = load(source)
        onnx = export_onnx(model, draft / "model.onnx", self.line.example)
        again = self._cut_again(trial)
        write_json(draft / "plan.json", again.plan.to_json())
        valid = validate(model, self.task)
        checks = [*again.check, _onnx_check(onnx), self._metric_check(valid[self.task.main.name], onnx.path)]
        failed = [check for check in checks if not check.passed]
        if failed:
            raise CheckError(f"trial {trial.number} failed the proof {failed[0].name!r}", got=failed[0].error)
        cost = self._counts(model, onnx)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
        return Point(
            kind_of(trial.params),
            trial.number,
            folder,
            trial.params,
            valid,
            {},
            cost,
            {},
            _cuts(again.plan),
            tuple(checks),
        )

    def _cut_again(self, trial: Trial) -> Pruned:
        """Cuts the dense network by the plan that the trial's file holds, for the proof of that very plan."""
        plan = load_plan(self._file(trial))
        return self.line.cut(plan.groups if plan is not None else {})

    def _file(self, trial: Trial) -> Path:
        source = self.trials / f"trial-{trial.number:04d}.luthier"
        if not source.is_file():
            raise StoreError(f"the network of trial {trial.number} is gone", expected=source, got="no such file")
        return source

    def _metric_check(self, torch_value: float, onnx: Path) -> Proof:
        """The main metric through the file may differ by a thousandth; where answers count, by one that ties."""
        name = self.task.main.name
        file_value = validate(onnx, self.task)[name]
        limit = max(1e-3 * abs(torch_value), 1.5 / self._examples if self._counts_answers else 0.0)
        detail = f"{name} {torch_value:.4f} in torch, {file_value:.4f} through the file"
        return Proof("metric through ONNX", abs(file_value - torch_value), limit, detail)

    @property
    def _counts_answers(self) -> bool:
        """Whether the main metric counts right answers, so that one of them weighs about 1 / n."""
        return isinstance(self.task.main.function, Classification | Area)

    @cached_property
    def _examples(self) -> int:
        return sum(batch.size for batch in self.task.batches("valid"))

    def _counts(self, model: nn.Module, onnx: OnnxCheck) -> dict[str, float]:
        one = tuple(x[:1] for x in self.line.example)
        return {"parameters": count_parameters(model), "macs": count_macs(model, one), "bytes": onnx.bytes}

    def from_scratch(self, trial: Trial, seed: int) -> float | None:
        """The main metric, on the validation data, of the same widths trained from nothing with the trial's settings.

        Whether what was kept of the dense network's weights is worth anything.

        Returns:
            None where the network has parts that cannot be initialised anew, or where training diverges.
        """
        fresh = self._cut_again(trial).model
        if not start_over(fresh, seed):
            return None
        try:
            self.line.recover(fresh, recovery_of(trial.params, seed))
        except ObjectiveError:
            return None
        return validate(fresh, self.task)[self.task.main.name]

    def timed(self, dense: Point, points: Sequence[Point]) -> list[Point]:
        """All points with their latencies, measured side by side in turn."""
        files = {p.name: p.path / "model.onnx" for p in (dense, *points)}
        latency = measure(files, self.line.example, _ROUNDS)
        return [_with_costs(p, dense, latency[p.name]) for p in (dense, *points)]

    def tested(self, point: Point) -> Point:
        """The point with its metrics on the test data, through its ONNX file; metrics.json written."""
        test = {}
        if self.task.test is not None:
            test = validate(point.path / "model.onnx", self.task, "test")
        done = replace(point, test=test)
        write_json(point.path / "metrics.json", done.to_json())
        return done

    def tidy(self, points: Sequence[Point]) -> None:
        """Removes folders of points that are no longer on the front, and drafts of runs that were killed."""
        kept = {point.path for point in points}
        for folder in (*self.out.glob("point-*"), *self.out.glob(".point-*.tmp")):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _cuts(plan: Plan) -> tuple[Mapping[str, Any], ...]:
    """Every width before and after."""
    return tuple(
        {"name": name, "before": size, "after": len(plan.groups[name]) if name in plan.groups else size}
        for name, size in plan.sizes.items()
    )


def start_over(model: nn.Module, seed: int) -> bool:
    """Draws every parameter anew, in place, by its module's own rule; False where a module has none."""
    owners = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    if not all(hasattr(m, "reset_parameters") for m in owners):
        return False
    with seeded(seed):
        for owner in owners:
            owner.reset_parameters()  # type: ignore[operator]
    return True


def _onnx_check(onnx: OnnxCheck) -> Proof:
    sizes = ", ".join(map(str, onnx.batch_sizes))
    return Proof("ONNX Runtime == torch", onnx.error, onnx.limit, f"relative error over batches of {sizes}")


def _with_costs(point: Point, dense: Point, latency: Latency) -> Point:
    cost = {**point.cost, "latency_ms": latency.ms, "latency_low": latency.low, "latency_high": latency.high}
    ratio = {name: point.cost[name] / dense.cost[name] for name in point.cost}
    ratio |= {"latency": latency.ratio, "latency_low": latency.ratio_low, "latency_high": latency.ratio_high}
    return replace(point, cost=cost, ratio=ratio)
