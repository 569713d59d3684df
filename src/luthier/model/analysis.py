"""What may be cut from a network: its graph, the dimensions of everything in it, and the free axes among them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn

from luthier.errors import UsageError, nearest
from luthier.model import axes
from luthier.model.axes import Axis, Expr
from luthier.model.coverage import Coverage, coverage
from luthier.model.groups import Group, find_groups
from luthier.model.memory import Memory
from luthier.model.op import Dim, Dims, Facts, Frozen, Op, sizes
from luthier.model.program import ATTRIBUTES
from luthier.model.refusals import demand_sizes
from luthier.model.rules import Rule, all_rules
from luthier.model.trace import Traced, op_name, trace


@dataclass
class Analysis:
    """A network's graph and what may be cut from it.

    Args:
        model: the network, untouched.
        traced: its graph and state.
        facts: the dimensions of every result.
        operations: every operation with its rule (None where there is none), in order.
        state: the dimensions of every tensor of the state, by name.
    """

    model: nn.Module
    traced: Traced
    facts: Facts
    operations: list[tuple[Op, Rule | None]] = field(repr=False)
    state: dict[str, Dims] = field(repr=False)

    @cached_property
    def all_groups(self) -> list[Group]:
        """Every free axis, those that only go on request (head sizes, the other factor of a product) included."""
        return find_groups(self)

    @cached_property
    def _by_name(self) -> dict[str, Group]:
        return {g.name: g for g in self.all_groups}

    @property
    def groups(self) -> list[Group]:
        """The free axes that may be cut, in order of first appearance."""
        return [g for g in self.all_groups if g.default]

    @cached_property
    def frozen(self) -> list[tuple[str, int, Frozen]]:
        """The dimensions of which nothing can go: (parameter, dimension, why)."""
        found = []
        for name in self.parameters:
            for i, dim in enumerate(self.state[name]):
                whys = (
                    []
                    if axes.is_free(dim.expr)
                    else [a.why for a in axes.leaves(dim.expr) if a.why is not None and a.size > 1]
                )
                found += [(name, i, why) for why in whys[:1] if isinstance(why, Frozen)]
        return found

    @cached_property
    def coverage(self) -> Coverage:
        """How much of the network lies on free axes, and what is in the way of the rest."""
        return coverage(self)

    @cached_property
    def batched(self) -> frozenset[fx.Node]:
        """The operations whose results grow with the batch."""
        holes = [n.meta.get("val") for n in self.traced.program.graph.nodes if n.op == "placeholder"]
        symbols = {s for v in holes if isinstance(v, torch.Tensor) and v.dim() for s in _symbols(v.shape[:1])}
        return frozenset(op.node for op, _ in self.operations if _grows(op.node.meta.get("val"), symbols))

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters that the graph uses, each tensor once."""
        return [name for name in self.traced.parameters if name in self.state and name not in self.traced.ties]

    def group(self, name: str) -> Group:
        """The group of that name.

        Raises:
            UsageError: there is none.
        """
        if name in self._by_name:
            return self._by_name[name]
        raise UsageError(f"no group is called {name!r}", got=repr(name), fix=nearest(name, self._by_name))


def analyse(model: nn.Module, inputs: Any, protect: Sequence[str] = ()) -> Analysis:
    """Captures a network once and finds out which of its dimensions may be cut together.

    Args:
        model: any module; its mode does not matter and nothing of it changes.
        inputs: a tensor, a tuple of arguments, or a dict of keyword arguments.
        protect: names of modules whose output width stays. The model's own outputs always stay.

    Raises:
        TraceError: the network cannot be captured; the message names the line of its code.
        UsageError: ``protect`` names no module.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> analyse(net, torch.zeros(1, 4)).groups
        [Group('0', 8)]
    """
    _check_names(model, protect)
    return infer(model, trace(model, inputs), protect)


def infer(model: nn.Module, traced: Traced, protect: Sequence[str] = ()) -> Analysis:
    """Runs the rules over a captured graph."""
    facts, rules, memory = Facts(), all_rules(), Memory()
    state = _state_dims(traced)
    operations: list[tuple[Op, Rule | None]] = []
    for node in traced.program.graph.nodes:
        if node.op == "placeholder":
            facts.dims[node] = _input(node)
        elif node.op == "get_attr" and node.target not in ATTRIBUTES:
            facts.dims[node] = state.get(traced.ties.get(node.target, node.target))
        elif node.op == "call_function":
            demand_sizes(node)
            op = Op(node, op_name(node), facts)
            rule = rules.get(op.name) if _is_of_tensors(node) else None
            operations.append((op, rule))
            facts.dims[node] = rule.infer(op) if rule else op.unknown()
            memory.written(op)
        elif node.op == "output":
            _hold(facts, node, Frozen("the model's output"))
        memory.note(node)
    used = {traced.ties.get(n.target, n.target) for n in traced.program.graph.nodes if n.op == "get_attr"}
    analysis = Analysis(model, traced, facts, operations, {k: v for k, v in state.items() if k in used})
    _protect(analysis, protect)
    return analysis


def _is_of_tensors(node: fx.Node) -> bool:
    """Whether a node may have a rule: arithmetic of sizes, whose names are those of tensor operations, may not."""
    return isinstance(node.target, torch._ops.OpOverload) or node.target is operator.getitem


def _symbols(shape: Sequence[Any]) -> set[Any]:
    """The symbols in sizes."""
    return {x for s in shape if isinstance(s, torch.SymInt) for x in s.node.expr.free_symbols}


def _grows(value: Any, symbols: set[Any]) -> bool:
    tensors = value if isinstance(value, tuple | list) else [value]
    return any(_symbols(t.shape) & symbols for t in tensors if isinstance(t, torch.Tensor))


def _state_dims(traced: Traced) -> dict[str, Dims]:
    """One free axis per dimension. Parameters vanish where they are masked; buffers and constants do not."""
    parameters = set(traced.parameters)
    return {
        name: [Dim(Axis(int(s)), name in parameters) for s in tensor.shape] for name, tensor in traced.state.items()
    }


def _input(node: fx.Node) -> Dims | None:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    return [Dim(Axis(s, Frozen("the model's input"))) for s in sizes(value)]


def _hold(facts: Facts, node: fx.Node, why: Frozen) -> None:
    for used in node.all_input_nodes:
        for dim in facts.dims.get(used) or []:
            if isinstance(dim, Dim):
                axes.freeze(dim.expr, why)


def _check_names(model: nn.Module, protect: Sequence[str]) -> None:
    if not isinstance(model, nn.Module):
        raise UsageError("only networks can be cut", expected="a torch.nn.Module", got=type(model).__name__)
    names = [name for name, _ in model.named_modules()]
    for name in [protect] if isinstance(protect, str) else protect:
        if name not in names:
            raise UsageError(f"protect names no module: {name!r}", got=repr(name), fix=nearest(name, names))


def _protect(analysis: Analysis, protect: Sequence[str]) -> None:
    """Holds the dimensions of what leaves the named modules."""
    for name in [protect] if isinstance(protect, str) else protect:
        why = Frozen(f"protect={name!r}")
        for node in _leaving(analysis, name):
            for dim in analysis.facts.dims.get(node) or []:
                if isinstance(dim, Dim):
                    axes.freeze(dim.expr, why)


def _leaving(analysis: Analysis, module: str) -> list[fx.Node]:
    """The results of a module; where the graph does not tell modules apart, those of its last parameters."""
    nodes = [op.node for op, _ in analysis.operations]
    inside = {n for n in nodes if _is_inside(n, module)}
    if not inside:
        state = [
            n for n in analysis.traced.program.graph.nodes if n.op == "get_attr" and n.target.startswith(module + ".")
        ]
        inside = {u for n in state for u in n.users}
        return [n for n in nodes if n in inside][-1:]
    return [n for n in inside if any(u not in inside for u in n.users)]


def _is_inside(node: fx.Node, module: str) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    paths = {str(path).split("@")[0] for path, _ in stack.values()}
    return any(p == module or p.startswith(module + ".") for p in paths)


def expression(analysis: Analysis, name: str, dim: int) -> Expr:
    """What a dimension of a tensor of the state is made of."""
    return axes.find(analysis.state[analysis.traced.ties.get(name, name)][dim].expr)
