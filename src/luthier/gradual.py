"""Weight pruning over time: masks that grow while a network trains, and weights that go back to an early step."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from luthier import importance
from luthier.errors import UsageError, unknown
from luthier.keep import SCOPES, choose
from luthier.mask import Mask, Masked, apply_masks, candidates, mask_of, masks_of, names_of, own_name, warn_of_empty
from luthier.model.keras import inner_of, no_keras
from luthier.schedule import Schedule

M = TypeVar("M")


class GradualPruning:
    """Prunes while training: ``fit(..., on_epoch=GradualPruning(...))``.

    Masks are set anew after every epoch; with ``keep="best"`` only epochs since they last grew are among those to keep.
    In a loop of your own call it with a step's number as often as you like.

    Args:
        model: the network in training; masks are put on it at once.
        schedule: the ratio after each epoch.
        scope: "global", "layer" or "lamp".
        criterion: what makes a weight important.
        evidence: ``data=`` and ``loss=`` where the criterion needs them.

    Raises:
        UsageError: an unknown scope, nothing to prune, a criterion that is unknown, scores neurons only or lacks its
            data, or a generator as data.

    Example:
        >>> net = nn.Linear(10, 10)
        >>> prune = GradualPruning(net, Schedule(0.9, steps=2))
        >>> for epoch in (1, 2):
        ...     prune(epoch, {})
        >>> int(net.weight.count_nonzero())
        10

    Source:
        Zhu and Gupta, "To prune, or not to prune", 2017, section 3.
    """

    def __init__(
        self, model: nn.Module, schedule: Schedule, scope: str = "global", criterion: Any = "magnitude", **evidence: Any
    ) -> None:
        no_keras(model, "gradual pruning")
        if scope not in SCOPES:
            raise unknown("scope", scope, SCOPES)
        if isinstance(evidence.get("data"), Iterator):
            raise UsageError(
                "the data are looked at after every epoch", expected="a list of batches or a loader", got="a generator"
            )
        self.criterion, need = importance.for_weights(criterion, **evidence)
        self.evidence = evidence
        self.model: nn.Module = inner_of(model)
        self.schedule, self.scope = schedule, scope
        names, self.skipped = candidates(self.model)
        if need is None:  # what looks at the weights alone may have nothing to say about these
            importance.weight_scores(self.model, self.criterion, **evidence)
        apply_masks(self.model, _nothing_gone(self.model, {*names} - {*masks_of(self.model)}))

    def __call__(self, epoch: int, scores: Mapping[str, float] | None = None) -> None:
        """Raises the ratio to the schedule's at this epoch; what is gone stays gone."""
        found = importance.weight_scores(self.model, self.criterion, **self.evidence)
        known = {own_name(name): score for name, score in found.items()}
        before, names = masks_of(self.model), [names for _, names in names_of(self.model)]
        mine = {
            first: next(known[n] for n in (first, *more) if n in known) for first, *more in names if first in before
        }
        masks, _ = choose(mine, "ratio", self.schedule(epoch), self.scope, before)
        warn_of_empty(masks, before)
        apply_masks(self.model, masks)

    @property
    def masked(self) -> Masked:
        """The network in training with its masks as :func:`luthier.prune_weights` gives it: to print, measure, save."""
        return Masked(self.model, self.skipped)

    def finalize(self) -> nn.Module:
        """A plain copy: masks merged into the weights, parameters under their own names."""
        return self.masked.finalize()


def _nothing_gone(model: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    return {n[0]: torch.ones_like(p, dtype=torch.bool) for p, n in names_of(model) if n[0] in names}


class Rewind:
    """Keeps a network's weights of an early step, and puts them back into what pruning left of it.

    Args:
        model: the network, about to be trained.
        at: after which epoch (or step of your own loop) its weights are kept; 0: now, as they are.

    Example:
        >>> net = nn.Linear(10, 10)
        >>> early = Rewind(net, at=0)
        >>> with torch.no_grad():
        ...     _ = net.weight.mul_(3)  # training
        >>> from luthier.mask import prune_weights
        >>> masked = early.onto(prune_weights(net, ratio=0.9))
        >>> int(masked.model.weight.count_nonzero()), bool((masked.model.weight.abs().max() < net.weight.abs().max()))
        (10, True)

    Source:
        Frankle and Carbin, "The lottery ticket hypothesis", ICLR 2019; an early step instead of the first: Frankle et
        al., "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020.
    """

    def __init__(self, model: nn.Module, at: int = 1) -> None:
        no_keras(model, "rewinding")
        if type(at) is not int or at < 0:
            raise UsageError("'at' is no step", expected="a whole number >= 0", got=repr(at))
        self.model, self.at = inner_of(model), at
        self.state: dict[str, Tensor] | None = None
        self(0)

    def __call__(self, epoch: int, scores: Mapping[str, float] | None = None) -> None:
        """Keeps the weights when the step has come: ``fit(..., on_epoch=rewind)``."""
        if epoch == self.at and self.state is None:
            self.state = _without_masks(self.model)

    def state_dict(self) -> dict[str, Any]:
        """The weights that are kept, so that a run's checkpoint holds them."""
        return {} if self.state is None else self.state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes kept weights back, where there are some."""
        self.state = dict(state) or self.state

    def onto(self, pruned: M) -> M:
        """Puts the early weights, biases and statistics where they were; what is removed stays removed.

        Args:
            pruned: a masked network of the same parameters, as :func:`luthier.prune_weights` or
                :class:`GradualPruning` make it; changed in place. Its masks stay as they are, whatever the network
                had when its weights were kept.

        Returns:
            the same.

        Raises:
            UsageError: the step has not come yet, or the network is another one.
        """
        if self.state is None:
            raise UsageError(
                f"step {self.at} has not come yet",
                cause="a run that went on from a checkpoint, with this inside a function of your own as on_epoch=",
                fix="pass it as on_epoch= itself, and train past that step",
            )
        network = inner_of(pruned)
        with torch.no_grad():
            for name, value in self.state.items():
                place, kept = _place(network, name)
                if place.shape != value.shape:
                    raise UsageError(f"{name!r} has another shape now", expected=value.shape, got=place.shape)
                place.copy_(value if kept is None else value * kept)
        return pruned


def _without_masks(model: nn.Module) -> dict[str, Any]:
    """A copy of a network's state, masked weights under their own names and masks left out."""
    masks = {f"{path}.kept" for path, part in model.named_modules(remove_duplicate=False) if isinstance(part, Mask)}
    state = {name: value for name, value in model.state_dict().items() if name not in masks}
    return {own_name(name): copy.deepcopy(value) for name, value in state.items()}


def _place(model: nn.Module, name: str) -> tuple[Tensor, Tensor | None]:
    """The tensor of that name, and its mask where it has one."""
    path, _, leaf = name.rpartition(".")
    try:
        owner: Any = model.get_submodule(path)
        if parametrize.is_parametrized(owner, leaf):
            mask = mask_of(owner, leaf)
            return owner.parametrizations[leaf].original, None if mask is None else mask.kept
        found: Tensor = getattr(owner, leaf)
        return found, None
    except AttributeError:
        raise UsageError(f"the pruned network has no {name!r}", expected="the network that was kept, masked") from None
