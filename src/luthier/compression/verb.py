"""The main job: a model, its data and a budget in; a front of smaller, faster, proven files out."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from torch import nn

from luthier import search
from luthier.compression.budget import Budget
from luthier.compression.finish import Publisher, kind_of, write_json, write_text
from luthier.compression.joint import JointObjective, Plans, baselines, line_of, measure_table, space
from luthier.compression.line import Line
from luthier.compression.result import Point, Result
from luthier.compression.settings import Settings, fingerprint
from luthier.errors import (
    BudgetError,
    CheckError,
    LuthierError,
    ObjectiveError,
    OutputError,
    StoreError,
    TraceError,
    UsageError,
)
from luthier.export.bundle import load, save
from luthier.export.onnx import OnnxCheck, export_onnx
from luthier.extras import need
from luthier.measure.latency import measure
from luthier.recipe import Recipe
from luthier.report import run_page
from luthier.stop.asha import ASHA
from luthier.study import Study, tune
from luthier.task import Task
from luthier.train import Trainer, progress_bar, validate
from luthier.trial import Trial
from luthier.words import number

VERSION = 1


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
        self.identity = fingerprint(model, task, budget.to_json(), settings)
        self._claim()

    def _claim(self) -> None:
        """Marks the folder as this run's.

        Raises:
            UsageError: it holds another run, or files that are none of ours.
        """
        marker = self.out / "settings.json"
        if marker.is_file():
            there = self._identity_there(marker)
            differing = [k for k in self.identity if there.get(k) != json.loads(json.dumps(self.identity[k]))]
            if differing:
                name = differing[0]
                raise UsageError(
                    f"the folder {str(self.out)!r} holds another run",
                    expected=f"{name} = {there.get(name)}",
                    got=f"{name} = {self.identity[name]}",
                    fix="choose another --out, or delete the folder",
                )
            return
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UsageError(
                f"{str(self.out)!r} is there already and is no run of Luthier's",
                expected="a new or empty folder",
                fix="choose another --out",
            )
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(marker, self.identity)
        except OSError as error:
            raise OutputError(f"the folder {str(self.out)!r} cannot be written", cause=error) from error

    def _identity_there(self, marker: Path) -> dict[str, Any]:
        try:
            there: dict[str, Any] = json.loads(marker.read_text())
            return there
        except ValueError as error:
            raise UsageError(
                f"{str(marker)!r} cannot be read",
                expected="what an earlier run wrote",
                cause=error,
                fix="choose another --out, or delete the folder",
            ) from error

    def _lock(self) -> FileLock:
        """Keeps every other process out of the folder, until this one ends, however it ends."""
        lock = FileLock(self.out / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"the folder {str(self.out)!r} is in use",
                cause="another process is compressing into it",
                fix="wait for it to end, or choose another --out",
            ) from None
        return lock

    def result(self, trials: int, timeout: float | None, workers: int) -> Result:
        """Runs every step that is not done yet; one process at a time."""
        with self._lock():
            return self._result(trials, timeout, workers)

    def _result(self, trials: int, timeout: float | None, workers: int) -> Result:
        done = self._finished(trials)
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

    def _finished(self, trials: int) -> Result | None:
        """The outcome of an earlier run of as many trials, if it is whole."""
        content = self.out / "run.json"
        try:
            old = json.loads(content.read_text())
            version = int(old["version"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there yet, or damaged: it is made again from the store
        if version > VERSION:
            raise UsageError(
                f"{str(content)!r} was written by a newer Luthier",
                expected=f"version {VERSION} or older",
                got=f"version {version}",
                fix="update Luthier, or choose another --out",
            )
        if version < VERSION or len(old["trials"]) < trials:
            return None
        found = read_result(old, self.out)
        there = [self.out / "report.html", *(p.path / "model.onnx" for p in (found.dense, *found.front))]
        return found if all(path.is_file() for path in there) else None

    def _dense(self) -> nn.Module:
        """The trained network: as given, or trained by the recipe and kept."""
        kept = self.out / "dense" / "model.luthier"
        dense = copy.deepcopy(self.model)
        if self.settings.recipe is None:
            return dense.eval()
        if kept.is_file():
            try:
                loaded = load(kept, into=dense).eval()
            except LuthierError as error:
                self.console.print(f"[bold]Dense[/]    trained again: {error.what}", highlight=False)
                dense = copy.deepcopy(self.model)
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
            "version": VERSION,
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
        write_text(self.out / "report.html", run_page(content))
        write_json(self.out / "run.json", content)
        publisher.tidy(points)
        return read_result(content, self.out)

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


def no_result(study: Study) -> ObjectiveError:
    """The error for a search in which no trial came to its end."""
    causes = Counter(t.cause for t in study.trials if t.cause)
    return ObjectiveError(
        "no trial came to its end",
        expected="at least one network",
        got=f"{len(study.trials)} trials that failed or were stopped",
        cause=causes.most_common(1)[0][0] if causes else None,
        fix="correct the cause, then choose a new --out",
    )


def choose(points: list[Point], dense: Point, budget: Budget, task: Task) -> Point | None:
    """Within the budget the best validation metric, then the fastest; None where no point is within."""
    name, sign = task.main.name, 1 if task.main.direction == "max" else -1
    within = [
        p
        for p in points
        if budget.meets(p.ratio)
        and (budget.loss is None or task.main.gain(p.valid[name], dense.valid[name]) >= -budget.loss)
    ]
    return min(within, key=lambda p: (-sign * p.valid[name], p.ratio["latency"]), default=None)


def note(best: Point | None, dense: Point, budget: Budget, task: Task) -> str:
    """The outcome in one plain sentence."""
    if best is None:
        wanted = str(budget)
        return f"No trial met the budget ({wanted}): keep the dense network, try more trials, or relax the budget."
    name = task.main.name
    lost = task.main.gain(best.metrics[name], dense.metrics[name])
    return (
        f"Best: {best.name}, {name} {best.metrics[name]:.4f} ({lost:+.4f} against dense) at {best.ratio['macs']:.2f} x "
        f"the MACs, {best.ratio['latency']:.2f} x the latency "
        f"[{best.ratio['latency_low']:.2f}, {best.ratio['latency_high']:.2f}], {number(best.cost['bytes'])}B."
    )


def from_scratch_note(value: float | None, best: Point, task: Task) -> str:
    """Whether the same widths trained from nothing do as well: then pruning only found the widths."""
    if value is None:
        return ""
    name = task.main.name
    lead = task.main.gain(best.valid[name], value)
    verdict = "the dense network's weights help" if lead > 0 else "a small network from the start would do as well"
    return (
        f" Trained from nothing, the same widths validate at {value:.4f} "
        f"(this file: {best.valid[name]:.4f}): {verdict}."
    )


def read_result(content: Mapping[str, Any], out: Path) -> Result:
    """The result that run.json describes."""
    points = tuple(Point.from_json(row, out) for row in content["front"])
    best = next((p for p in points if p.trial == content["best"]), None)
    dense = Point.from_json(content["dense"], out)
    return Result(dense, points, best, out / "report.html", content["settings"]["batch_size"], content["note"])


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
