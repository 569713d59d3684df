"""Runs a captured graph on given tensors, node by node, so that one may look on or step in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx

from luthier.model.program import DEVICE, DTYPE, TRAINING, Program
from luthier.model.trace import Inputs, Traced

Look = Callable[[fx.Node, Any], None]
Step = Callable[[fx.Node, dict[fx.Node, Any]], Any]


def run(
    traced: Traced,
    state: Mapping[str, torch.Tensor],
    inputs: Inputs,
    *,
    program: Program | None = None,
    look: Look | None = None,
    step: Step | None = None,
) -> list[Any]:
    """The flat outputs of the graph in evaluation mode.

    Args:
        traced: the capture.
        state: its tensors, in any floating type; each is asked for once, when it is needed.
        inputs: what goes in.
        program: another program over the same state, such as a cut one; the captured one if None.
        look: called with every node and its value.
        step: may compute a node's value instead; returns NotImplemented to let the graph do it.
    """
    program = program or traced.program
    first = next((t for t in state.values() if t.is_floating_point()), torch.empty(0))
    flags = {TRAINING: False, DTYPE: first.dtype, DEVICE: first.device}
    values: dict[fx.Node, Any] = {}
    flat = iter(program.flatten(inputs.args, inputs.kwargs))
    last = _last_uses(program.graph)
    for node in _late(program.graph):
        if node.op == "placeholder":
            values[node] = next(flat)
        elif node.op == "get_attr":
            name = traced.ties.get(str(node.target), str(node.target))
            values[node] = flags[name] if name in flags else state[name]
        elif node.op == "output":
            found = fx.map_arg(node.args[0], lambda n: values[n])
            return list(found)  # type: ignore[arg-type]
        else:
            done = step(node, values) if step else NotImplemented
            values[node] = call(node, values) if done is NotImplemented else done
        if look is not None:
            look(node, values[node])
        for gone in last.get(node, ()):
            del values[gone]
    return []


def _late(graph: fx.Graph) -> Iterator[fx.Node]:
    """The nodes in order, tensors of the state right before they are first used: few of them are held at a time."""
    seen: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr":
            continue
        for used in node.all_input_nodes:
            if used.op == "get_attr" and used not in seen:
                seen.add(used)
                yield used
        yield node


def call(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """The value of one operation."""
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: values[n])
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _last_uses(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """For each node, the values that nobody needs after it."""
    seen: set[fx.Node] = set()
    found: dict[fx.Node, list[fx.Node]] = {}
    for node in reversed(list(graph.nodes)):
        for used in node.all_input_nodes:
            if used not in seen:
                seen.add(used)
                found.setdefault(node, []).append(used)
    return found
