"""Distillation: a student learns from a teacher's outputs and from the task."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from torch import nn

from luthier.checkpoint import OnEpoch, seeded
from luthier.devices import One, as_devices
from luthier.distillation.cache import as_cache, with_teacher
from luthier.distillation.disk import Cache
from luthier.distillation.lesson import Lesson, Weight, fading, suited
from luthier.distillation.taps import Tap
from luthier.distillation.teachers import as_several
from luthier.model.copies import copy_of
from luthier.model.keras import give_back, network_of
from luthier.progress import progress_bar
from luthier.recipe import Recipe
from luthier.surgery.plan import Plan
from luthier.task import Task
from luthier.train import Beside, Trainer

M = TypeVar("M")


def distill(
    student: M,
    teacher: nn.Module | Sequence[nn.Module],
    task: Task,
    *,
    losses: Mapping[str, Weight] | None = None,
    temperature: float = 4.0,
    taps: Sequence[Tap] | None = None,
    teacher_weights: Sequence[float] | None = None,
    cache: Cache | str | Path | None = None,
    checkpoint: str | Path | None = None,
    fabric: Any = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> M:
    """Trains a student on what its teacher says and on the task.

    Args:
        student: trained in place (or a result's ``.model`` is); any model with the teacher's output shape.
        teacher: not changed; or a result with ``.model``; or a list of several, see
            :class:`luthier.distillation.lesson.Lesson`.
        task: data, loss and metrics.
        losses: loss name -> weight; "task" is the task's own loss. See ``luthier methods``. Or name -> (weight, loss):
            a loss with settings of its own, or a function of (student's outputs, teacher's outputs). A weight may be a
            function of the share of steps done, such as :class:`luthier.distillation.Fade`. None: half KL (of tasks
            whose loss is "mse" or "l1", half MSE) and half the task's own at first, the task's own alone at the end, so
            that a teacher does not hold back a long run.
        temperature: softens the outputs in the losses that have one.
        taps: for losses of features: names of modules that both have, or pairs (student's, teacher's); None: after a
            cut what its plan says, else the outermost modules of the same name; only of those that run.
        teacher_weights: how much each of several teachers counts; None: all alike.
        cache: a folder where the teacher's outputs are kept between runs, or a :class:`luthier.distillation.Cache`;
            only for training data given as tensors, and, as a warning says, not beside losses of features, which need
            the teacher itself. None: they are computed once a run where the data allow it.
        checkpoint: a file to go on from after a kill, as in :func:`luthier.fit`.
        fabric: several devices, as in :func:`luthier.fit`.
        progress: whether to show a live bar.
        on_epoch: called after each epoch with its number and its scores, as in :func:`luthier.fit`.
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
    model = network_of(student)
    as_several([model])
    teachers = [copy_of(t).eval().requires_grad_(False) for t in as_several(teacher)]
    recipe, devices = Recipe.of(settings), as_devices(fabric)
    if fabric is not None:
        for network in (model, *teachers):
            network.to(fabric.device)
    losses = losses or fading(0.5, suited(task, teachers[0]))
    with seeded(recipe.seed):
        plan = getattr(student, "plan", None)
        plan = plan if isinstance(plan, Plan) else None
        lesson = Lesson(model, teachers, task, losses, temperature, taps, teacher_weights, plan)
    share = (devices or One()).loader
    tell_size = Console(stderr=True).print if progress else None
    taught = None
    if lesson.needs_teacher and cache is not None:
        warnings.warn(
            "the cache is not used: losses of features need the teacher itself on every batch; "
            "losses of outputs alone (such as kl) need only what is stored",
            stacklevel=2,
        )
    if not lesson.needs_teacher:
        taught = with_teacher(teachers, task, cache=as_cache(cache), prepare=share, tell=tell_size)
    beside = Beside(lesson.maps, checkpoint, devices)
    with lesson.open(), progress_bar(recipe.epochs, task.main.name, progress, title="distilling") as tell:
        Trainer(model, task, recipe, lesson, taught, beside).run(on_epoch, tell)
    give_back(model, student)
    return student
