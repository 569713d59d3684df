"""A lesson: the weighted sum of distillation losses and the task's own loss, as one function of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from luthier.answers import OF_NUMBERS, name_of_loss
from luthier.batch import IGNORED, Batch, device_of, dtype_of, outputs_of
from luthier.checkpoint import seeded
from luthier.distillation import losses as distillation_losses
from luthier.distillation.disk import digest
from luthier.distillation.losses import DistillationLoss, Sees
from luthier.distillation.losses.hint import Hint
from luthier.distillation.losses.kl import KL
from luthier.distillation.taps import Maps, Pair, Tap, Taps, read_taps
from luthier.distillation.teachers import as_several, read_shares, teach
from luthier.errors import UsageError, unknown
from luthier.fitting import scalar
from luthier.model.evaluating import evaluating
from luthier.sequences import at, ctc, nothing, positions
from luthier.surgery.plan import Plan
from luthier.task import Task

Share = float | Callable[[float], float]
"""A weight, or a function of the share of a run's steps that are done, from 0 to 1, that gives it."""
Weight = Share | tuple[Share, Any]


@dataclass(frozen=True)
class Fade:
    """A weight that goes from one value to another in a straight line over a run.

    Args:
        start: at the first step.
        end: after the last.

    Source:
        teacher annealing: Clark et al., "BAM! Born-again multi-task networks for natural language understanding", ACL
        2019, section 3.2.

    Example:
        >>> Fade(0.9)(0.5)
        0.45
    """

    start: float
    end: float = 0.0

    def __call__(self, done: float) -> float:
        """The weight with this share of the steps done."""
        return self.start + done * (self.end - self.start)


def fading(weight: float, by: str = "kl") -> dict[str, Weight]:
    """A loss with this weight and the task's own with the rest, at first; at the end the task's own alone."""
    return {by: Fade(weight), "task": Fade(1.0 - weight, 1.0)}


def suited(task: Task, teacher: nn.Module) -> str:
    """The loss of outputs that teaches by default: "kl", or "mse" where they are numbers and no classes.

    The task's loss says which; where it is an unknown function, a single number an example is taken for no class.
    """
    name = name_of_loss(task.loss)
    if name is not None:
        return "mse" if name in OF_NUMBERS else "kl"
    with seeded(0), evaluating(teacher):
        outputs = task.layout.outputs(teach(teacher, next(task.batches("valid")).to(device_of(teacher))))
    return "mse" if outputs.ndim < 2 or outputs.shape[1] == 1 else "kl"


DEFAULT = fading(0.5)


def read_losses(weights: Mapping[str, Weight], temperature: float) -> dict[str, DistillationLoss]:
    """Name -> loss, of those with weight, without the task's own.

    Raises:
        UsageError: see :func:`read_weights`.
    """
    made: dict[str, DistillationLoss] = {}
    for name in read_weights(weights):
        given = weights[name]
        if isinstance(given, tuple):
            made[name] = given[1] if hasattr(given[1], "sees") else Plain(given[1])
        elif name != "task":
            made[name] = distillation_losses.get(name, temperature)
    return made


@dataclass(frozen=True)
class Plain:
    """A user's function of the student's and the teacher's outputs, as a loss.

    Args:
        function: (outputs, teacher's outputs) -> scalar.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    sees: ClassVar[Sees] = "outputs"

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`."""
        return self.function(student, teacher)


def read_weights(weights: Mapping[str, Weight]) -> dict[str, Share]:
    """Loss name -> weight, those without weight left out.

    Raises:
        UsageError: an unknown loss, a weight out of range, or none left.
    """
    known = ["task", *distillation_losses.names()]
    if not isinstance(weights, Mapping):
        raise UsageError(
            "losses come with their weights", expected="such as {'kl': 0.5, 'task': 0.5}", got=repr(weights)
        )
    plain: dict[str, Share] = {}
    for name, given in weights.items():
        weight, own = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        if name not in known and not callable(own):
            raise unknown("distillation loss", name, known)
        if name == "task" and isinstance(given, tuple):
            raise UsageError(
                "'task' is the task's own loss",
                expected="{'task': weight}",
                got=f"a pair of {type(given[0]).__name__} and {type(given[-1]).__name__}",
                fix="another name for a loss of yours, or Task(..., loss=function)",
            )
        plain[name] = weight
        if not all(isinstance(w, int | float) and 0 <= w < float("inf") for w in _over_time(weight)):
            raise UsageError(f"the weight of loss {name!r} is out of range", expected="weight >= 0", got=repr(weight))
    used = {name: weight for name, weight in plain.items() if any(_over_time(weight))}
    if not used:
        raise UsageError(
            "no distillation loss has a weight", expected="such as {'kl': 0.5, 'task': 0.5}", got=dict(weights)
        )
    return used


def _over_time(weight: Share) -> list[Any]:
    """A weight at the beginning, in the middle and at the end of a run; itself where it is not one."""
    try:
        return [weight(done) for done in (0.0, 0.5, 1.0)] if callable(weight) else [weight]
    except TypeError:  # such as a loss in its place
        return [weight]


class Lesson:
    """What a student is trained by.

    Where the task's loss is "bce", every output answers a yes/no question: KL is then the mean over the questions of
    the divergence between the two probabilities of yes and no.

    With several teachers every loss is the mean over them, by their shares. For KL that has the gradient of the
    divergence from the mean of their probabilities at the same temperature; the loss at its minimum is then how far
    the teachers are from that mean, not 0.

    Args:
        student: the network that learns.
        teacher: one or several; asked where a batch does not bring their outputs along, or where features are compared.
        task: whose loss "task" names, and where classes and positions that count are.
        weights: loss name -> weight, or -> (weight, loss): an object such as ``Hint(projection="always")``, or a
            function of (student's outputs, teacher's outputs). A weight may be a function of :attr:`done`.
        temperature: of the losses that have one.
        taps: which modules' features are compared, see :func:`luthier.distillation.taps.read_taps`.
        shares: how much each teacher counts; None for all alike.
        plan: of the cut that made the student, from which layer pairs follow.

    Attributes:
        done: the share of the run's steps that are done, from 0 to 1; set by whoever takes them.

    Raises:
        UsageError: an unknown loss or module, or a weight out of range.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Sequence[nn.Module],
        task: Task,
        weights: Mapping[str, Weight],
        temperature: float = 4.0,
        taps: Sequence[Tap] | None = None,
        shares: Sequence[float] | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.teachers, self.task = as_several(teacher), task
        self.shares, self.done = read_shares(shares, len(self.teachers)), 0.0
        self.weights = read_weights(weights)
        parts = read_losses(weights, temperature)
        _refuse_transcripts(task, parts)
        self.features = {n: p for n, p in parts.items() if p.sees == "features"}
        self.outputs = {n: p for n, p in parts.items() if p.sees != "features"}
        small = self._small_batch(student) if self.features else None
        pairs = [read_taps(student, t, taps, plan, small) if self.features or taps else () for t in self.teachers]
        self.pairs = pairs if self.features else [() for _ in pairs]
        self._student_taps = Taps(student, sorted({p.student for pairs in self.pairs for p in pairs}))
        self._teacher_taps = [
            Taps(t, [p.teacher for p in pairs]) for t, pairs in zip(self.teachers, self.pairs, strict=True)
        ]
        mapping = [_projection(p) for p in self.features.values()]
        self.maps: nn.ModuleList | None = None
        if small is not None and set(mapping) - {"never"}:
            self.maps = self._make_maps(student, small, "always" in mapping)

    @property
    def needs_teacher(self) -> bool:
        """Whether the teachers have to run on every batch, cached outputs or not."""
        return bool(self.features)

    @property
    def key(self) -> str:
        """What makes two lessons the same: their losses with settings and weights, and what the teachers are."""
        states = [x for t in self.teachers for name, value in t.state_dict().items() for x in (name, value)]
        return digest(self.weights, self.features, self.outputs, self.pairs, self.shares, *states)

    def weight(self, name: str) -> float:
        """What a loss counts now."""
        weight = self.weights[name]
        return weight(self.done) if callable(weight) else weight

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Taps are in place inside."""
        with contextlib.ExitStack() as stack:
            for taps in (self._student_taps, *self._teacher_taps):
                stack.enter_context(taps)
            yield

    def _small_batch(self, student: nn.Module) -> Batch:
        batch = next(self.task.batches("train")).to(device_of(student))
        named = {name: x[:2] for name, x in batch.named.items()}
        return Batch(tuple(x[:2] for x in batch.inputs), batch.target, named=named)

    @torch.no_grad()
    def _make_maps(self, student: nn.Module, small: Batch, always: bool) -> nn.ModuleList:
        with self.open(), evaluating(student):
            small.run(student)
            for teacher in self.teachers:
                teach(teacher, small)
        made = nn.ModuleList()
        for i, pairs in enumerate(self.pairs):
            seen = [self._features(i, pair) for pair in pairs]
            made.append(Maps([(mine.shape[1], theirs.shape[1]) for mine, theirs in seen], always))
        return made.to(device=device_of(student), dtype=dtype_of(student))

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of the student on a batch."""
        result = outputs_of(batch.run(model))
        known = None if self.needs_teacher else batch.teacher
        taught = tuple(teach(t, batch) for t in self.teachers) if known is None else known
        outputs = self.task.layout.outputs(result)
        mask = positions(batch, outputs)
        terms = []
        for i, (share, theirs) in enumerate(zip(self.shares, taught, strict=True)):
            terms += [share * value for value in self._of_outputs(outputs, theirs, batch, mask)]
            terms += [share * value for value in self._of_features(i, mask)]
        if "task" in self.weights:
            own = scalar(self.task.loss, self.task.loss_function(result, batch.target))
            terms.append(self.weight("task") * own)
        return torch.stack(terms).sum()

    def _of_outputs(self, student: Tensor, result: Tensor, batch: Batch, mask: Tensor | None) -> Iterator[Tensor]:
        """The losses of outputs; where only some positions count, these are the examples; 0 where none does."""
        if not self.outputs:
            return
        teacher = self.task.layout.outputs(result)
        _check_shapes(student, teacher)
        mine, theirs = at(student, mask), at(teacher, mask)
        if not len(mine):
            yield nothing(student)
            return
        asks = name_of_loss(self.task.loss) == "bce"
        for name, part in self.outputs.items():
            target = (_true_classes(batch, mask),) if part.sees == "targets" else ()
            pair = _questions(student, teacher, batch, mask) if asks and isinstance(part, KL) else (mine, theirs)
            yield self.weight(name) * (scalar(name, part(*pair, *target)) if len(pair[0]) else nothing(student))

    def _of_features(self, teacher: int, mask: Tensor | None) -> Iterator[Tensor]:
        """The losses of features, each the mean over all pairs."""
        for name, part in self.features.items():
            pairs = range(len(self.pairs[teacher]))
            values = [scalar(name, self._compared(part, teacher, i, mask)) for i in pairs]
            yield self.weight(name) * torch.stack(values).mean()

    def _compared(self, part: DistillationLoss, teacher: int, i: int, mask: Tensor | None) -> Tensor:
        mine, theirs = self._features(teacher, self.pairs[teacher][i])
        if self.maps is not None and _projection(part) != "never":
            mine = self.maps[teacher](i, mine)
        if mask is not None and not bool(mask.any()):
            return nothing(mine)
        if mask is None or mine.ndim != 3 or mine.shape[2:] != mask.shape[1:]:
            return part(mine, theirs)
        if isinstance(part, Hint):
            return part(at(mine, mask), at(theirs, mask))
        return part(mine * mask[:, None], theirs * mask[:, None])

    def _features(self, teacher: int, pair: Pair) -> tuple[Tensor, Tensor]:
        """What a pair of layers gives, as (n, channels, ...)."""
        mine, theirs = self._student_taps[pair.student], self._teacher_taps[teacher][pair.teacher]
        last = self.task.layout.class_dim == -1 and mine.ndim == 3 if pair.last is None else pair.last
        if last and mine.ndim > 2:
            mine, theirs = mine.movedim(-1, 1), theirs.movedim(-1, 1)
        return mine, pair.of_teacher(theirs)


def _projection(part: DistillationLoss) -> str:
    return getattr(part, "projection", "never")


def _questions(student: Tensor, teacher: Tensor, batch: Batch, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits of the yes/no questions that count as logits of two classes, (questions, 2)."""
    counted = torch.ones_like(student, dtype=torch.bool) if mask is None else mask[:, None].expand(student.shape)
    if isinstance(batch.target, Tensor) and batch.target.numel() == student.numel():
        counted = counted & (batch.target.reshape(student.shape) != IGNORED)
    mine, theirs = student[counted] / 2, teacher[counted] / 2
    return torch.stack([-mine, mine], 1), torch.stack([-theirs, theirs], 1)


def _true_classes(batch: Batch, mask: Tensor | None) -> Tensor:
    """Those of the positions that count."""
    labels = batch.target if isinstance(batch.target, Tensor) else batch.target[0]
    if mask is not None and labels.shape != mask.shape:
        raise UsageError(
            "the targets are not classes", expected=f"one for each of {tuple(mask.shape)}", got=tuple(labels.shape)
        )
    return at(labels, mask)


def _refuse_transcripts(task: Task, parts: Mapping[str, DistillationLoss]) -> None:
    for name, part in parts.items():
        if part.sees == "targets" and task.loss in ("ctc", ctc):
            raise UsageError(
                f"the loss {name!r} needs the true class of each position",
                expected="class numbers, or a loss of outputs alone",
                got="transcripts (loss='ctc'), which say no frame's class",
                fix="'kl', which compares frame by frame",
            )


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise UsageError(
            "student and teacher give outputs of different shapes",
            expected=f"{tuple(teacher.shape)}, as the teacher",
            got=tuple(student.shape),
            cause="another number of classes",
        )
