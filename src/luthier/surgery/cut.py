"""The cut itself: tensors sliced by the plan, and the graph's sizes rewritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import fx

from luthier.model import Analysis, Program, Rebuilt, cost
from luthier.surgery.plan import Kept, Plan


def slice_state(state: Mapping[str, torch.Tensor], plan: Plan) -> dict[str, torch.Tensor]:
    """The tensors that stay, as copies; flags of what trains are kept."""
    return {name: sliced(t, kept_of(plan, name)).requires_grad_(t.requires_grad) for name, t in state.items()}


def sliced(tensor: torch.Tensor, dims: list[list[int] | None] | None) -> torch.Tensor:
    """A copy of what stays of one tensor."""
    out = tensor.detach()
    for i, index in enumerate(dims or []):
        if index is not None:
            out = out.index_select(i, torch.as_tensor(index, device=out.device))
    return out.clone() if out.data_ptr() == tensor.data_ptr() else out


def kept_of(plan: Plan, name: str) -> list[list[int] | None] | None:
    """What stays of a tensor of the state, by dimension; None where all of it does."""
    tables: tuple[Kept, Kept] = (plan.kept, plan.buffers)
    return next((table[name] for table in tables if name in table), None)


def cut_program(analysis: Analysis, groups: Mapping[str, list[int]]) -> tuple[Program, dict[fx.Node, fx.Node]]:
    """The graph with every size rewritten.

    Returns:
        the cut program, and from each node of the original graph to its copy.
    """
    size = cost.Sizes(cost.keep_axes(analysis, groups))
    program = analysis.traced.program
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in program.graph.nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    for op, rule in analysis.operations:
        if rule is not None and rule.rewrite is not None:
            rule.rewrite(op, copies[op.node], size)
    return replace(program, graph=graph), copies


def rebuild(analysis: Analysis, program: Program, state: Mapping[str, torch.Tensor]) -> Rebuilt:
    """The graph target: a module that runs the cut graph."""
    traced = analysis.traced
    return Rebuilt(program, state, traced.parameters, traced.ties, tuple(traced.transient))
