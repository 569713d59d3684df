"""Pruning weights: masks that hold.

A mask multiplies its weight each time the weight is read, so that no optimiser, momentum, weight decay, copy,
``state_dict`` or export can bring a removed weight back.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from luthier import importance
from luthier.errors import UsageError, unknown
from luthier.importance import unmasked
from luthier.keep import SCOPES, choose
from luthier.model.copies import copy_of
from luthier.model.keras import KerasModule, network_of

_UNDO: dict[type, str] = {
    WeightNorm: "torch.nn.utils.remove_weight_norm(module)",
    SpectralNorm: "torch.nn.utils.remove_spectral_norm(module)",
    BasePruningMethod: "torch.nn.utils.prune.remove(module, 'weight')",
}
"""Hooks that make a weight anew before each run -> what makes it a parameter again."""


class Mask(nn.Module):
    """Multiplies a weight by 0 where it was removed and by 1 where it was kept.

    Args:
        kept: boolean, of the weight's shape.
        order: the parameters of the weight's module, in its order: :func:`merged` gives them back so.
    """

    kept: Tensor

    def __init__(self, kept: Tensor, order: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("kept", kept)
        self.order = tuple(order)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with what was removed at zero."""
        return weight * self.kept


@dataclass(frozen=True)
class Masked:
    """A network with masks over its weights.

    Attributes:
        model: the masked network.
        skipped: parameter name -> why it has no mask.
    """

    model: nn.Module
    skipped: Mapping[str, str]

    @property
    def masks(self) -> dict[str, Tensor]:
        """Parameter name -> boolean tensor, True where kept, as the network has it now."""
        return masks_of(self.model)

    @property
    def sparsity(self) -> float:
        """Share of the masked parameters' entries that were removed; 0 where nothing has a mask."""
        masks = self.masks.values()
        total = sum(m.numel() for m in masks)
        return 1 - sum(int(m.sum()) for m in masks) / total if total else 0.0

    def finalize(self) -> nn.Module:
        """A plain copy: masks merged into the weights, parameters under their own names."""
        return merged(self.model)

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


def mask_of(owner: nn.Module, leaf: str) -> Mask | None:
    """The mask over a module's weight; None where it has none."""
    parts = owner.parametrizations[leaf] if parametrize.is_parametrized(owner, leaf) else ()  # type: ignore[index]
    return next((part for part in parts if isinstance(part, Mask)), None)


def _parametrised(owner: nn.Module) -> dict[str, Mask | None]:
    leaves: Any = owner.parametrizations if parametrize.is_parametrized(owner) else ()
    return {leaf: mask_of(owner, leaf) for leaf in leaves}


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """The masks of a network: parameter name -> boolean tensor, True where kept. They change with it."""
    found = {}
    for _, (name, *_) in names_of(model):
        mask = mask_of(*_owner(model, name))
        if mask is not None:
            found[name] = mask.kept
    return found


def merged(model: nn.Module) -> nn.Module:
    """A plain copy: masks merged into the weights, parameters under their own names, shared ones still shared."""
    plain = copy_of(model)
    made: dict[int, nn.Parameter] = {}
    for owner in list(plain.modules()):
        _merge(owner, {leaf: mask for leaf, mask in _parametrised(owner).items() if mask is not None}, made)
    return plain


def _merge(owner: nn.Module, masks: Mapping[str, Mask], made: dict[int, nn.Parameter]) -> None:
    """Gives a module its own class and parameters back, in the order they had; shared ones stay shared.

    torch's ``remove_parametrizations`` would take the weight off the class, which the module's copies share.
    """
    if not masks:
        return
    values = {}
    for leaf in masks:
        held: Any = owner.parametrizations[leaf].original  # type: ignore[index, union-attr]
        value = nn.Parameter(getattr(owner, leaf).detach().clone(), requires_grad=held.requires_grad)
        values[leaf] = made.setdefault(id(held), value)
    order = next(iter(masks.values())).order
    plain = parametrize.type_before_parametrizations(owner)
    del owner.parametrizations
    owner.__class__ = plain
    own = {**owner._parameters, **values}
    owner._parameters.clear()
    owner._parameters.update({leaf: own.pop(leaf) for leaf in order if leaf in own} | own)


def own_name(name: str) -> str:
    """A parameter's name without its mask: "0.parametrizations.weight.original" -> "0.weight"."""
    return unmasked(name) if name.endswith(".original") else name


def names_of(model: nn.Module) -> list[tuple[Tensor, list[str]]]:
    """Each parameter with its names, of which a shared one has several; order and names are those without masks."""
    found: dict[int, tuple[Tensor, list[str]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for leaf, parameter in _own_parameters(module).items():
            found.setdefault(id(parameter), (parameter, []))[1].append(f"{path}.{leaf}".lstrip("."))
    return list(found.values())


def _own_parameters(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters in their order, with those under masks; what masks hold belongs to its module."""
    if isinstance(module, parametrize.ParametrizationList) and any(isinstance(part, Mask) for part in module):
        return {}
    masks = {leaf: mask for leaf, mask in _parametrised(module).items() if mask is not None}
    held = {leaf: module.parametrizations[leaf].original for leaf in masks}  # type: ignore[index, union-attr]
    own = {**module._parameters, **held}
    order = [*next(iter(masks.values())).order, *own] if masks else own
    return {leaf: parameter for leaf in order if (parameter := own.get(leaf)) is not None}


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
        UsageError: a protected name that is not there, no matrix or kernel, or weights that older tools hold.
    """
    _no_old_tools(model)
    if isinstance(protect, str):
        raise UsageError("'protect' is a list of names", expected=f"[{protect!r}]", got=repr(protect))
    modules = dict(model.named_modules(remove_duplicate=False))
    every = names_of(model)
    known = {*modules, *(name for _, names in every for name in names)}
    for name in protect:
        if name not in known:
            raise UsageError(f"there is no module or parameter {name!r} to protect", expected="a name in the model")
    found, skipped = [], {}
    for parameter, names in every:
        why = _why_whole(parameter, modules[names[0].rpartition(".")[0]], names, protect)
        if why:
            skipped[names[0]] = why
        elif parameter.ndim >= 2:
            found.append(names[0])
    if not found:
        why = "; ".join(sorted(set(skipped.values()))) or "biases and norms only"
        raise UsageError("the model has no weights to prune", expected="a matrix or kernel", cause=why)
    return found, skipped


def _no_old_tools(model: nn.Module) -> None:
    """Refuses weights that a hook computes before each run: they cannot be copied, nor seen through.

    Raises:
        UsageError: there is one.
    """
    for path, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            undo = next((undo for kind, undo in _UNDO.items() if isinstance(hook, kind)), None)
            if undo is not None:
                raise UsageError(
                    f"the weight of {path or type(model).__name__!r} is computed by a hook of an older tool",
                    expected="weights that are parameters",
                    got=type(hook).__name__,
                    fix=f"{undo} first",
                )


def _why_whole(parameter: Tensor, owner: nn.Module, names: Sequence[str], protect: Sequence[str]) -> str:
    """Why a parameter is not masked; nothing where it may be, if it is a matrix or kernel."""
    leaf = names[0].rpartition(".")[2]
    reasons = {
        "it has a parametrisation already": _reshaped(owner),
        "protected": any(name == p or name.startswith(p + ".") for name in names for p in protect if p),
        "recurrent layers read their weights past any mask": isinstance(owner, nn.RNNBase),
        "norms are left alone": parameter.ndim >= 2 and re.search(r"Norm(\d[dD])?$", type(owner).__name__),
        "biases are left alone": parameter.ndim >= 2 and re.search(r"(^|_)bias(es)?(_|$)", leaf),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _reshaped(owner: nn.Module) -> bool:
    """Whether parametrisations other than masks make weights of this module, or it is the place where they lie."""
    if isinstance(owner, parametrize.ParametrizationList):
        return True
    return None in _parametrised(owner).values()


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
    """Puts masks on a model in place, under every name of a shared weight; a mask that is there is replaced."""
    shared = {name: names for _, names in names_of(model) for name in names}
    with torch.no_grad():
        for name, kept in masks.items():
            for owner, leaf in (_owner(model, each) for each in shared[name]):
                mask = mask_of(owner, leaf)
                if mask is None:
                    parametrize.register_parametrization(owner, leaf, Mask(kept.clone(), tuple(owner._parameters)))
                else:
                    mask.kept.copy_(kept)
                original = owner.parametrizations[leaf].original  # type: ignore[index, union-attr]
                original.mul_(kept)


def _inputs_first(model: nn.Module) -> dict[str, int]:
    """The weights of shape (in, out / groups, ...), those of transposed convolutions, and their groups."""
    modules = model.named_modules(remove_duplicate=False)
    return {
        f"{path}.weight".lstrip("."): m.groups for path, m in modules if isinstance(m, nn.modules.conv._ConvTransposeNd)
    }


def warn_of_empty(masks: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
    """Says of which weights nothing is left now, where something was before."""
    gone = [n for n, kept in masks.items() if not kept.any() and (n not in before or bool(before[n].any()))]
    if gone:
        warnings.warn(
            f"nothing is left of {', '.join(gone)}: nothing passes through any more. "
            "scope='layer' removes the same share everywhere, protect= leaves weights whole",
            stacklevel=3,
        )


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
        model: not changed. What has been removed from a masked one stays removed, and counts.
        ratio: share of the weights to remove, in [0, 1); or
        threshold: remove weights whose score is below this; or
        pattern: "n:m", keep n of every m neighbours along the inputs (of an embedding along each of its vectors).
        criterion: what makes a weight important: a name (see ``luthier methods``), an object, or a function of your
            own; "magnitude" is |w|; "obs" re-fits what it keeps.
        scope: with a ratio: "global" (all weights compete), "lamp" (all compete, layers made comparable) or "layer"
            (the same share everywhere). A warning names the weights of which nothing is left.
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
    network = network_of(model)
    if not isinstance(network, nn.Module):
        raise UsageError("only models can be pruned", expected="a torch.nn.Module", got=type(model).__name__)
    if how == "pattern" and isinstance(network, KerasModule):
        raise UsageError("a pattern goes along the inputs of PyTorch's weights; Keras' lie the other way", fix="ratio=")
    names, skipped = candidates(network, protect)
    before = masks_of(network)
    source = merged(network) if before else network
    weighed = importance.weigh(source, criterion, **evidence)
    flipped = _inputs_first(source)
    masks, odd = choose({name: weighed.scores[name] for name in names}, how, amount, scope, before, flipped)
    warn_of_empty(masks, before)
    masked = copy_of(source)
    with torch.no_grad():
        for name, kept in masks.items():
            made = weighed.refit(name, kept)
            if made is not None:
                _value(masked, name).copy_(made)
    apply_masks(masked, {**before, **masks})
    return Masked(masked, {name: why for name, why in {**skipped, **odd}.items() if name not in before})
