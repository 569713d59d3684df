"""Distillation: a student learns from a teacher's outputs and from the task."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from luthier.distillation.cache import with_teacher
from luthier.distillation.lesson import DEFAULT, Lesson
from luthier.distillation.taps import Tap
from luthier.errors import UsageError
from luthier.recipe import Recipe
from luthier.task import Task
from luthier.train import OnEpoch, Trainer, both, progress_bar, seeded

M = TypeVar("M")


def distill(
    student: M,
    teacher: nn.Module,
    task: Task,
    *,
    losses: Mapping[str, float] | None = None,
    temperature: float = 4.0,
    taps: Sequence[Tap] | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> M:
    """Trains a student on what its teacher says and on the task.

    Args:
        student: trained in place (or a result's ``.model`` is); any model with the teacher's output shape.
        teacher: not changed; or a result with ``.model``.
        task: data, loss and metrics.
        losses: loss name -> weight; "task" is the task's own loss. See ``luthier methods``.
        temperature: softens the outputs in the losses that have one.
        taps: for losses of features: names of modules that both have, or pairs (student's, teacher's); None: the
            outermost modules of the same name.
        progress: whether to show a live bar.
        on_epoch: called after each epoch with its number and its scores.
        settings: how to train, see :class:`luthier.recipe.Recipe`.

    Returns:
        the student, in evaluation mode, at the epoch that validated best.

    Raises:
        UsageError: an unknown loss or setting, or different output shapes.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 2); y = (x.sum(1) > 0).long()
        >>> task = Task(train=(x, y), valid=(x, y))
        >>> teacher = nn.Linear(2, 2)
        >>> how = {"epochs": 40, "lr": 0.1, "keep": "last", "progress": False}
        >>> student = distill(nn.Linear(2, 2), teacher, task, losses={"kl": 1.0}, **how)
        >>> bool((student(x).argmax(1) == teacher(x).argmax(1)).float().mean() > 0.9)
        True
    """
    model = getattr(student, "model", student)
    source = getattr(teacher, "model", teacher)
    if not isinstance(source, nn.Module) or not isinstance(model, nn.Module):
        raise UsageError(
            "distillation needs two torch modules",
            expected="distill(student, teacher, task, ...)",
            got=f"{type(model).__name__} and {type(source).__name__}",
        )
    frozen = copy.deepcopy(source).eval().requires_grad_(False)
    recipe = Recipe.of(settings)
    with seeded(recipe.seed):
        lesson = Lesson(model, frozen, task, losses or DEFAULT, temperature, taps)
    batches = None if lesson.needs_teacher else with_teacher(frozen, task)
    with lesson.open(), progress_bar(recipe.epochs, task.main.name, progress, title="distilling") as tell:
        Trainer(model, task, recipe, lesson, batches, lesson.maps).run(on_epoch=both(tell, on_epoch))
    return student
