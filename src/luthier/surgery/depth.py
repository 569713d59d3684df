"""Depth: whole residual branches are units of cutting too. A branch that goes leaves the identity behind.

Width alone does not reach small latencies: every node that is left still costs. A branch is one operand of an
addition together with all that only it uses; it is found in the graph, so no class has to say where its blocks are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from luthier import importance
from luthier.errors import UsageError, unknown
from luthier.model import Analysis, Program, analyse, cost
from luthier.model.compare import difference, repeatable
from luthier.model.program import ATTRIBUTES
from luthier.model.run import run
from luthier.model.trace import is_impure, op_name
from luthier.surgery.blueprint import Blueprint
from luthier.surgery.cut import rebuild
from luthier.surgery.plan import Plan, make_plan
from luthier.surgery.pruned import Pruned
from luthier.surgery.verify import EXACT, Proof, demand, doubled, faithful, shaken


@dataclass(frozen=True)
class Branch:
    """One operand of an addition, with all that only it uses.

    Args:
        name: the module that its parameters have in common, such as "layer1.0" or "blocks.3.attn".
        add: the addition.
        stays: the other operand.
        nodes: what goes.
        parameters: names of the parameters that only the branch uses.
        macs: multiply-adds that go with it, on the example inputs.
    """

    name: str
    add: fx.Node = field(repr=False)
    stays: fx.Node = field(repr=False)
    nodes: frozenset[fx.Node] = field(repr=False)
    parameters: tuple[str, ...] = field(repr=False)
    macs: int


def branches(analysis: Analysis) -> list[Branch]:
    """The branches of a network, in order of execution; of two operands that could both go, the costlier one.

    Example:
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)
        ...     def forward(self, x):
        ...         return self.b(x + self.a(x).relu())
        >>> [b.name for b in branches(analyse(Net(), torch.zeros(2, 4)))]
        ['a']
    """
    counts = cost.by_operation(analysis)
    found = [b for op, _ in analysis.operations if (b := _of_addition(analysis, op.node, counts))]
    taken: dict[str, int] = {}
    out = []
    for b in found:
        taken[b.name] = taken.get(b.name, 0) + 1
        number = taken[b.name]
        name = b.name if number == 1 else f"{b.name}:{number - 1}"
        out.append(Branch(name, b.add, b.stays, b.nodes, b.parameters, b.macs))
    return out


def _of_addition(analysis: Analysis, node: fx.Node, counts: Mapping[fx.Node, int]) -> Branch | None:
    if op_name(node) not in ("add", "add_") or len(node.args) < 2 or "alpha" in node.kwargs:
        return None
    sides = [a for a in node.args[:2] if isinstance(a, fx.Node)]
    if len(sides) < 2 or not all(_same_shape(s, node) for s in sides):
        return None
    options = [b for i in (0, 1) if (b := _branch(analysis, node, sides[i], sides[1 - i], counts))]
    return max(options, key=lambda b: b.macs, default=None)


def _same_shape(a: fx.Node, b: fx.Node) -> bool:
    x, y = a.meta.get("val"), b.meta.get("val")
    if not isinstance(x, torch.Tensor) or not isinstance(y, torch.Tensor):
        return False
    return [str(s) for s in x.shape] == [str(s) for s in y.shape] and x.dtype == y.dtype


def _branch(
    analysis: Analysis, add: fx.Node, goes: fx.Node, stays: fx.Node, counts: Mapping[fx.Node, int]
) -> Branch | None:
    nodes = _exclusive(goes, add)
    if not nodes or stays in nodes or _writes_outside(nodes):
        return None
    ties = analysis.traced.ties
    names = {str(ties.get(str(n.target), n.target)) for n in nodes if n.op == "get_attr" and n.target not in ATTRIBUTES}
    mine = tuple(name for name in analysis.parameters if name in names)
    macs = sum(counts.get(n, 0) for n in nodes)
    return Branch(_common(mine), add, stays, frozenset(nodes), mine, macs) if mine and macs else None


def _exclusive(goes: fx.Node, add: fx.Node) -> set[fx.Node]:
    """All that is used for nothing but this operand."""
    if set(goes.users) != {add}:
        return set()
    nodes, todo = {goes}, [goes]
    while todo:
        for n in todo.pop().all_input_nodes:
            if n not in nodes and n.op != "placeholder" and all(u in nodes for u in n.users):
                nodes.add(n)
                todo.append(n)
    return nodes


def _writes_outside(nodes: set[fx.Node]) -> bool:
    calls = [n for n in nodes if n.op == "call_function" and op_name(n).endswith("_")]
    return any(isinstance(n.args[0], fx.Node) and n.args[0] not in nodes for n in calls)


def _common(names: Sequence[str]) -> str:
    """The module path that parameters share.

    Example:
        >>> _common(["layer1.0.conv1.weight", "layer1.0.conv2.weight"])
        'layer1.0'
    """
    paths = [name.split(".")[:-1] for name in names]
    same = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in same)


def branch_scores(
    analysis: Analysis,
    criterion: str | importance.Criterion | Callable[[importance.Evidence], Tensor] = "l2",
    data: Iterable[Any] | None = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
) -> dict[str, float]:
    """The mean score of a branch's weights, by the same criteria as for single weights: the least goes first.

    Raises:
        UsageError: a criterion that does not score weights, or data or a loss is missing.
    """
    elements = importance.weight_scores(analysis.model, criterion, data, loss)
    out = {}
    for b in branches(analysis):
        total = sum(float(elements[name].sum(dtype=torch.float64)) for name in b.parameters)
        out[b.name] = total / sum(elements[name].numel() for name in b.parameters)
    return out


def drop_branches(model: nn.Module, inputs: Any, names: Sequence[str]) -> Pruned:
    """Removes whole branches, and proves that the rest computes what it did with their contribution zeroed.

    Args:
        model: any module; it is not changed.
        inputs: example inputs.
        names: which branches: see :func:`branches`.

    Returns:
        the new network (graph target); parameters that went are kept in the plan with no index left.

    Raises:
        UsageError: there is no such branch.
        CheckError: a proof failed.
    """
    analysis = analyse(model, inputs)
    known = {b.name: b for b in branches(analysis)}
    for name in names:
        if name not in known:
            raise unknown("branch", name, known)
    chosen = [known[name] for name in names]
    program, left = _without(analysis, chosen)
    proofs = demand([faithful(analysis), *_proved(analysis, chosen, program)])
    state = {
        n: t.detach().clone().requires_grad_(t.requires_grad) for n, t in analysis.traced.state.items() if n in left
    }
    if not any(n in left for n in analysis.parameters):
        raise UsageError("nothing would be left of the network", got=", ".join(names))
    module = rebuild(analysis, program, state).train(model.training)
    blueprint = Blueprint.of(analysis.traced, program, state, {}, "graph")
    plan = _plan(analysis, chosen, left)
    return Pruned(module, plan, analysis.coverage, proofs, "graph", "branches go by the graph", blueprint)


def _without(analysis: Analysis, chosen: Sequence[Branch]) -> tuple[Program, set[str]]:
    """The graph without these branches, and the names of the tensors that it still needs."""
    whole = analysis.traced.program
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in whole.graph.nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    for b in chosen:
        copies[b.add].replace_all_uses_with(_standing(b.stays, chosen, copies))
    gone_nodes = {copies[n] for b in chosen for n in (*b.nodes, b.add)}
    graph.eliminate_dead_code(lambda n: n not in gone_nodes and is_impure(n))
    ties = analysis.traced.ties
    used = {str(ties.get(str(n.target), n.target)) for n in graph.nodes if n.op == "get_attr"}
    gone = {name for b in chosen for name in b.parameters} - used
    modules = {name.rpartition(".")[0] for name in gone}
    left = {n for n in analysis.traced.state if n in used or not (n in gone or n.rpartition(".")[0] in modules)}
    return replace(whole, graph=graph), left


def _standing(node: fx.Node, chosen: Sequence[Branch], copies: Mapping[fx.Node, fx.Node]) -> fx.Node:
    """What is left of an operand that may itself be an addition whose branch goes."""
    dropped = {b.add: b.stays for b in chosen}
    while node in dropped:
        node = dropped[node]
    return copies[node]


def _proved(analysis: Analysis, chosen: Sequence[Branch], program: Program) -> list[Proof]:
    """The graph without the branches against the whole one with their contributions zeroed, in float64."""
    zeroed = {b.add: b.stays for b in chosen}

    def step(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        if node not in zeroed:
            return NotImplemented
        other = next(a for a in node.args[:2] if a is not zeroed[node])
        return values[zeroed[node]] + torch.zeros_like(values[other])  # type: ignore[index]

    state, inputs = shaken(analysis.traced.state), doubled(analysis.traced.inputs)
    with torch.no_grad():
        with cost.counting() as after, repeatable():
            got = run(analysis.traced, state, inputs, program=program)
        with cost.counting() as before, repeatable():
            expected = run(analysis.traced, state, inputs, step=step)
    saved = (before.get_total_flops() - after.get_total_flops()) // 2
    predicted = sum(b.macs for b in chosen)
    words = f"{predicted:,} MACs saved by prediction, {saved:,} by PyTorch's counter"
    return [
        Proof("cut == masked", difference(got, expected), EXACT, "float64, weights shaken, branches zeroed"),
        Proof("predicted cost == counted cost", float(abs(saved - predicted)), 0.0, words),
    ]


def _plan(analysis: Analysis, chosen: Sequence[Branch], left: set[str]) -> Plan:
    whole = make_plan(analysis, {})
    kept = {name: dims if name in left else [[], *dims[1:]] for name, dims in whole.kept.items()}
    macs = whole.macs[0] - sum(b.macs for b in chosen)
    return Plan(
        {}, whole.sizes, kept, whole.buffers, whole.shapes, (whole.macs[0], macs), tuple(b.name for b in chosen)
    )
