"""The one training loop: for dense training, recovery after a cut, masks and distillation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from luthier.errors import ObjectiveError, UsageError
from luthier.measure.quality import evaluate, outputs_of
from luthier.recipe import Recipe, rate
from luthier.task import Batch, Task, device_of

Curve = list[dict[str, float]]
StepLoss = Callable[[nn.Module, Batch], Tensor]
OnEpoch = Callable[[int, Mapping[str, float]], None]
M = TypeVar("M")


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that want a gradient.

    Vectors (biases, norms) are not decayed: decay there costs accuracy and shrinks nothing.

    Raises:
        UsageError: no parameter wants one.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise UsageError(
            "the model has nothing to train",
            expected="at least one parameter with requires_grad",
            got="none",
            fix="model.requires_grad_(True)",
        )
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch inside and leaves its global state outside as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    has = device.type == "cuda" and torch.cuda.is_bf16_supported()
    wanted = precision == "bfloat16" or (precision == "auto" and has)
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def task_loss(task: Task) -> StepLoss:
    """The task's own loss of a model on a batch."""
    function = task.loss_function

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return function(outputs_of(model(*batch.inputs)), batch.target)

    return loss


class Trainer:
    """One training run over a model, epoch by epoch.

    Args:
        model: trained in place.
        task: where the data come from, and how an epoch is judged.
        recipe: how to train.
        loss: of the model on a batch; None for the task's own.
        batches: gives an epoch's batches; None for the task's training data.
        beside: what is trained along but is no part of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        recipe: Recipe,
        loss: StepLoss | None = None,
        batches: Callable[[], Iterator[Batch]] | None = None,
        beside: nn.Module | None = None,
    ) -> None:
        if not isinstance(model, nn.Module) or not isinstance(task, Task):
            raise UsageError(
                "training needs a torch.nn.Module and a luthier.Task",
                expected="fit(model, task, ...)",
                got=f"{type(model).__name__} and {type(task).__name__}",
            )
        self.model, self.task, self.recipe = model, task, recipe
        self.fewest = 2 if has_batch_norm(model) else 1
        self.loss = loss or task_loss(task)
        self.batches = batches or (lambda: task.batches("train"))
        self.device = device_of(model)
        self.trained = nn.ModuleList([model] if beside is None else [model, beside])
        self.optimizer = make_optimizer(self.trained, recipe)
        self.step = 0
        self.steps = math.ceil(task.count("train") / recipe.accumulate) * recipe.epochs

    def epoch(self) -> float:
        """One pass over the training data.

        Returns:
            the mean loss.

        Raises:
            ObjectiveError: the loss is no longer a finite number.
        """
        self.model.train()
        total, count = 0.0, 0
        pending = 0
        for raw in self.batches():
            if raw.size < self.fewest:  # a batch of one has no spread: batch norm could not be trained on it
                continue
            batch = raw.to(self.device)
            value = self._learn(batch)
            pending = (pending + 1) % self.recipe.accumulate
            if not pending:
                self._update()
            total, count = total + value * batch.size, count + batch.size
        if pending:
            self._update()
        if not count:
            raise UsageError("every batch holds one example", expected="at least two, for batch norm", got="one")
        return total / count

    def _learn(self, batch: Batch) -> float:
        _check_precision(self.model, batch)
        with _autocast(self.device, self.recipe.precision):
            loss = self.loss(self.model, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ObjectiveError(
                f"training diverged: the loss is {value} at step {self.step}",
                cause="too high a learning rate, or NaN in the data",
                fix="lower lr, set clip, or check the inputs",
            )
        (loss / self.recipe.accumulate).backward()  # type: ignore[no-untyped-call]
        return value

    def _update(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * rate(self.recipe, self.step, self.steps)
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def run(self, on_epoch: OnEpoch | None = None) -> Curve:
        """Trains to the end.

        Args:
            on_epoch: called after each epoch with its number (from 1) and its scores; may raise to end training.

        Returns:
            for each epoch the mean training loss ("loss") and the validation metrics.
        """
        curve: Curve = []
        best, best_state, risen = -math.inf, None, 0
        sign = 1.0 if self.task.main.direction == "max" else -1.0
        with seeded(self.recipe.seed):
            for epoch in range(1, self.recipe.epochs + 1):
                scores = {"loss": self.epoch(), **validate(self.model, self.task)}
                curve.append(scores)
                value = sign * scores[self.task.main.name]
                if math.isnan(value):
                    raise ObjectiveError(
                        f"the metric {self.task.main.name!r} is NaN after epoch {epoch}",
                        expected="a number",
                        cause="training diverged, or the metric has no value on these data",
                    )
                if value > best:
                    risen = epoch
                if value >= best or best_state is None:  # of equals the later: it has seen lower learning rates
                    best = value
                    best_state = copy.deepcopy(self.model.state_dict()) if self.recipe.keep == "best" else {}
                if on_epoch:
                    on_epoch(epoch, scores)
                if self.recipe.patience is not None and epoch - risen >= self.recipe.patience:
                    break
        if best_state:
            self.model.load_state_dict(best_state)
        self.model.eval()
        return curve


def has_batch_norm(model: nn.Module) -> bool:
    """Whether training takes statistics over the examples of a batch alone, without positions."""
    return any(isinstance(m, nn.BatchNorm1d) for m in model.modules())


def _check_precision(model: nn.Module, batch: Batch) -> None:
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    for x in batch.inputs:
        if own is not None and x.is_floating_point() and x.dtype != own and not torch.is_autocast_enabled():
            raise UsageError(
                "model and data differ in precision",
                expected=f"inputs of {own}, as the model's parameters",
                got=x.dtype,
                fix="model.to(x.dtype), or convert the data",
            )


@torch.no_grad()
def recalibrate(model: nn.Module, task: Task, batches: int = 20) -> None:
    """Estimates batch-norm statistics anew, in place: after a cut the old ones belong to another network.

    Args:
        model: left in evaluation mode.
        task: whose training inputs are used; targets are not.
        batches: how many, averaged with equal weight.

    Source:
        Li et al., "EagleEye: fast sub-net evaluation for efficient neural network pruning", 2020, section 3.3.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [m.momentum for m in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    if norms:
        with seeded(0):
            for _, batch in zip(range(batches), task.batches("train"), strict=False):
                if batch.size > 1:
                    model(*batch.to(device_of(model)).inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def validate(model: nn.Module, task: Task) -> dict[str, float]:
    """The task's metrics on its validation data."""
    return evaluate(model, task.loader("valid"), task.scores)


def fit(model: M, task: Task, *, progress: bool = True, on_epoch: OnEpoch | None = None, **settings: Any) -> M:
    """Trains a model on a task.

    Args:
        model: trained in place; or a result with ``.model``, which is.
        task: data, loss and metrics.
        progress: whether to show a live bar.
        on_epoch: called after each epoch with its number and its scores.
        settings: see :class:`luthier.recipe.Recipe`: epochs, optimizer, lr, weight_decay, momentum, schedule, ...

    Returns:
        the same model, in evaluation mode, at the epoch that validated best (``keep="last"``: at the end).

    Raises:
        UsageError: an unknown setting or an empty loader.
        ObjectiveError: the loss is no longer a finite number.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 2); y = (x.sum(1) > 0).long()
        >>> task = Task(train=(x, y), valid=(x, y))
        >>> model = fit(nn.Linear(2, 2), task, epochs=30, lr=0.1, progress=False)
        >>> validate(model, task)["accuracy"] > 0.9
        True
    """
    recipe = Recipe.of(settings)
    network: Any = getattr(model, "model", model)
    trainer = Trainer(network, task, recipe)
    with progress_bar(recipe.epochs, task.main.name, progress) as tell:
        trainer.run(on_epoch=both(tell, on_epoch))
    return model


def both(first: OnEpoch, second: OnEpoch | None) -> OnEpoch:
    """Calls one, then the other where there is one."""

    def call(epoch: int, scores: Mapping[str, float]) -> None:
        first(epoch, scores)
        if second:
            second(epoch, scores)

    return call


@contextmanager
def progress_bar(epochs: int, metric: str, show: bool, title: str = "training") -> Iterator[OnEpoch]:
    """A live bar over epochs, with the newest loss and validation score."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[scores]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not show) as bar:
        row = bar.add_task(title, total=epochs, scores="")

        def tell(epoch: int, scores: Mapping[str, float]) -> None:
            text = f"loss {scores.get('loss', math.nan):.3f}  {metric} {scores.get(metric, math.nan):.4f}"
            bar.update(row, completed=epoch, scores=text)

        yield tell
