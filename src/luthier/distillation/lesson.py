"""A lesson: the weighted sum of distillation losses and the task's own loss, as one function of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from luthier.distillation import losses as distillation_losses
from luthier.distillation.cache import teach
from luthier.distillation.losses import DistillationLoss
from luthier.distillation.taps import Maps, Tap, Taps, read_taps
from luthier.errors import UsageError, unknown
from luthier.measure.quality import outputs_of
from luthier.model.trace import evaluating
from luthier.task import Batch, Task, device_of

DEFAULT = {"kl": 0.9, "task": 0.1}


def read_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Loss name -> weight, those without weight left out.

    Raises:
        UsageError: an unknown loss, a weight out of range, or none left.
    """
    known = ["task", *distillation_losses.names()]
    for name, weight in weights.items():
        if name not in known:
            raise unknown("distillation loss", name, known)
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise UsageError(f"the weight of loss {name!r} is out of range", expected="weight >= 0", got=repr(weight))
    used = {name: weight for name, weight in weights.items() if weight > 0}
    if not used:
        raise UsageError("no distillation loss has a weight", expected=str(DEFAULT), got=dict(weights))
    return used


class Lesson:
    """What a student is trained by.

    Args:
        student: the network that learns.
        teacher: asked where a batch does not bring its outputs along, or where features are compared.
        task: whose loss "task" names.
        weights: loss name -> weight.
        temperature: of the losses that have one.
        taps: which modules' features are compared, see :func:`luthier.distillation.taps.read_taps`.

    Raises:
        UsageError: an unknown loss or module, or a weight out of range.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        task: Task,
        weights: Mapping[str, float],
        temperature: float = 4.0,
        taps: Sequence[Tap] | None = None,
    ) -> None:
        self.teacher, self.task = teacher, task
        self.weights = read_weights(weights)
        parts = {n: distillation_losses.get(n, temperature) for n in self.weights if n != "task"}
        self.features = {n: p for n, p in parts.items() if p.sees == "features"}
        self.outputs = {n: p for n, p in parts.items() if p.sees != "features"}
        self.pairs = read_taps(student, teacher, taps) if self.features else ()
        self._student_taps = Taps(student, [s for s, _ in self.pairs])
        self._teacher_taps = Taps(teacher, [t for _, t in self.pairs])
        self.maps = self._make_maps(student) if any(hasattr(p, "maps") for p in self.features.values()) else None

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher has to run on every batch, cached outputs or not."""
        return bool(self.features)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Taps are in place inside."""
        with self._student_taps, self._teacher_taps:
            yield

    @torch.no_grad()
    def _make_maps(self, student: nn.Module) -> Maps:
        inputs = tuple(x[:2].to(device_of(student)) for x in self.task.example())
        with self.open(), evaluating(student):
            student(*inputs)
            self.teacher(*inputs)
        widths = [(self._student_taps[s].shape[1], self._teacher_taps[t].shape[1]) for s, t in self.pairs]
        return Maps(widths).to(device_of(student))

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of the student on a batch."""
        outputs = outputs_of(model(*batch.inputs))
        cached = None if self.needs_teacher else batch.teacher
        taught = teach(self.teacher, batch) if cached is None else cached
        total = torch.zeros((), device=outputs.device)
        for name, part in self.outputs.items():
            _check_shapes(outputs, taught)
            seen = (outputs, taught, batch.target) if part.sees == "targets" else (outputs, taught)
            total = total + self.weights[name] * part(*seen)
        for name, part in self.features.items():
            total = total + self.weights[name] * self._compared(part)
        if "task" in self.weights:
            total = total + self.weights["task"] * self.task.loss_function(outputs, batch.target)
        return total

    def _compared(self, part: DistillationLoss) -> Tensor:
        """A loss of features, the mean over all pairs."""
        values = []
        for i, (mine, theirs) in enumerate(self.pairs):
            student, teacher = self._student_taps[mine], self._teacher_taps[theirs]
            if self.maps is not None and hasattr(part, "maps"):
                student = self.maps(i, student)
            values.append(part(student, teacher))
        return torch.stack(values).mean()


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise UsageError(
            "student and teacher give outputs of different shapes",
            expected=f"{tuple(teacher.shape)}, as the teacher",
            got=tuple(student.shape),
            cause="another number of classes",
        )
