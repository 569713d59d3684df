"""What a file must hold beside the weights to bring a network back without its class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from luthier.errors import UsageError
from luthier.model import Inputs, Program, Rebuilt
from luthier.model.stored import dump, restore
from luthier.model.trace import Traced

Attributes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Blueprint:
    """How to build a network from its tensors.

    Args:
        program: its graph.
        parameters: names of its parameters.
        ties: name -> the name whose tensor it shares.
        transient: names of tensors that are not in ``state_dict``.
        constants: tensors that the network's code makes itself.
        attributes: module path -> sizes that the user's class keeps, as they are after the cut.
        target: "module" if the user's class can hold the tensors, else "graph".
        example: shapes and types of example inputs, one entry per flat input.
    """

    program: Program
    parameters: tuple[str, ...]
    ties: dict[str, str]
    transient: tuple[str, ...]
    constants: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    attributes: Attributes = field(default_factory=dict)
    target: str = "graph"
    example: tuple[Any, ...] = ()

    @classmethod
    def of(
        cls, traced: Traced, program: Program, state: Mapping[str, torch.Tensor], attributes: Attributes, target: str
    ) -> Blueprint:
        """The blueprint of a captured network, cut or not."""
        made = traced.constants
        constants = {n: t for n, t in state.items() if n in made}
        example = tuple(_described(v) for v in pytree.tree_leaves((traced.inputs.args, traced.inputs.kwargs)))
        transient = tuple(sorted(traced.transient))
        return cls(program, traced.parameters, dict(traced.ties), transient, constants, attributes, target, example)

    @classmethod
    def of_rebuilt(cls, model: Rebuilt) -> Blueprint:
        """The blueprint of a module that runs a graph already."""
        first: dict[int, str] = {}
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        ties = {name: first[id(t)] for name, t in named if first.setdefault(id(t), name) != name}
        persistent = set(model.state_dict(keep_vars=True))
        transient = tuple(sorted(name for name, _ in named if name not in persistent))
        parameters = tuple(name for name, _ in model.named_parameters(remove_duplicate=False))
        return cls(model.program, parameters, ties, transient)

    def tensors(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The model's present tensors that the graph needs, each once, and the constants.

        Raises:
            UsageError: the model does not have them any more.
        """
        found = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
        names = {name for name in found if name not in self.ties}
        needed = {n.target for n in self.program.graph.nodes if n.op == "get_attr" and "." in str(n.target)}
        missing = {self.ties.get(n, n) for n in needed} - names - set(self.constants)
        if missing:
            raise UsageError(
                "the model has changed since it was cut: tensors are missing",
                expected=", ".join(sorted(missing)[:4]),
                fix="save it with example inputs: save(model, path, inputs=...)",
            )
        return {n: found[n].detach() for n in sorted(names)} | self.constants

    def build(self, tensors: Mapping[str, torch.Tensor]) -> Rebuilt:
        """The network as a module that needs no class."""
        return Rebuilt(self.program, tensors, self.parameters, self.ties, self.transient)

    def inputs(self, seed: int = 0) -> Inputs:
        """Example inputs of the recorded shapes, random where they are real and zero where they are not."""
        generator = torch.Generator().manual_seed(seed)
        flat = [_made(v, generator) for v in self.example]
        args, at = [], 0
        for count in self.program.leaves:
            args.append(flat[at] if count == 1 else flat[at : at + count])
            at += count
        return Inputs(tuple(args))

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the tensors."""
        return {
            "program": dump(self.program),
            "parameters": list(self.parameters),
            "ties": self.ties,
            "transient": list(self.transient),
            "constants": sorted(self.constants),
            "attributes": self.attributes,
            "target": self.target,
            "example": list(self.example),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Blueprint:
        """The blueprint from plain data and the stored tensors."""
        return cls(
            restore(data["program"]),
            tuple(data["parameters"]),
            dict(data["ties"]),
            tuple(data["transient"]),
            {name: tensors[name] for name in data["constants"]},
            dict(data["attributes"]),
            data["target"],
            tuple(data["example"]),
        )


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    return {"value": value if value is None or isinstance(value, bool | int | float | str) else None}


def _made(entry: Mapping[str, Any], generator: torch.Generator) -> Any:
    if "shape" not in entry:
        return entry["value"]
    dtype = getattr(torch, entry["dtype"])
    if dtype.is_floating_point:
        return torch.randn(entry["shape"], generator=generator, dtype=dtype)
    return torch.zeros(entry["shape"], dtype=dtype)
