"""What matters: criteria that score weights, and the axes made of them. One file is one criterion.

A criterion's ``METHOD`` is a class with ``needs`` (what is gathered over the data, see :data:`Needs`; where units need
something else than weights do, ``neurons_need``) and at least one of

* ``elements(evidence)``: a score for every element of a tensor, and ``combine(total)``: from the sum of the
  scores of all elements that go with one index of an axis to that index's score (``terms(evidence)`` instead,
  where what is summed for an axis is not the score of a single weight);
* ``moments(x)`` or, with activation gradients, ``moments(x, gradient)``: values whose means over the data are
  wanted, and ``combine(means)``: from these means, one row each, to the score of each index; or
  ``examples(slopes)``: the same from each example's derivatives by a gate on each unit;
* ``gates(slope, curvature)``: from the loss's derivatives by a gate on each unit to its score;
* ``inputs(evidence, where, size)``: what the layers that a unit feeds lose with it;
* ``rows(matrix)``: from the weights that make each index, one row each, to the scores;

and, where what is kept makes up for what goes, ``refit(evidence, kept)``: the weight with its kept part changed.

So one file serves single weights (:func:`weight_scores`) and whole neurons, channels or heads (:func:`score`),
and none of them asks what layer it looks at. Several criteria share one pass (:func:`score_many`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from luthier import discover
from luthier.errors import UsageError
from luthier.importance import _checks
from luthier.importance._activations import ActivationGradients, Activations, input_means
from luthier.importance._axes import producing_rows, sum_over_axis
from luthier.importance._batches import batches, gather, mean_loss
from luthier.importance._criterion import WITH_LOSS, Criterion, Evidence, Needs, Own
from luthier.importance._gradients import Curvature, Gates, Gradients
from luthier.importance._layers import Covariances, InputNorms, patches_of, second_moments
from luthier.keys import Key
from luthier.model import Analysis, axes
from luthier.model.groups import Group

__all__ = [
    "WITH_LOSS",
    "Criterion",
    "Evidence",
    "Needs",
    "Own",
    "Weighed",
    "batches",
    "get",
    "input_means",
    "mean_loss",
    "names",
    "patches_of",
    "score",
    "score_many",
    "second_moments",
    "weigh",
    "weight_scores",
]

Kind = str | Criterion | Callable[[Evidence], Tensor]
AUTO = ("l2", "l2")
"""What "auto" stands for: with data and a loss, and without. For now both are "l2": no criterion that needs data did
better under the same allocation (see bench/prune/README.md)."""


def names() -> list[str]:
    """The criteria there are."""
    return discover.names(__name__)


def get(criterion: Kind) -> Any:
    """The criterion of that name; an object is handed through, a function becomes a criterion.

    "auto" is what :data:`AUTO` says where there are no data; :func:`score` takes the other one, given data and a loss.

    Raises:
        UsageError: there is no such criterion.
    """
    if isinstance(criterion, str):
        other = {"magnitude": "l1", "gradient": "taylor", "auto": AUTO[1]}
        return discover.load(__name__, other.get(criterion, criterion), "criterion")()
    return criterion if hasattr(criterion, "needs") else Own(criterion)


def _settled(criterion: Kind, data: Any, loss: Any) -> Any:
    """The same, with "auto" read by :data:`AUTO`."""
    known = data is not None and loss is not None
    return get(AUTO[0] if isinstance(criterion, str) and criterion == "auto" and known else criterion)


def neurons_need(method: Any) -> Needs:
    """What a criterion needs for units."""
    needs: Needs = getattr(method, "neurons_need", method.needs)
    return needs


def score(
    analysis: Analysis,
    criterion: Kind = "l2",
    data: Iterable[Any] | None = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    *,
    groups: Iterable[Group] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Scores every index of every group: the least goes first.

    Args:
        analysis: of the network.
        criterion: a name (see ``luthier methods``), an object, or a function of your own; "auto" chooses by what
            there is to go by.
        data: batches, as (inputs, target) pairs, or tensors (inputs, target), where the criterion needs them.
        loss: from the model's output and the target to a number, or a name: a task's ("cross_entropy", "bce", "mse"
            ...) or one in ``torch.nn.functional``.
        groups: which groups; all that are cut by default if None.
        seed: for criteria that draw.

    Returns:
        group name -> scores [group size], float64.

    Raises:
        UsageError: the criterion needs data or a loss and there is none; it has no score for a group, or none that is
            finite; all of a group's sums are zero; or the scores are alike in every group. Where they are alike in one
            of several groups only, a warning says that its indices go by position.

    Example:
        >>> from luthier.model import analyse
        >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
        >>> scores = score(analyse(net, torch.zeros(1, 2)), "l2")
        >>> scores["0"].shape
        torch.Size([3])
    """
    (found,) = score_many(analysis, [criterion], data, loss, groups=groups, seed=seed)
    return found


def score_many(
    analysis: Analysis,
    criteria: Sequence[Kind],
    data: Iterable[Any] | None = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    *,
    groups: Iterable[Group] | None = None,
    seed: int = 0,
) -> list[dict[str, Tensor]]:
    """The scores of several criteria from one pass over the data, in memory that does not grow with it.

    Args:
        analysis: of the network.
        criteria: names, objects or functions; the other arguments are those of :func:`score`.
        data: batches.
        loss: of (output, target).
        groups: which groups.
        seed: for criteria that draw.

    Returns:
        for each criterion its scores by group name.

    Raises:
        UsageError: a criterion needs data or a loss and there is none.
    """
    chosen = list(analysis.groups if groups is None else groups)
    methods = [_settled(c, data, loss) for c in criteria]
    pairs = list(enumerate(zip(methods, criteria, strict=True)))
    wanted = {i: _checks.demanded(m, neurons_need(m), c, data, loss) for i, (m, c) in pairs}
    statistics = _statistics(analysis, chosen, {i: m for i, m in enumerate(methods) if wanted[i]}, wanted, loss, seed)
    if statistics and data is not None:
        gather(analysis.model, data, statistics.values())
    found = {need: statistic.result() for need, statistic in statistics.items()}
    scored = [_scored(analysis, chosen, m, i, found, c, seed) for i, (m, c) in pairs]
    return [_checks.by_group(chosen, s, c) for s, c in zip(scored, criteria, strict=True)]


def _statistics(
    analysis: Analysis,
    groups: Sequence[Group],
    methods: Mapping[int, Any],
    wanted: Mapping[int, Any],
    loss: Any,
    seed: int,
) -> dict[str, Any]:
    """What has to be gathered, once for all criteria."""
    out: dict[str, Any] = {}
    for need in dict.fromkeys(wanted[i] for i in methods):
        mine = {i: m for i, m in methods.items() if wanted[i] == need}
        if need == "activations":
            out[need] = Activations(analysis, groups, {i: m.moments for i, m in mine.items()})
        elif need == "activation_gradients":
            moments = {i: m.moments for i, m in mine.items() if hasattr(m, "moments")}
            examples = {i: m.examples for i, m in mine.items() if hasattr(m, "examples")}
            out[need] = ActivationGradients(analysis, groups, loss, moments, examples)
        elif need == "gates":
            out[need] = Gates(analysis, groups, loss, Key(seed))
        else:
            out[need] = _of_weights(analysis.model, need, loss, seed)
    return out


def _of_weights(model: nn.Module, need: str, loss: Any, seed: int) -> Any:
    if need == "inputs":
        return InputNorms(model)
    if need == "covariance":
        return Covariances(model)
    if need == "curvature":
        return Curvature(model, loss, Key(seed))
    return Gradients(model, loss, examples=need == "examples")


def _scored(
    analysis: Analysis,
    groups: Sequence[Group],
    method: Any,
    i: int,
    found: Mapping[str, Any],
    criterion: Any,
    seed: int,
) -> dict[str, Tensor]:
    need = neurons_need(method)
    if need in ("activations", "activation_gradients"):
        return {name: method.combine(rows) for name, rows in found[need][i].items()}
    if need == "gates":
        return {name: method.gates(*pair) for name, pair in found[need].items()}
    if hasattr(method, "rows"):
        return {g.name: method.rows(producing_rows(g, analysis.traced.state)) for g in groups}
    evidence = {e.name: e for e in _evidence(analysis.model, need, found.get(need, {}), seed)}
    if hasattr(method, "inputs"):
        return {g.name: _by_consumers(g, method, evidence) for g in groups}
    terms = getattr(method, "terms", None) or method.elements
    elements = {name: _checks.by_element(e, terms(e), criterion) for name, e in evidence.items()}
    return _checks.not_mute({g.name: method.combine(sum_over_axis(g, elements)) for g in groups}, criterion)


def _by_consumers(group: Group, method: Any, evidence: Mapping[str, Evidence]) -> Tensor:
    """What the layers that a group feeds lose; where that is unknown, the sum over the group's own elements."""
    total, known = torch.zeros(group.size, dtype=torch.float64), False
    for place in group.occurrences:
        if place.dim == 1 and place.parameter in evidence:
            where = torch.from_numpy(axes.positions(place.expr, group.axis))
            lost = method.inputs(evidence[place.parameter], where, group.size)
            if lost is not None:
                total, known = total + lost.cpu(), True
    if known:
        return total
    elements = {
        p.parameter: method.elements(evidence[p.parameter]) for p in group.occurrences if p.parameter in evidence
    }
    combined: Tensor = method.combine(sum_over_axis(group, elements))
    return combined


@dataclass(frozen=True)
class Weighed:
    """Weights with their scores, and what the criterion makes of those that stay.

    Attributes:
        scores: parameter name -> scores of the same shape.
        method: the criterion.
        evidence: parameter name -> what it went by.
    """

    scores: Mapping[str, Tensor]
    method: Any
    evidence: Mapping[str, Evidence]

    def refit(self, name: str, kept: Tensor) -> Tensor | None:
        """A parameter with its kept part changed to make up for the rest; None where the criterion does not."""
        made: Tensor | None = None
        if hasattr(self.method, "refit"):
            made = self.method.refit(self.evidence[name], kept)
        return made


def for_weights(criterion: Kind, data: Any = None, loss: Any = None, *, seed: int = 0) -> tuple[Any, Needs | None]:
    """A criterion of single weights, and what must be gathered for it.

    Raises:
        UsageError: it scores neurons only, or data or a loss is missing.
    """
    method = _settled(criterion, data, loss)
    if not hasattr(method, "elements"):
        raise UsageError(
            f"the criterion {criterion!r} scores neurons, not single weights",
            expected="one of " + ", ".join(n for n in names() if hasattr(get(n), "elements")),
        )
    return method, _checks.demanded(method, method.needs, criterion, data, loss)


def weigh(
    model: nn.Module,
    criterion: Kind = "l1",
    data: Iterable[Any] | None = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    *,
    seed: int = 0,
) -> Weighed:
    """Scores every element of every parameter, and keeps what the scores were made from.

    The arguments and errors are those of :func:`weight_scores`.
    """
    method, need = for_weights(criterion, data, loss)
    found = {}
    if need and data is not None:
        statistic = _of_weights(model, need, loss, seed)
        gather(model, data, [statistic])
        found = statistic.result()
    evidence = {e.name: e for e in _evidence(model, method.needs, found, seed)}
    scores = {name: _checks.by_element(e, method.elements(e), criterion) for name, e in evidence.items()}
    _checks.by_weight(evidence.values(), scores, criterion)
    return Weighed(scores, method, evidence)


def weight_scores(
    model: nn.Module,
    criterion: str | Criterion | Callable[[Evidence], Tensor] = "l1",
    data: Iterable[Any] | None = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Scores every element of every parameter.

    Args:
        model: the network.
        criterion: a name, an object or a function, of the kind that scores weights.
        data: batches, as (inputs, target) pairs, or tensors (inputs, target), where the criterion needs them.
        loss: from the model's output and the target to a number, or a name: a task's ("cross_entropy", "bce", "mse"
            ...) or one in ``torch.nn.functional``.
        seed: for criteria that draw.

    Returns:
        parameter name -> scores of the same shape.

    Raises:
        UsageError: a criterion of activations; data or a loss is missing; scores of another shape, that are not
            finite, or that are one number for all matrices and kernels. Where they are alike in one of several layers
            only, ties there go by position.

    Example:
        >>> float(weight_scores(nn.Linear(1, 1), "magnitude")["weight"].min()) >= 0
        True
    """
    return dict(weigh(model, criterion, data, loss, seed=seed).scores)


def _evidence(model: nn.Module, need: str, found: Mapping[str, Any], seed: int) -> Iterable[Evidence]:
    norms = {f"{path}.weight".lstrip(".") for path, m in model.named_modules() if "Norm" in type(m).__name__}
    called: dict[int, list[str]] = {}  # a shared weight goes by what is known of it under any of its names
    for name, parameter in model.named_parameters(remove_duplicate=False):
        called.setdefault(id(parameter), []).extend([name, unmasked(name)])
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            given = next((found[n] for n in called[id(parameter)] if n in found), None)
            known = {} if given is None else _known(need, given)
            yield Evidence(name, parameter.detach(), norm=name in norms, key=Key(seed), **known)


def unmasked(name: str) -> str:
    """The name that a masked parameter had: "0.parametrizations.weight.original" -> "0.weight"."""
    return name.replace("parametrizations.", "").removesuffix(".original")


def _known(need: str, value: Any) -> dict[str, Tensor]:
    if need in ("inputs", "covariance"):
        return {need: value}
    return {"grad": value[0], "curvature" if need == "curvature" else "grad2": value[1]}
