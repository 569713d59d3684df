"""The main job: a model, its data and a budget in; a front of smaller, faster, proven files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from luthier import search
from luthier.compression.budget import Budget
from luthier.compression.finish import Publisher, kind_of
from luthier.compression.folder import RunFolder
from luthier.compression.joint import JointObjective, Plans, baselines, line_of, measure_table, space
from luthier.compression.line import Line
from luthier.compression.result import Point, Result
from luthier.compression.settings import Settings, fingerprint
from luthier.compression.verdict import choose, from_scratch_note, no_result, note
from luthier.errors import (
    BudgetError,
    CheckError,
    LuthierError,
    StoreError,
    TraceError,
    UsageError,
)
from luthier.export.bundle import load, save
from luthier.export.onnx import OnnxCheck, export_onnx
from luthier.extras import need
from luthier.measure.latency import measure
from luthier.model.copies import copy_of
from luthier.model.keras import network_of
from luthier.progress import progress_bar
from luthier.recipe import Recipe
from luthier.stop.asha import ASHA
from luthier.study import Study, tune
from luthier.task import Task
from luthier.train import Trainer, validate
from luthier.trial import Trial


def compress(
    model: nn.Module,
    task: Task,
    *,
    budget: Mapping[str, float],
    trials: int = 30,
    timeout: float | None = None,
    workers: int = 1,
    out: str | Path,
    **settings: Any,
) -> Result:
    """Searches training, pruning and distillation settings together for a front of smaller, faster, proven files.

    Args:
        model: a trained network (or one that ``recipe=`` trains first); not changed.
        task: data, loss and metrics; the first metric is the one to keep.
        budget: costs as shares of the dense network's ("latency", "macs", "parameters", "bytes"), and how much the
            main metric may change (``{"accuracy": -0.01}``).
        trials: how many networks to try in all; running again with the same ``out`` goes on.
        timeout: seconds for the search in all, earlier runs included; running trials end at their next report.
        workers: how many trials run at a time.
        out: a folder for the files; a run that stopped half-way goes on from there.
        settings: see :class:`luthier.compression.settings.Settings`: recipe, batch_size, multiple, seed, ...

    Returns:
        the front, the best point, and the path of report.html.

    Raises:
        UsageError: an unknown setting or budget, or a folder that holds another run.
        BudgetError: the smallest network that can be cut is still over the budget.
        TraceError: the model cannot be captured or exported.
    """
    model = network_of(model)
    if not isinstance(model, nn.Module) or not isinstance(task, Task):
        raise UsageError(
            "compress needs a torch.nn.Module and a luthier.Task", got=f"{type(model).__name__}, {type(task).__name__}"
        )
    for name, value in (("trials", trials), ("workers", workers)):
        if type(value) is not int or value < 1:
            raise UsageError(f"{name!r} is out of range", expected="a whole number >= 1", got=repr(value))
    chosen = Settings.of(settings)
    search.get(chosen.algorithm)
    limits = Budget.of(budget, task.main)
    for module, extra in (("onnxruntime", "onnx"), ("onnxscript", "onnx"), ("plotly", "plot")):
        need(module, extra, "compress")
    run = Run(model, task, limits, chosen, Path(out))
    return run.result(trials, timeout, workers)


class Run:
    """A compression run in a folder of its own; what was trained, tried and proven before is not done again."""

    def __init__(self, model: nn.Module, task: Task, budget: Budget, settings: Settings, out: Path) -> None:
        self.model, self.task, self.budget, self.settings, self.out = model, task, budget, settings, out
        self.console = Console(quiet=not settings.progress, soft_wrap=True)
        self.folder = RunFolder(out, fingerprint(model, task, budget.to_json(), settings))

    def result(self, trials: int, timeout: float | None, workers: int) -> Result:
        """Runs every step that is not done yet; one process at a time."""
        with self.folder.locked():
            return self._result(trials, timeout, workers)

    def _result(self, trials: int, timeout: float | None, workers: int) -> Result:
        done = self.folder.finished(trials)
        if done is not None:
            self.console.print(f"[bold]Done[/]     {trials} trials, earlier; nothing left to do", highlight=False)
            return done
        line = line_of(self._dense(), self.task, self.settings, self.out)
        onnx = self._dense_onnx(line)
        plans = self._plans(line, onnx.path)
        study = self._search(line, plans, onnx.path, trials, timeout, workers)
        if study.interrupted:
            raise KeyboardInterrupt
        if not study.ranking:
            raise no_result(study)
        return self._finish(line, study, onnx)

    def _dense(self) -> nn.Module:
        """The trained network: as given, or trained by the recipe and kept."""
        kept = self.out / "dense" / "model.luthier"
        dense = copy_of(self.model)
        if self.settings.recipe is None:
            return dense.eval()
        if kept.is_file():
            try:
                loaded = load(kept, into=dense).eval()
            except LuthierError as error:
                self.console.print(f"[bold]Dense[/]    trained again: {error.what}", highlight=False)
                dense = copy_of(self.model)
            else:
                self.console.print(f"[bold]Dense[/]    already trained ({kept})", highlight=False)
                return loaded
        recipe = Recipe.of(self.settings.recipe)
        with progress_bar(recipe.epochs, self.task.main.name, self.settings.progress, "Dense    training") as tell:
            Trainer(dense, self.task, recipe).run(tell)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save(dense, kept, inputs=self.task.example())
        return dense

    def _dense_onnx(self, line: Line) -> OnnxCheck:
        check = export_onnx(line.dense, self.out / "dense" / "model.onnx", line.example)
        main = self.task.main.name
        self.console.print(
            f"[bold]Dense[/]    validation {main} {validate(line.dense, self.task)[main]:.4f}; {check}", highlight=False
        )
        return check

    def _plans(self, line: Line, dense_onnx: Path) -> Plans:
        """Measures the cost table and checks that the budget can be met at all."""
        coverage = line.analysis.coverage
        if not line.families:
            raise BudgetError(
                "nothing in this network can be cut",
                got=str(coverage),
                fix="see what blocks it with `luthier profile`",
            )
        table = measure_table(line, dense_onnx, self.settings)
        pairs = ", ".join(f"{m:.2f} -> {t:.2f}" for m, t in zip(table.macs, table.latency, strict=True))
        self.console.print(
            f"[bold]Axes[/]     {len(line.analysis.groups)} widths in {len(line.families)} stages "
            f"({', '.join(line.families)}); {coverage}",
            highlight=False,
        )
        self.console.print(f"[bold]Costs[/]    measured, MACs -> latency (ratios): {pairs}", highlight=False)
        if line.sensitivity is not None:
            self.console.print("[bold]Removal[/]  of each width alone, on validation data:", highlight=False)
            self.console.print(str(line.sensitivity), highlight=False, markup=False)
        plans = Plans(line, table, self.budget)
        plans.start(self.settings.max_ratio)
        return plans

    def _search(
        self, line: Line, plans: Plans, dense_onnx: Path, trials: int, timeout: float | None, workers: int
    ) -> Study:
        dense_ms = measure({"dense": dense_onnx}, line.example)["dense"].ms
        folder = self.out / "trials"
        folder.mkdir(exist_ok=True)
        objective = JointObjective(line.dense, self.task, self.budget, self.settings, folder, dense_onnx, dense_ms)
        self.console.print(
            f"[bold]Search[/]   {trials} trials on {workers} worker{'s' * (workers > 1)}; latency on batches of "
            f"{self.settings.batch_size}, 1 thread (dense: {dense_ms:.3f} ms)",
            highlight=False,
        )
        main = self.task.main
        return tune(
            objective,
            space(plans, self.settings),
            objectives={main.name: main.direction, "latency_ratio": "min"},
            constraints={f"{name}_ratio": f"<= {limit}" for name, limit in self.budget.costs.items()},
            algorithm=self.settings.algorithm,
            stop=ASHA(min_steps=1, max_steps=self.settings.epochs[1]),
            trials=trials,
            timeout=timeout,
            workers=workers,
            store=self.out / "study.db",
            name="compress",
            seed=self.settings.seed,
            first=baselines(plans, self.settings),
            progress=self.settings.progress,
        )

    def _finish(self, line: Line, study: Study, onnx: OnnxCheck) -> Result:
        front = study.front
        publisher = Publisher(line, self.task, self.out, self.out / "trials")
        points, refused = self._proven(publisher, front)
        dense, *points = [publisher.tested(p) for p in publisher.timed(publisher.dense(onnx), points)]
        best = choose(points, dense, self.budget, self.task)
        text = note(best, dense, self.budget, self.task) + refused
        if best is not None:
            self.console.print(f"[bold]Compare[/]  the widths of {best.name}, trained from nothing")
            trial = next(t for t in front if t.number == best.trial)
            text += from_scratch_note(publisher.from_scratch(trial, self.settings.seed), best, self.task)
        content = {
            "title": type(self.model).__name__,
            "settings": {**asdict(self.settings), "budget": self.budget.to_json()},
            "metric": {"name": self.task.main.name, "direction": self.task.main.direction},
            "dense": dense.to_json(),
            "front": [p.to_json() for p in points],
            "best": best.trial if best else None,
            "note": text,
            "sensitivity": line.sensitivity.to_json() if line.sensitivity is not None else None,
            "trials": [_row(t, study) for t in study.trials],
        }
        result = self.folder.finish(content)
        publisher.tidy(points)
        return result

    def _proven(self, publisher: Publisher, front: Sequence[Trial]) -> tuple[list[Point], str]:
        """The points that pass every proof; and a sentence on those that do not, which get no files."""
        points, refused = [], ""
        for i, trial in enumerate(front):
            self.console.print(f"[bold]Proving[/]  trial {trial.number} ({i + 1} of {len(front)})", highlight=False)
            try:
                points.append(publisher.point(trial))
            except (CheckError, StoreError, TraceError) as error:
                self.console.print(f"[red]{error}[/]", highlight=False)
                refused += f" Trial {trial.number} is left out: {error.what}."
        return points, refused


def _row(trial: Trial, study: Study) -> dict[str, Any]:
    """A trial for the report: what it tried, how its curve went, how it ended."""
    return {
        "number": trial.number,
        "kind": kind_of(trial.params),
        "status": trial.status.value,
        "feasible": study.objectives.violation(trial.metrics) <= 0,
        "params": dict(trial.params),
        "metrics": dict(trial.metrics),
        "curve": [{"step": r.step, **r.metrics} for r in trial.reports],
        "cause": trial.cause,
        "seconds": trial.seconds,
    }
