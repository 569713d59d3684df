"""Refusals: evidence that is missing, and scores that say nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from luthier.errors import UsageError
from luthier.importance._criterion import WITH_LOSS, Evidence, Needs, Own
from luthier.model.groups import Group

_OTHER = "use another criterion, such as 'l2' for neurons or 'magnitude' for weights"


def demanded(method: Any, need: Needs, criterion: Any, data: Any, loss: Any) -> Needs | None:
    """The need where something must be gathered for it; gradients for a function of the user's own only if they can be.

    Raises:
        UsageError: there are no data to gather it from, or no loss.
    """
    lossless = loss is None and need in WITH_LOSS
    optional = isinstance(method, Own) and need == "gradients"
    if need == "nothing" or (optional and (data is None or lossless)):
        return None
    if data is None:
        raise _missing(criterion, "data", "batches of (inputs, target)")
    if lossless:
        raise _missing(criterion, "loss", "a function of (output, target), or 'cross_entropy'")
    return need


def _missing(criterion: Any, what: str, expected: str) -> UsageError:
    return UsageError(
        f"the criterion {called(criterion)} needs {what}=",
        expected=expected,
        got="None",
        fix=f"pass {what}=..., or use a criterion that looks at the weights alone, such as 'l2'",
    )


def called(criterion: Any) -> str:
    """A criterion as messages name it."""
    if isinstance(criterion, Own):
        criterion = criterion.function
    return repr(criterion) if isinstance(criterion, str) else getattr(criterion, "__name__", type(criterion).__name__)


def by_element(evidence: Evidence, scores: Any, criterion: Any) -> Tensor:
    """Scores of one tensor's elements, as they are.

    Raises:
        UsageError: they do not have the tensor's shape, or are not finite.
    """
    _shaped(scores, tuple(evidence.weight.shape), evidence.name, criterion)
    return _finite(scores, evidence.name, criterion)


def by_group(groups: Iterable[Group], scores: Mapping[str, Tensor], criterion: Any) -> dict[str, Tensor]:
    """Scores of groups, as they are; says where all of a group are alike, so that its indices go by position.

    Raises:
        UsageError: a group has none, or not one finite number for each index, or they are alike in every group.
    """
    alike, wide = [], [g for g in groups if g.size > 1]
    for group in groups:
        if group.name not in scores:
            raise _silent(
                criterion, [group.name], "nothing reaches the loss from there, or examples cannot be told apart"
            )
        _shaped(scores[group.name], (group.size,), group.name, criterion)
        values = _finite(scores[group.name], group.name, criterion)
        alike += [group.name] if group.size > 1 and _constant([values]) else []
    if wide and len(alike) == len(wide):
        raise _silent(criterion, alike, f"every score is {_first(scores[alike[0]])}")
    if alike:
        warnings.warn(
            f"the criterion {called(criterion)} scores all of {', '.join(alike[:4])} alike: units go by position there",
            stacklevel=5,
        )
    return dict(scores)


def not_mute(scores: Mapping[str, Tensor], criterion: Any) -> dict[str, Tensor]:
    """Scores of groups that are sums over elements, as they are.

    Raises:
        UsageError: all of a group are zero.
    """
    mute = [name for name, values in scores.items() if len(values) > 1 and not bool(values.any())]
    if mute:
        raise _silent(criterion, mute, "every score is zero")
    return dict(scores)


def by_weight(evidence: Iterable[Evidence], scores: Mapping[str, Tensor], criterion: Any) -> None:
    """Lets scores of single weights through that tell matrices' and kernels' elements apart, as far as these differ.

    Raises:
        UsageError: one number for all.
    """
    told = [e for e in evidence if e.weight.ndim >= 2 and not e.norm and e.weight.numel()]
    if told and _constant([scores[e.name] for e in told]) and not _constant([e.weight for e in told]):
        raise _silent(criterion, [e.name for e in told], f"every score is {_first(scores[told[0].name])}")


def _constant(parts: Sequence[Tensor]) -> bool:
    first = parts[0].flatten()[0]
    return all(bool((p == first.to(p.device)).all()) for p in parts)


def _first(scores: Tensor) -> str:
    value = float(scores.flatten()[0])
    return f"{value:g}" if value else "zero"


def _silent(criterion: Any, names: Sequence[str], why: str) -> UsageError:
    return UsageError(
        f"the criterion {called(criterion)} says nothing about {', '.join(names[:4])}: {why}",
        expected="scores that tell indices apart",
        cause="weights that are all alike, no normalisation layer there, activations that are never zero, or a loss "
        "that does not depend on them",
        fix=f"protect these modules, or {_OTHER}",
    )


def _shaped(scores: Any, shape: tuple[int, ...], name: str, criterion: Any) -> None:
    if not isinstance(scores, Tensor) or tuple(scores.shape) != shape:
        raise UsageError(
            f"the criterion {called(criterion)} does not give one score for each element of {name!r}",
            expected=f"a tensor of shape {shape}",
            got=f"a tensor of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__,
        )


def _finite(scores: Tensor, name: str, criterion: Any) -> Tensor:
    wrong = int((~torch.isfinite(scores)).sum())
    if wrong:
        raise UsageError(
            f"the criterion {called(criterion)} gives {name!r} scores that are not finite numbers",
            expected="finite numbers",
            got=f"{wrong} of {scores.numel()} are not",
            cause="data or weights that are not finite, a loss that overflows, or a division by zero",
            fix="look for NaN in the weights and the data, or use another criterion",
        )
    return scores
