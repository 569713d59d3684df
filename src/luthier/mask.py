"""Pruning weights: masks that hold.

A mask multiplies its weight each time the weight is read, so that no optimiser, momentum, weight decay, copy,
``state_dict`` or export can bring a removed weight back.
"""

from __future__ import annotations

import copy
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from luthier import importance
from luthier.allocate import lamp
from luthier.errors import UsageError, unknown
from luthier.model.keras import KerasModule, network_of

Scores = dict[str, Tensor]
SCOPES = ("global", "layer", "lamp")


class Mask(nn.Module):
    """Multiplies a weight by 0 where it was removed and by 1 where it was kept.

    Args:
        kept: boolean, of the weight's shape.
    """

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with what was removed at zero."""
        return weight * self.kept


@dataclass(frozen=True)
class Masked:
    """A network with masks over its weights.

    Attributes:
        model: a new module; the original is untouched.
        masks: parameter name -> boolean tensor, True where kept.
        skipped: parameter name -> why it has no mask.
        order: the original's parameters, in its order.
    """

    model: nn.Module
    masks: Mapping[str, Tensor]
    skipped: Mapping[str, str]
    order: tuple[str, ...]

    @property
    def sparsity(self) -> float:
        """Share of the masked parameters' entries that were removed."""
        total = sum(m.numel() for m in self.masks.values())
        return 1 - sum(int(m.sum()) for m in self.masks.values()) / max(total, 1)

    def finalize(self) -> nn.Module:
        """A plain copy: masks merged into the weights, parameters under their own names."""
        plain = copy.deepcopy(self.model)
        made: dict[int, nn.Parameter] = {}
        for path, owner in list(plain.named_modules()):
            if parametrize.is_parametrized(owner):
                merged = [leaf for leaf in owner.parametrizations if _is_masked(owner, leaf)]
                order = [name.rpartition(".")[2] for name in self.order if name.rpartition(".")[0] == path]
                _merge(owner, merged, order, made)
        return plain

    def bytes(self) -> dict[str, int]:
        """What the weights take: as they are, deflated as gzip does, and as compressed sparse rows (float32)."""
        weights = [_value(self.model, name).detach().float().cpu() for name in self.masks]
        buffer = io.BytesIO()
        for weight in weights:
            buffer.write(weight.contiguous().numpy().tobytes())
        return {
            "dense": buffer.tell(),
            "gzip": len(zlib.compress(buffer.getvalue(), 6)),
            "csr": sum(_csr_bytes(w) for w in weights),
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the masked model."""
        return self.model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "model" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.model, name)

    def __str__(self) -> str:
        rows = [
            f"  {name:<40} {int(m.sum()):>10,} of {m.numel():>10,} kept ({1 - m.float().mean():.1%} removed)"
            for name, m in self.masks.items()
        ]
        rows += [f"  {name:<40} left whole: {why}" for name, why in self.skipped.items()]
        size = self.bytes()
        rows.append(
            f"  {self.sparsity:.1%} of these weights are zero: {size['dense']:,} bytes, {size['gzip']:,} deflated, "
            f"{size['csr']:,} as compressed sparse rows. "
            "Ordinary runtimes are not faster for zeros; prune neurons for speed."
        )
        return "\n".join(rows)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _is_masked(owner: nn.Module, leaf: str) -> bool:
    return any(isinstance(part, Mask) for part in owner.parametrizations[leaf])  # type: ignore[index]


def _merge(owner: nn.Module, leaves: Sequence[str], order: Sequence[str], made: dict[int, nn.Parameter]) -> None:
    """Gives a module its own class and parameters back, in the order they had; shared ones stay shared.

    torch's ``remove_parametrizations`` would take the weight off the class, which the module's copies share.
    """
    values = {}
    for leaf in leaves:
        key = id(owner.parametrizations[leaf].original)  # type: ignore[index, union-attr]
        values[leaf] = made.setdefault(key, nn.Parameter(getattr(owner, leaf).detach().clone()))
    if not values:
        return
    plain = parametrize.type_before_parametrizations(owner)
    del owner.parametrizations
    owner.__class__ = plain
    own = {**owner._parameters, **values}
    owner._parameters.clear()
    owner._parameters.update({leaf: own.pop(leaf) for leaf in order} | own)  # what is left is None, as a bias may be


def _names(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, _ in model.named_parameters(remove_duplicate=False))


def _value(model: nn.Module, name: str) -> Tensor:
    owner, leaf = _owner(model, name)
    value: Tensor = getattr(owner, leaf)
    return value


def _csr_bytes(weight: Tensor) -> int:
    """4 bytes a value, 4 a column index, 4 a row pointer."""
    return 8 * int(weight.count_nonzero()) + 4 * (weight.shape[0] + 1)


def candidates(model: nn.Module, protect: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Which parameters can be masked, and why the rest cannot.

    Args:
        model: the network.
        protect: names of modules or parameters to leave whole.

    Returns:
        (names of matrices and kernels, name -> reason).

    Raises:
        UsageError: a protected name that is not there.
    """
    if isinstance(protect, str):
        raise UsageError("'protect' is a list of names", expected=f"[{protect!r}]", got=repr(protect))
    modules = dict(model.named_modules())
    known = {*modules, *dict(model.named_parameters())}
    for name in protect:
        if name not in known:
            raise UsageError(f"there is no module or parameter {name!r} to protect", expected="a name in the model")
    found, skipped = [], {}
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        if parametrize.is_parametrized(modules[owner]) or ".parametrizations." in f".{name}":
            skipped[name] = "it has a parametrisation already"
        elif any(name == p or name.startswith(p + ".") for p in protect if p):
            skipped[name] = "protected"
        elif isinstance(modules[owner], nn.RNNBase):
            skipped[name] = "recurrent layers read their weights past any mask"
        elif parameter.ndim >= 2:
            found.append(name)
    return found, skipped


def ties(model: nn.Module) -> dict[str, str]:
    """Further names of shared parameters -> the first name."""
    first: dict[int, str] = {}
    out = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            out[name] = first[id(parameter)]
    return out


def keep_by_ratio(scores: Scores, ratio: float, scope: str = "global") -> Scores:
    """Masks that remove the share ``ratio`` with the lowest scores, exactly (ties by position).

    Args:
        scores: parameter name -> score of each entry.
        ratio: share removed, in [0, 1].
        scope: "global" (all entries compete), "lamp" (all compete by their share of what is left of their parameter,
            see ``luthier.allocate.lamp``) or "layer" (the share is removed from each parameter).
    """
    if scope == "lamp":
        return keep_by_ratio({name: lamp(s) for name, s in scores.items()}, ratio)
    if scope == "layer":
        return {name: _keep_top(s.flatten(), ratio).view(s.shape) for name, s in scores.items()}
    flat = torch.cat([s.flatten() for s in scores.values()])
    parts = torch.tensor_split(_keep_top(flat, ratio), _ends(scores))
    return {name: part.view(s.shape) for (name, s), part in zip(scores.items(), parts, strict=True)}


def _ends(scores: Scores) -> list[int]:
    """Where each parameter ends when all are laid end to end, the last left out."""
    return list(accumulate(s.numel() for s in scores.values()))[:-1]


def _keep_top(flat: Tensor, ratio: float) -> Tensor:
    kept = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
    kept[flat.argsort(stable=True)[: round(ratio * len(flat))]] = False
    return kept


def keep_by_pattern(score: Tensor, n: int, m: int) -> Tensor:
    """Keeps the n highest of every m neighbours along the inputs of a weight of shape (out, in, ...).

    Source:
        Zhou et al., "Learning N:M fine-grained structured sparse neural networks from scratch", 2021.
    """
    rows = score.movedim(1, -1).reshape(-1, m)
    kept = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, rows.topk(n, dim=1).indices, True)
    shape = score.movedim(1, -1).shape
    return kept.view(shape).movedim(-1, 1)


def _read_pattern(pattern: str) -> tuple[int, int]:
    n, _, m = str(pattern).partition(":")
    if not (n.isdigit() and m.isdigit() and 0 < int(n) < int(m)):
        raise UsageError(
            "the pattern cannot be read", expected='"n:m" with 0 < n < m, such as "2:4"', got=repr(pattern)
        )
    return int(n), int(m)


def choose(scores: Scores, how: str, amount: Any, scope: str) -> tuple[Scores, dict[str, str]]:
    """Masks from scores, by "ratio", "threshold" or "pattern"; and what was left whole, with the reason."""
    if how == "ratio":
        return keep_by_ratio(scores, amount, scope), {}
    if how == "threshold":
        return {name: s >= amount for name, s in scores.items()}, {}
    n, m = _read_pattern(amount)
    fits = {name: s for name, s in scores.items() if s.shape[1] % m == 0}
    odd = {name: f"its {s.shape[1]} inputs are no multiple of {m}" for name, s in scores.items() if name not in fits}
    return {name: keep_by_pattern(s, n, m) for name, s in fits.items()}, odd


def _check(how: Mapping[str, Any], scope: str) -> tuple[str, Any]:
    given = {name: amount for name, amount in how.items() if amount is not None}
    if len(given) != 1:
        raise UsageError(
            "say in exactly one way how much to remove",
            expected="ratio=, threshold= or pattern=",
            got=", ".join(given) or "none of them",
        )
    name, amount = next(iter(given.items()))
    number = isinstance(amount, int | float) and not isinstance(amount, bool)
    if name == "ratio" and not (number and 0 <= amount < 1):
        raise UsageError("the ratio is out of range", expected="0 <= ratio < 1 (the share removed)", got=repr(amount))
    if name == "threshold" and not (number and 0 <= amount < float("inf")):
        raise UsageError("the threshold is out of range", expected="a finite number >= 0", got=repr(amount))
    if scope not in SCOPES:
        raise unknown("scope", str(scope), SCOPES)
    return name, amount


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Puts masks on a model in place; a mask that is there already is replaced."""
    every = {**masks, **{tie: masks[first] for tie, first in ties(model).items() if first in masks}}
    with torch.no_grad():
        for name, kept in every.items():
            owner, leaf = _owner(model, name)
            if parametrize.is_parametrized(owner, leaf):
                _mask_of(owner, leaf).kept.copy_(kept)
            else:
                parametrize.register_parametrization(owner, leaf, Mask(kept.clone()))
            original = owner.parametrizations[leaf].original  # type: ignore[index, union-attr]
            original.mul_(kept)


def _mask_of(owner: nn.Module, leaf: str) -> Mask:
    for part in owner.parametrizations[leaf]:  # type: ignore[index]
        if isinstance(part, Mask):
            return part
    raise UsageError(f"{leaf!r} has a parametrisation that is no mask", fix="remove it first")


def prune_weights(
    model: nn.Module,
    *,
    ratio: float | None = None,
    threshold: float | None = None,
    pattern: str | None = None,
    criterion: Any = "magnitude",
    scope: str = "global",
    protect: Sequence[str] = (),
    **evidence: Any,
) -> Masked:
    """Sets unimportant weights to zero and keeps them there. Biases and norms are left alone.

    Args:
        model: not changed.
        ratio: share of the weights to remove, in [0, 1); or
        threshold: remove weights whose score is below this; or
        pattern: "n:m", keep n of every m neighbours along the inputs.
        criterion: what makes a weight important: a name (see ``luthier methods``), an object, or a function of your
            own; "magnitude" is |w|; "obs" re-fits what it keeps.
        scope: with a ratio: "global" (all weights compete), "lamp" (all compete, layers made comparable) or "layer"
            (the same share everywhere).
        protect: modules or parameters to leave whole.
        evidence: ``data=`` (a loader) and ``loss=`` where a criterion needs them.

    Returns:
        the masked network; ``.finalize()`` merges the masks.

    Raises:
        UsageError: no way or several ways given, a value out of range, an unknown criterion, missing data.

    Example:
        >>> masked = prune_weights(nn.Linear(10, 10), ratio=0.9)
        >>> int(masked.model.weight.count_nonzero())
        10
    """
    how, amount = _check({"ratio": ratio, "threshold": threshold, "pattern": pattern}, scope)
    source = model.finalize() if isinstance(model, Masked) else network_of(model)
    if not isinstance(source, nn.Module):
        raise UsageError("only models can be pruned", expected="a torch.nn.Module", got=type(model).__name__)
    if how == "pattern" and isinstance(source, KerasModule):
        raise UsageError("a pattern goes along the inputs of PyTorch's weights; Keras' lie the other way", fix="ratio=")
    names, skipped = candidates(source, protect)
    if not names:
        why = "; ".join(sorted(set(skipped.values()))) or "biases and norms only"
        raise UsageError("the model has no weights to prune", expected="a matrix or kernel", cause=why)
    weighed = importance.weigh(source, criterion, **evidence)
    masks, odd = choose({name: weighed.scores[name] for name in names}, how, amount, scope)
    masked = copy.deepcopy(source)
    with torch.no_grad():
        for name, kept in masks.items():
            made = weighed.refit(name, kept)
            if made is not None:
                _value(masked, name).copy_(made)
    apply_masks(masked, masks)
    return Masked(masked, masks, {**skipped, **odd}, _names(source))
