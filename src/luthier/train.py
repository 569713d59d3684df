"""The one training loop: for dense training, recovery after a cut, masks and distillation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from luthier.batch import Batch, check_precision, device_of, outputs_of
from luthier.checkpoint import (
    Checkpoint,
    Curve,
    OnEpoch,
    Record,
    held_by,
    key_of,
    random_state,
    seed_streams,
    seeded,
    set_random_state,
)
from luthier.devices import Devices, One, as_devices, mixed_type
from luthier.errors import ObjectiveError, UsageError
from luthier.fitting import scalar
from luthier.mask import masks_of
from luthier.measure.quality import evaluate
from luthier.model.keras import give_back, network_of
from luthier.norms import has_batch_norm, left_out
from luthier.norms import recalibrate as recalibrate
from luthier.optimizer import make_optimizer
from luthier.progress import progress_bar
from luthier.recipe import Recipe, rate
from luthier.task import Task
from luthier.trial import TrialStopped

StepLoss = Callable[[nn.Module, Batch], Tensor]
M = TypeVar("M")

_APART = 1_000_003  # more than there are processes


def task_loss(task: Task) -> StepLoss:
    """The task's own loss of a model on a batch."""
    function = task.loss_function

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return scalar(task.loss, function(outputs_of(batch.run(model)), batch.target))

    return loss


@dataclass(frozen=True)
class Beside:
    """What a run has beside its model, data and recipe.

    Attributes:
        learned: what is trained along but is no part of the model.
        checkpoint: a file to go on from, written after every epoch.
        devices: several processes, see :mod:`luthier.devices`; None for the one device that the model is on.
    """

    learned: nn.Module | None = None
    checkpoint: str | Path | None = None
    devices: Devices | None = None


class Trainer:
    """One training run over a model, epoch by epoch.

    Args:
        model: trained in place.
        task: where the data come from, and how an epoch is judged.
        recipe: how to train.
        loss: of the model on a batch; None for the task's own. Its attribute ``done``, where it has one, is kept at the
            share of steps done; its ``key`` tells it from others in a checkpoint.
        batches: gives an epoch's batches; None for the task's training data.
        beside: what else there is.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        recipe: Recipe,
        loss: StepLoss | None = None,
        batches: Callable[[], Iterator[Batch]] | None = None,
        beside: Beside | None = None,
    ) -> None:
        if not isinstance(model, nn.Module) or not isinstance(task, Task):
            raise UsageError(
                "training needs a torch.nn.Module and a luthier.Task",
                expected="fit(model, task, ...)",
                got=f"{type(model).__name__} and {type(task).__name__}",
            )
        self.model, self.task, self.recipe = model, task, recipe
        self.beside = beside or Beside()
        self.devices = self.beside.devices or One()
        self.fewest = 2 if has_batch_norm(model) else 1
        self.loss = loss or task_loss(task)
        learned = self.beside.learned
        self.trained = nn.ModuleList([model] if learned is None else [model, learned])
        self.run_model, self.optimizer = self.devices.setup(model, make_optimizer(self.trained, recipe))
        self.device = device_of(model)
        self.batches = batches or self.devices.batches(task)
        self.precision = None if self.beside.devices else mixed_type(self.device, recipe.precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.step = 0
        count = task.count("train") - left_out(task.loader("train"), self.fewest, task.layout)
        count = max(1, math.ceil(count / self.devices.count))
        self.steps = math.ceil(count / recipe.accumulate) * recipe.epochs

    @torch.enable_grad()
    def epoch(self) -> float:
        """One pass over the training data.

        Returns:
            the mean loss.

        Raises:
            ObjectiveError: the loss is no longer a finite number.
        """
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)  # what is left of backward passes before
        total, count = 0.0, 0
        for group in self._groups():
            size = sum(batch.size for batch in group)
            total += sum(batch.size * self._learn(batch.to(self.device), batch.size / size) for batch in group)
            count += size
            self._update()
        if not count:
            raise UsageError("every batch holds one example", expected="at least two, for batch norm", got="one")
        return self.devices.mean(total, count)

    def _groups(self) -> Iterator[list[Batch]]:
        """An epoch's batches, those of one step together; not those of one example, if batch norm is to learn."""
        usable = (batch for batch in self.batches() if batch.size >= self.fewest)
        while group := list(islice(usable, self.recipe.accumulate)):
            yield group

    def _learn(self, batch: Batch, share: float) -> float:
        """The loss of a batch; its gradient is added with the batch's share of the step's examples."""
        mixed = torch.autocast(self.device.type, self.precision) if self.precision else nullcontext()
        with mixed:
            check_precision(self.model, batch)
            if hasattr(self.loss, "done"):
                self.loss.done = min(1.0, self.step / self.steps)
            loss = self._loss_of(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ObjectiveError(
                f"training diverged: the loss is {value} at step {self.step}",
                cause="too high a learning rate, NaN in the data, or a loss of one's own where nothing counts",
                fix="lower lr, set clip, or check the inputs",
            )
        self.devices.backward(self.scaler.scale(loss * share))
        return value

    def _loss_of(self, batch: Batch) -> Tensor:
        try:
            return self.loss(self.run_model, batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UsageError(
                "batch norm has one number in each channel, which has no spread",
                expected="two examples or more in each batch, where features have no extent (1 x 1)",
                got=f"a batch of {batch.size}",
                fix="another batch_size, or a DataLoader with drop_last=True",
            ) from error

    def _update(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * rate(self.recipe, self.step, self.steps)
        if self.beside.learned is not None:
            self.devices.share(self.beside.learned)
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            self.devices.clip(self.run_model, self.optimizer, self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def run(self, on_epoch: OnEpoch | None = None, tell: OnEpoch | None = None) -> Curve:
        """Trains to the end, from the checkpoint's epoch on where there is one.

        Args:
            on_epoch: called after each epoch with its number (from 1) and its scores; may raise to end training.
            tell: called before that with the same, to show it.

        Returns:
            for each epoch the mean training loss ("loss") and the validation metrics.

        Raises:
            ObjectiveError: the loss or the main metric is no longer a number; the model is then in evaluation mode, at
                the best epoch before, if that was to be kept. It is so too after Ctrl-C.
        """
        if on_epoch is not None and not callable(on_epoch):
            raise UsageError(
                "'on_epoch' cannot be called", expected="one function of (epoch, scores)", got=repr(on_epoch)
            )
        record = Record()
        try:
            with seeded(self.recipe.seed + self.devices.rank):
                saved = self._open()
                if saved is not None:
                    record = self._restore(saved, on_epoch)
                    if on_epoch and not saved["told"]:
                        self._tell(on_epoch, record)
                self._train(record, on_epoch, tell)
        except (ObjectiveError, KeyboardInterrupt):  # what was learned before is not lost with it
            self._finish(record)
            raise
        self._finish(record)
        return record.curve

    def _train(self, record: Record, on_epoch: OnEpoch | None, tell: OnEpoch | None) -> None:
        for epoch in range(len(record.curve) + 1, self.recipe.epochs + 1):
            if self._ended(record):
                return
            scores = self.devices.same({"loss": self.epoch(), **validate(self.model, self.task)})
            self._judge(record, epoch, scores)
            self._save(record, on_epoch, told=on_epoch is None)
            if tell:
                tell(epoch, scores)
            if on_epoch:
                self._tell(on_epoch, record)

    def _finish(self, record: Record) -> None:
        """Puts back the weights that were to be kept."""
        if record.state:
            self.model.load_state_dict(record.state)
        self.optimizer.zero_grad(set_to_none=True)
        self.model.eval()

    def _ended(self, record: Record) -> bool:
        patience = self.recipe.patience
        return patience is not None and len(record.curve) - record.risen >= patience

    def _judge(self, record: Record, epoch: int, scores: dict[str, float]) -> None:
        """Takes an epoch into the record; keeps its weights where it validates best."""
        main = self.task.main
        value = scores[main.name] if main.direction == "max" else -scores[main.name]
        if math.isnan(value):
            raise ObjectiveError(
                f"the metric {main.name!r} is NaN after epoch {epoch}",
                expected="a number",
                cause="training diverged, or the metric has no value on these data",
            )
        record.curve.append(scores)
        if value > record.best:
            record.risen = epoch
        if value >= record.best or not record.curve[1:]:  # of equals the later: it has seen lower learning rates
            record.best = value
            record.state = copy.deepcopy(self.model.state_dict()) if self.recipe.keep == "best" else {}

    def _tell(self, on_epoch: OnEpoch, record: Record) -> None:
        """Calls back after an epoch, and writes the checkpoint anew; a trial that is paused goes on after this epoch.

        Where masks grow by that, what was best before belongs to a network with more weights.
        """
        epoch, before, stopped = len(record.curve), _kept(self.model), None
        try:
            on_epoch(epoch, record.curve[-1])
        except TrialStopped as stop:
            stopped = stop
        if _kept(self.model) != before:
            record.best, record.risen, record.state = -math.inf, epoch, {}
        self._save(record, on_epoch, told=True)
        if stopped is not None:
            raise stopped

    @cached_property
    def _checkpoint(self) -> Checkpoint | None:
        path = self.beside.checkpoint
        if path is None:
            return None
        loss = self.task.loss if isinstance(self.task.loss, str) else "own", getattr(self.loss, "key", "")
        schedule = getattr(self.recipe.schedule, "__name__", self.recipe.schedule)  # the same in every process
        recipe = replace(self.recipe, schedule="constant")
        data = self.task.count("train"), held_by(self.task.loader("train"))
        return Checkpoint(Path(path), key_of(self.trained, recipe, schedule, loss, data))

    def _open(self) -> dict[str, Any] | None:
        return self._checkpoint.read() if self._checkpoint is not None else None

    def _save(self, record: Record, on_epoch: OnEpoch | None, told: bool) -> None:
        if self._checkpoint is None or self.devices.rank:
            return
        state = {
            "model": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "random": random_state(),
            "order": [g.get_state() for g in self._generators()],
            "record": vars(record),
            "memory": on_epoch.state_dict() if on_epoch is not None and hasattr(on_epoch, "state_dict") else {},
            "told": told,
        }
        self._checkpoint.write(state)

    def _restore(self, state: Mapping[str, Any], on_epoch: OnEpoch | None) -> Record:
        self.trained.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        if getattr(self.task.loader("train"), "persistent_workers", False):
            iter(self.task.loader("train"))  # workers that stay draw their seed once, which the run before had done
        if self.devices.rank:  # the file holds the first process's streams: these would drop the same units
            seed_streams(self.recipe.seed + self.devices.rank + _APART * self.step)
        else:
            set_random_state(state["random"])
        for generator, known in zip(self._generators(), state["order"], strict=True):
            generator.set_state(known)
        if on_epoch is not None and hasattr(on_epoch, "load_state_dict"):
            on_epoch.load_state_dict(state["memory"])
        return Record(**state["record"])

    def _generators(self) -> list[torch.Generator]:
        """The training loader's own random streams, where it has any: its, its sampler's, its batch sampler's."""
        loader = self.task.loader("train")
        batches = getattr(loader, "batch_sampler", None)
        places = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
        found = {id(g): g for p in places if isinstance(g := getattr(p, "generator", None), torch.Generator)}
        return list(found.values())


def _kept(model: nn.Module) -> int:
    """How many weights masks have left."""
    return sum(int(mask.sum()) for mask in masks_of(model).values())


def validate(model: Any, task: Task, part: str = "valid") -> dict[str, float]:
    """The task's metrics of a model, or of an ONNX file, on its validation data or another part."""
    how: dict[str, Any] = {"targets": task.targets, "class_dim": task.class_dim, "loss": task.loss}
    return evaluate(model, task.loader(part), task.scores, **how)


def fit(
    model: M,
    task: Task,
    *,
    checkpoint: str | Path | None = None,
    fabric: Any = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> M:
    """Trains a model on a task.

    Args:
        model: trained in place; or a result with ``.model``, which is.
        task: data, loss and metrics.
        checkpoint: a file, written after every epoch; where it is there already, training goes on from it, bit for bit
            as if it had not been interrupted. With several processes the first one's; the others' random streams
            (dropout, augmentation) start anew, as do those in workers that stay (``persistent_workers``). Whether it is
            of the same data is told of tensors and lists of batches.
        fabric: a launched ``lightning.fabric.Fabric``: one device or several, see :mod:`luthier.devices`.
        progress: whether to show a live bar.
        on_epoch: called after each epoch with its number and its scores. Where masks grow by it, the epochs before are
            no longer among those to keep. After a kill it is called again, if it had not returned; what it has of
            ``state_dict()`` (for ``load_state_dict()``) goes along in the checkpoint.
        settings: see :class:`luthier.recipe.Recipe`: epochs, optimizer, lr, weight_decay, momentum, schedule, ...

    Returns:
        the same model, in evaluation mode, at the epoch that validated best (``keep="last"``: at the end).

    Raises:
        UsageError: an unknown setting, an empty loader, or a checkpoint of another run.
        ObjectiveError: the loss is no longer a finite number; the model is then at the best epoch before, as above, as
            it is after Ctrl-C.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 2); y = (x.sum(1) > 0).long()
        >>> task = Task(train=(x, y), valid=(x, y))
        >>> model = fit(nn.Linear(2, 2), task, epochs=30, lr=0.1, progress=False)
        >>> validate(model, task)["accuracy"] > 0.9
        True
    """
    recipe = Recipe.of(settings)
    network = network_of(model)
    trainer = Trainer(network, task, recipe, beside=Beside(checkpoint=checkpoint, devices=as_devices(fabric)))
    with progress_bar(recipe.epochs, task.main.name, progress) as tell:
        trainer.run(on_epoch, tell)
    give_back(network, model)
    return model
