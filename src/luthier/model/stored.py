"""A program as plain JSON data and back. Reading runs nothing but named tensor operations."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

import torch
from torch import fx

from luthier.errors import UsageError
from luthier.model.program import Length, Program

_OPERATOR_NAMES = (
    "getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow",
    "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_",
)  # fmt: skip
_OPERATORS = {f"operator.{name}": getattr(operator, name) for name in _OPERATOR_NAMES}
_FUNCTIONS = {f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")}
_PLAIN = (
    _OPERATORS
    | _FUNCTIONS
    | {
        "torch.sym_int": torch.sym_int,
        "torch.sym_float": torch.sym_float,
        "torch.sym_max": torch.sym_max,
        "torch.sym_min": torch.sym_min,
        "torch.sym_not": torch.sym_not,
        "torch.sym_ite": torch.sym_ite,
    }
)
_NAMES = {id(function): name for name, function in _PLAIN.items()}
_REFUSED = {"from_file"}
_CLOSED = {"prim", "prims", "inductor", "profiler", "c10d", "_c10d_functional", "rpc", "static_runtime", "symm_mem"}
_KINDS = (torch.dtype, torch.device, torch.memory_format, torch.layout)


def dump(program: Program) -> dict[str, Any]:
    """The program as JSON data.

    Raises:
        UsageError: it holds something that has no plain form.
    """
    nodes = [
        {"name": n.name, "op": n.op, "target": _target(n), "args": _out(n.args), "kwargs": _out(dict(n.kwargs))}
        for n in program.graph.nodes
    ]
    return {
        "nodes": nodes,
        "arguments": list(program.arguments),
        "leaves": list(program.leaves),
        "output": program.output,
        "batch": program.batch,
        "lengths": [dataclasses.astuple(x) for x in program.lengths],
    }


def restore(data: dict[str, Any]) -> Program:
    """The program from JSON data.

    Raises:
        UsageError: it names an operation that is not allowed or not known to this version of PyTorch.
    """
    graph, made = fx.Graph(), dict[str, fx.Node]()
    for item in data["nodes"]:
        args, kwargs = _in(item["args"], made), _in(item["kwargs"], made)
        target = _function(item["target"]) if item["op"] == "call_function" else item["target"]
        if item["op"] not in ("placeholder", "get_attr", "call_function", "output"):
            raise UsageError("the stored graph has a node of an unknown kind", got=item["op"])
        made[item["name"]] = graph.create_node(item["op"], target, tuple(args), kwargs, item["name"])
    lengths = tuple(
        Length(leaf, dim, least, most, tuple(tried)) for leaf, dim, least, most, tried in data.get("lengths", [])
    )
    return Program(
        graph, tuple(data["arguments"]), tuple(data["leaves"]), data["output"], lengths, bool(data.get("batch"))
    )


def _target(node: fx.Node) -> str:
    if isinstance(node.target, str):
        return node.target
    if isinstance(node.target, torch._ops.OpOverload) and _is_plain(node.target):
        return str(node.target)
    name = _NAMES.get(id(node.target))
    if name is None:
        raise UsageError("an operation of this network cannot be stored", got=str(node.target))
    return name


def _function(name: str) -> Any:
    if name in _PLAIN:
        return _PLAIN[name]
    space, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    try:
        found = getattr(getattr(getattr(torch.ops, space), packet), overload)
        if not isinstance(found, torch._ops.OpOverload) or not _is_plain(found):
            raise AttributeError(name)
        return found
    except (AttributeError, RuntimeError):
        raise UsageError(
            f"the stored graph names the operation {name!r}",
            expected="an operation of PyTorch's aten library, or one that a library which is imported adds to it",
            cause="the file was written with another version of PyTorch, or is no file of Luthier's",
            fix=None if space == "aten" else f"import {space} before loading",
        ) from None


def _is_plain(operation: torch._ops.OpOverload) -> bool:
    """An operation of PyTorch's own on tensors; of another library only one from tensors to tensors.

    It must change nothing that it is given, and take no text: that may be the path of a file.
    """
    if operation.namespace == "aten":
        return operation._opname not in _REFUSED
    taken = [str(a.type) for a in operation._schema.arguments]
    harmless = any("Tensor" in kind for kind in taken) and not any("str" in kind for kind in taken)
    mutable = operation._schema.is_mutable
    return operation.namespace not in _CLOSED and not mutable and harmless and _tensors_out(operation)


def _tensors_out(operation: torch._ops.OpOverload) -> bool:
    kinds = [str(r.type) for r in operation._schema.returns]
    return bool(kinds) and all("Tensor" in kind for kind in kinds)


def _out(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list | tuple):
        return [_out(v) for v in value]
    if isinstance(value, dict):
        return {"map": {k: _out(v) for k, v in value.items()}}
    if isinstance(value, slice):
        return {"slice": [_out(value.start), _out(value.stop), _out(value.step)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, _KINDS):
        return {"torch": str(value).removeprefix("torch."), "kind": type(value).__name__}
    raise UsageError("a value in this network's graph cannot be stored", got=repr(value))


def _in(value: Any, made: dict[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_in(v, made) for v in value]
    if not isinstance(value, dict):
        return value
    if "node" in value:
        return made[value["node"]]
    if "map" in value:
        return {k: _in(v, made) for k, v in value["map"].items()}
    if "slice" in value:
        return slice(*(_in(v, made) for v in value["slice"]))
    if "float" in value:
        return float(value["float"])
    if "complex" in value:
        return complex(*value["complex"])
    if value.get("kind") == "device":
        return torch.device(value["torch"])
    found = getattr(torch, value["torch"], None)
    if not isinstance(found, _KINDS):
        raise UsageError("the stored graph holds an unknown value", got=value)
    return found
