"""Changes the model, then proves it: ``prune_neurons`` is analyse, score, allocate, cut, verify."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from luthier import importance
from luthier.allocate import (
    Allocation,
    Cost,
    CostLimits,
    Ratio,
    Rounding,
    SensitivityMap,
    measure_map,
    needs_map,
    strongest,
)
from luthier.allocate import allocate as allocate_widths
from luthier.errors import BudgetError, CheckError, UsageError, unknown
from luthier.importance import Criterion, Evidence
from luthier.measure.table import Predictor, Table
from luthier.measure.widths import multiple_for
from luthier.model import Analysis, Rebuilt, analyse
from luthier.model.cost import KeepByName
from luthier.model.keras import network_of
from luthier.surgery.blueprint import Attributes, Blueprint
from luthier.surgery.compensate import compensate as fold_means
from luthier.surgery.cut import cut_program, rebuild, slice_state
from luthier.surgery.depth import Branch, branch_scores, branches, drop_branches
from luthier.surgery.latency import Keep, Nearby, to_latency
from luthier.surgery.module import apply, attempts, attributes, cut_module
from luthier.surgery.part import inside, part_of, with_part
from luthier.surgery.plan import Plan, make_plan
from luthier.surgery.pruned import Pruned
from luthier.surgery.reconstruct import reconstruct
from luthier.surgery.size import FileSize
from luthier.surgery.verify import Proof, demand, faithful, same_module, verify

__all__ = [
    "Branch",
    "Plan",
    "Proof",
    "Pruned",
    "branch_scores",
    "branches",
    "cut",
    "drop_branches",
    "make_plan",
    "prune_neurons",
    "verify",
    "widths_for",
]

_CORRECTIONS = 3
_REACH = 3  # steps of a width
_COMPENSATIONS = {"mean": fold_means, "least_squares": reconstruct}


def cut(model: nn.Module, analysis: Analysis, keep: KeepByName, *, target: str = "auto", check: bool = True) -> Pruned:
    """Cuts a network to the indices that stay, and proves that nothing else changed.

    Args:
        model: the network that was analysed; it is not changed.
        analysis: of it.
        keep: group name -> indices that stay; groups that are not named stay whole.
        target: "module", "graph", or "auto": the user's own class where it verifies, else the graph.
        check: whether to prove cut == masked; only loops that prove their survivors later should turn it off.

    Raises:
        CheckError: a proof failed; nothing must be used.
        UsageError: indices that cannot stay, or an unknown target.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> pruned = cut(net, analyse(net, torch.zeros(1, 4)), {"0": [1, 2, 5]})
        >>> pruned.model[0], pruned.target
        (Linear(in_features=4, out_features=3, bias=True), 'module')
    """
    if target not in ("auto", "module", "graph"):
        raise UsageError("unknown target", expected="'auto', 'module' or 'graph'", got=repr(target))
    if model is not analysis.model:
        raise UsageError("the analysis is of another model", fix="analyse the model that is cut")
    plan = make_plan(analysis, keep)
    program, copies = cut_program(analysis, plan.groups)
    proofs = [faithful(analysis)] if check else []  # first: networks may write to their own tensors when they run
    state = slice_state(analysis.traced.state, plan)
    proofs += verify(analysis, plan, program, copies, state) if check else []
    demand(proofs)
    graph = rebuild(analysis, program, state).train(model.training)
    made, why = (None, "asked for") if target == "graph" else _module(analysis, plan, graph, copies)
    if made is None:
        if target == "module":
            raise CheckError("the model's own class cannot be sliced", cause=why, fix="target='graph'")
        blueprint = Blueprint.of(analysis.traced, program, state, {}, "graph")
        return Pruned(graph, plan, analysis.coverage, tuple(proofs), "graph", why, blueprint)
    proof, module, sizes = made
    blueprint = Blueprint.of(analysis.traced, program, state, sizes, "module")
    return Pruned(module, plan, analysis.coverage, (*proofs, proof), "module", why, blueprint)


def _module(
    analysis: Analysis, plan: Plan, graph: nn.Module, copies: Mapping[fx.Node, fx.Node]
) -> tuple[tuple[Proof, nn.Module, Attributes] | None, str]:
    """The user's own class, if slicing it gives what the cut graph gives."""
    if isinstance(analysis.model, Rebuilt):
        return None, "the model runs a captured graph already"
    name, whys = type(analysis.model).__name__, []
    try:
        module = cut_module(analysis, slice_state(analysis.traced.state, plan), plan.groups, copies)
    except Exception as error:
        return None, f"{name} cannot be copied and sliced: {_short(error)}"
    tries = list(attempts(analysis, plan.groups))
    every = {k: v for sizes in tries for k, v in sizes.items()}
    for sizes in tries:
        apply(module, analysis.model, sizes, every)
        try:
            proof = same_module(module, graph, analysis, plan)
        except Exception as error:
            whys.append(f"the sliced {name} does not run: {_short(error)}")
            continue
        if proof.passed:
            found = attributes(module, analysis.model)
            return (proof, module, found), "the sliced class gives what the cut graph gives"
        whys.append(f"the sliced {name} computes something else")
    return None, whys[0]


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def prune_neurons(
    model: nn.Module,
    inputs: Any,
    *,
    ratio: Ratio | None = None,
    threshold: float | None = None,
    budget: Mapping[str, float] | None = None,
    criterion: str | Criterion | Callable[[Evidence], Tensor] = "l2",
    allocate: str | Allocation = "uniform",
    protect: Sequence[str] = (),
    multiple: int | str | None = None,
    minimum: int = 1,
    data: Iterable[Any] | None = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    compensate: str | None = None,
    head_dim: bool = False,
    part: str | None = None,
    target: str = "auto",
    seed: int = 0,
    costs: Mapping[str, Cost] | None = None,
) -> Pruned:
    """Removes whole neurons, channels and heads, and proves that what is left computes what it did.

    Args:
        model: any module; it is not changed.
        inputs: example inputs: a tensor, a tuple of arguments, or a dict of keyword arguments.
        ratio: the share that goes from every free axis, or shares by pattern of group names; a group's own name
            counts before patterns, and of several patterns the last.
        threshold: instead: whatever scores below it goes; without an allocation.
        budget: instead: the share of "macs", "params", "bytes" or "latency" that may be left; bytes are those of the
            ONNX file, latency is ONNX Runtime's on the example inputs, predicted, then measured and corrected.
        criterion: what is unimportant: a name (see ``luthier methods``), an object, or a function of your own.
        allocate: how much goes where.
        protect: names of modules whose output width stays; the model's own outputs always stay.
        multiple: widths become multiples of it; "auto" is what measurements say that this machine's runtime likes,
            or half of that, and so on, where no budget can be met with it.
            None is "auto" with a budget of latency, and 1 else, so that ratios are exactly what was asked for.
        minimum: the least number of indices that stay of each group.
        data: batches of (inputs, target), or tensors (inputs, target), where the criterion needs them.
        loss: of (output, target), or a task's name for it, where the criterion needs it.
        compensate: "mean" folds the removed units' mean output over ``data`` into the consumers' biases;
            "least_squares" re-fits the consumers' weights to what they computed before.
        head_dim: cut the size of attention heads as well as their number.
        part: cut only this sub-module, by a criterion that looks at weights alone; for models that cannot be
            captured whole. Names in the plan, and patterns of ``ratio``, are then the part's own.
        target: "module", "graph" or "auto".
        seed: for criteria that draw.
        costs: further costs that a budget may name: functions from what stays to a number.

    Returns:
        the new model with its plan, coverage and proofs.

    Raises:
        TraceError: the network cannot be captured.
        UsageError: arguments that do not fit.
        BudgetError: no cut meets the budget.
        CheckError: a proof failed.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> prune_neurons(net, torch.zeros(1, 4), ratio=0.5).model
        Sequential(
          (0): Linear(in_features=4, out_features=4, bias=True)
          (1): ReLU()
          (2): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    if compensate is not None and compensate not in _COMPENSATIONS:
        raise unknown("compensation", compensate, _COMPENSATIONS)
    model = whole = network_of(model)
    if part is not None:
        _names_exist(model, protect)
        model, inputs = part_of(model, inputs, part)
        protect = inside(protect, part)
        if importance.get(criterion).needs != "nothing" or compensate is not None:
            raise UsageError("a part is cut by its weights alone", expected="criterion='l2' or the like, no compensate")
    analysis = analyse(model, inputs, protect)
    groups = [g for g in analysis.all_groups if g.default or (head_dim and "head size" in g.roles)]
    if not groups:
        warnings.warn(f"nothing of {type(model).__name__} can be cut: {analysis.coverage}", stacklevel=2)
    _all_finite(analysis)
    scores = importance.score(analysis, criterion, data, loss, groups=groups, seed=seed)
    if multiple is None:
        multiple = "auto" if budget is not None and "latency" in budget else 1
    amount = {"ratio": ratio, "threshold": threshold, "budget": budget}
    found = _map(analysis, scores, data, loss) if needs_map(allocate) else None
    choose = partial(widths_for, analysis, scores, amount, allocate, found=found, costs=costs)
    keep = rounded(choose, analysis, multiple, minimum)
    pruned = cut(model, analysis, keep, target=target)
    if compensate is not None:
        _COMPENSATIONS[compensate](pruned.model, analysis, pruned.plan, data)
    if part is None:
        return pruned
    return replace(pruned, model=with_part(whole, part, pruned.model), part=part)


def _map(analysis: Analysis, scores: Mapping[str, Tensor], data: Any, loss: Any) -> SensitivityMap:
    """What the removal of each group does to the loss over the data."""
    if data is None or loss is None:
        raise UsageError(
            "allocate='sensitivity' needs data= and loss=",
            expected="batches of (inputs, target), and a loss",
            fix="pass both, or a map: allocate=Sensitivity(measure_map(...))",
        )
    if isinstance(data, Iterator):
        raise UsageError("allocate='sensitivity' goes through the data many times", expected="a loader or a list")
    return measure_map(analysis, scores, lambda model: importance.mean_loss(model, data, loss))


def rounded(choose: Callable[..., Keep], analysis: Analysis, multiple: int | str, minimum: int = 1) -> Keep:
    """Which indices stay, in multiples; "auto" goes below the liked one where no budget can be met with it.

    Args:
        choose: from ``rounding=`` to which indices stay.
        analysis: of the network.
        multiple: a number, or "auto".
        minimum: the least number of indices that stay of each group.

    Raises:
        BudgetError: no cut meets the budget.
    """
    step = multiple_for(analysis, multiple)
    while True:
        try:
            return choose(rounding=Rounding(step, minimum))
        except BudgetError:
            if multiple != "auto" or step == 1:
                raise
        step //= 2


def widths_for(
    analysis: Analysis,
    scores: Mapping[str, Tensor],
    amount: Mapping[str, Any],
    method: str | Allocation,
    *,
    rounding: Rounding,
    found: SensitivityMap | None = None,
    costs: Mapping[str, Cost] | None = None,
) -> Keep:
    """Which indices stay, as :func:`luthier.allocate.allocate` says it, with budgets of files and of measured latency.

    Args:
        analysis: of the network.
        scores: group name -> scores.
        amount: "ratio", "threshold" or "budget" -> how much.
        method: the allocation.
        rounding: multiples and least widths.
        found: a sensitivity map, for the allocations that go by one.
        costs: further costs that a budget may name.
    """
    known, budget = dict(costs or {}), amount.get("budget") or {}
    allocated = partial(allocate_widths, analysis, scores, method, rounding=rounding, sensitivity=found)
    size = FileSize(analysis) if "bytes" in budget and "bytes" not in known else None
    if size is not None:
        known["bytes"] = size
    timed = "latency" in budget and "latency" not in known
    nearby = partial(_neighbours, analysis, scores, rounding)
    choose = (
        partial(_timed, analysis, budget, allocated, known, nearby)
        if timed
        else partial(allocated, **amount, costs=known)
    )
    keep = choose()
    for _ in range(_CORRECTIONS):
        if size is None or not size.corrected(keep, _built(analysis, keep), budget["bytes"]):
            break
        keep = choose()
    return keep


def _built(analysis: Analysis, keep: Keep) -> nn.Module:
    """The network that is left, unproven."""
    return cut(analysis.model, analysis, keep, check=False).model


def _timed(
    analysis: Analysis,
    budget: Mapping[str, float],
    allocated: Callable[..., Keep],
    known: dict[str, Cost],
    neighbours: Callable[[Keep], Iterator[Keep]],
) -> Keep:
    """What stays for a budget of latency."""
    table = Table.here()
    predict = Predictor(analysis, table)
    costs: dict[str, Cost] = {**known, "latency": predict}
    limits = CostLimits.of(analysis, {n: share for n, share in budget.items() if n != "latency"} or {"macs": 1}, costs)

    def keep_at(aim: float) -> Keep:
        with warnings.catch_warnings(action="ignore"):  # what counts is what is measured in the end
            return allocated(budget={**budget, "latency": aim}, costs=costs)

    try:
        nearby = Nearby(predict, lambda keep: (k for k in neighbours(keep) if limits.used(k) <= 1))
        return to_latency(analysis, budget["latency"], keep_at, partial(_built, analysis), nearby)
    finally:
        table.save()


def _neighbours(analysis: Analysis, scores: Mapping[str, Tensor], rounding: Rounding, keep: Keep) -> Iterator[Keep]:
    """The cuts that differ from one in the width of one group, by a few steps."""
    for group in (g for g in analysis.all_groups if g.name in scores):
        now = len(keep.get(group.name, range(group.size)))
        for width in rounding.widths(group):
            if 0 < abs(width - now) <= _REACH * rounding.step(group):
                rest = {name: index for name, index in keep.items() if name != group.name}
                mine = {} if width == group.size else {group.name: strongest(scores[group.name], width)}
                yield rest | mine


def _all_finite(analysis: Analysis) -> None:
    """A network that is broken already is not cut: nothing could be proven of it."""
    state = analysis.traced.state
    wrong = [n for n in analysis.parameters if state[n].is_floating_point() and not bool(state[n].isfinite().all())]
    if wrong:
        raise UsageError(
            "the network's weights are not finite",
            got=", ".join(wrong[:4]),
            cause="a training that diverged, or a damaged checkpoint",
            fix="load weights from before that",
        )


def _names_exist(model: nn.Module, names: Sequence[str]) -> None:
    known = dict(model.named_modules())
    for name in [names] if isinstance(names, str) else names:
        if name not in known:
            raise unknown("module", name, known)
