"""Distillation: a student learns from a teacher's outputs and from the task."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from luthier.distillation import losses as distillation_losses
from luthier.distillation.cache import teach, with_teacher
from luthier.errors import UsageError, unknown
from luthier.measure.quality import outputs_of
from luthier.task import Batch, Task
from luthier.train import OnEpoch, Recipe, StepLoss, Trainer, both, progress_bar

M = TypeVar("M", bound=nn.Module)
DEFAULT = {"kl": 0.9, "task": 0.1}


def distillation_loss(teacher: nn.Module, task: Task, weights: Mapping[str, float], temperature: float) -> StepLoss:
    """The weighted sum of distillation losses and the task's own loss, as one function of a model and a batch.

    Args:
        teacher: asked where a batch does not bring its outputs along.
        task: whose loss "task" names.
        weights: loss name -> weight >= 0, at least one positive.
        temperature: of the losses that have one.

    Raises:
        UsageError: an unknown loss or a weight out of range.
    """
    known = ["task", *distillation_losses.names()]
    for name, weight in weights.items():
        if name not in known:
            raise unknown("distillation loss", name, known)
        if not 0 <= weight < float("inf"):
            raise UsageError(f"the weight of loss {name!r} is out of range", expected="weight >= 0", got=weight)
    if not any(weights.values()):
        raise UsageError("no distillation loss has a weight", expected=str(DEFAULT), got=dict(weights))
    parts = {n: distillation_losses.get(n, temperature) for n, w in weights.items() if n != "task" and w > 0}

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        outputs = outputs_of(model(*batch.inputs))
        taught = teach(teacher, batch) if batch.teacher is None else batch.teacher
        _check_shapes(outputs, taught)
        total = torch.zeros((), device=outputs.device)
        for name, part in parts.items():
            total = total + weights[name] * part(outputs, taught)
        if weights.get("task", 0) > 0:
            total = total + weights["task"] * task.loss_function(outputs, batch.target)
        return total

    return loss


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise UsageError(
            "student and teacher give outputs of different shapes",
            expected=f"{tuple(teacher.shape)}, as the teacher",
            got=tuple(student.shape),
            cause="another number of classes",
        )


def distill(
    student: M,
    teacher: nn.Module,
    task: Task,
    *,
    losses: Mapping[str, float] | None = None,
    temperature: float = 4.0,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> M:
    """Trains a student on what its teacher says and on the task.

    Args:
        student: trained in place; any model with the teacher's output shape, cut from it or not.
        teacher: not changed; or a result with ``.model``.
        task: data, loss and metrics.
        losses: loss name -> weight; "task" is the task's own loss. See ``luthier methods``.
        temperature: softens the outputs in the losses that have one.
        progress: whether to show a live bar.
        on_epoch: called after each epoch with its number and its scores.
        settings: how to train, see :class:`luthier.train.Recipe`.

    Returns:
        the student, in evaluation mode, at the epoch that validated best.

    Raises:
        UsageError: an unknown loss or setting, or different output shapes.

    Example:
        >>> x = torch.randn(64, 2); y = (x.sum(1) > 0).long()
        >>> task = Task(train=(x, y), valid=(x, y))
        >>> teacher = nn.Linear(2, 2)
        >>> student = distill(nn.Linear(2, 2), teacher, task, losses={"kl": 1.0}, epochs=40, lr=0.1, progress=False)
        >>> bool((student(x).argmax(1) == teacher(x).argmax(1)).float().mean() > 0.9)
        True
    """
    model = getattr(student, "model", student)
    frozen = copy.deepcopy(getattr(teacher, "model", teacher)).eval().requires_grad_(False)
    recipe = Recipe.of(settings)
    loss = distillation_loss(frozen, task, losses or DEFAULT, temperature)
    with progress_bar(recipe.epochs, task.main.name, progress, title="distilling") as tell:
        trainer = Trainer(model, task, recipe, loss, with_teacher(frozen, task))
        trainer.run(on_epoch=both(tell, on_epoch))
    return model
