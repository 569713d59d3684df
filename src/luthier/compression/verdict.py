"""What a compression run says of its outcome: which point is the best, and what a reader should know."""

from __future__ import annotations

from collections import Counter

from luthier.compression.budget import Budget
from luthier.compression.result import Point
from luthier.errors import ObjectiveError
from luthier.study import Study
from luthier.task import Task
from luthier.words import number


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
