"""A captured network as data: a graph of tensor operations, what goes in, what comes out.

The graph names its parameters and buffers as the model did, reads the training flag and the floating type
from the module that runs it, and needs no class of the user's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from luthier.errors import TraceError, UsageError

TRAINING = "training"
"""Graph attribute: the running module's training flag."""
DTYPE = "dtype"
"""Graph attribute: the running module's floating type."""
DEVICE = "device"
"""Graph attribute: the running module's device."""
ATTRIBUTES = (TRAINING, DTYPE, DEVICE)


class Record(dict[str, Any]):
    """An output with named fields: reads as a mapping, as attributes and by position.

    Example:
        >>> r = Record(logits=1, loss=2)
        >>> r.logits, r["loss"], r[0]
        (1, 2, 1)
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: Any) -> Any:
        return list(self.values())[key] if isinstance(key, int | slice) else super().__getitem__(key)


pytree.register_pytree_node(
    Record,
    lambda r: (list(r.values()), list(r)),
    lambda values, keys: Record(zip(keys, values, strict=True)),
    serialized_type_name="luthier.Record",
)


@dataclass(frozen=True)
class Length:
    """A dimension of an input that counts positions, and what it may be.

    Args:
        leaf: the flat input.
        dim: its dimension.
        least: the smallest length.
        most: the largest; None if there is no limit.
        tried: other lengths at which the graph was seen to compute what the network computes.

    Example:
        >>> str(Length(0, 1, 1, None, (13, 6))), Length(0, 1, 12, 12).fixed
        ('any length (tried: 13, 6)', True)
    """

    leaf: int
    dim: int
    least: int
    most: int | None = None
    tried: tuple[int, ...] = ()

    @property
    def fixed(self) -> bool:
        """Whether there is only one."""
        return self.least == self.most

    def __contains__(self, size: int) -> bool:
        return self.least <= size and (self.most is None or size <= self.most)

    def __str__(self) -> str:
        if self.fixed:
            return f"only length {self.least}"
        low = f" from {self.least}" if self.least > 1 else ""
        high = f" up to {self.most}" if self.most is not None else ""
        return f"any length{low}{high} (tried: {', '.join(map(str, self.tried))})"


@dataclass(frozen=True)
class Program:
    """A graph with its signature.

    Args:
        graph: operations; ``get_attr`` nodes name parameters, buffers and constants.
        arguments: the names of the arguments of ``forward`` that were given, in order.
        leaves: how many tensors (or other values) each argument holds.
        output: the shape of the result: see :func:`outline`.
        lengths: what the lengths of sequences may be, where inputs hold any.
        batch: whether dimension 0 of every input is a batch of any size.
    """

    graph: fx.Graph
    arguments: tuple[str, ...]
    leaves: tuple[int, ...]
    output: Any
    lengths: tuple[Length, ...] = ()
    batch: bool = False

    @property
    def dynamic(self) -> tuple[str, ...]:
        """Which sizes of the inputs may be others than in the capture, in words."""
        names = self.input_names
        at_zero = any(x.dim == 0 for x in self.lengths)  # where dimension 0 is no batch
        said = ["any batch size"] if self.batch else [] if at_zero else ["only the example's batch size"]
        return (*said, *(f"{names[x.leaf]}.shape[{x.dim}]: {x}" for x in self.lengths if not x.fixed))

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The graph's inputs, from the arguments of a call.

        Raises:
            UsageError: other arguments than the graph was captured with.
        """
        given = dict(zip(self.arguments, args, strict=False)) | dict(kwargs)
        if len(args) > len(self.arguments) or set(given) != set(self.arguments):
            raise UsageError(
                "these are not the inputs that the network was captured with",
                expected=", ".join(self.arguments),
                got=f"{len(args)} positional" + (", " + ", ".join(kwargs) if kwargs else ""),
            )
        flat = [pytree.tree_leaves(given[name]) for name in self.arguments]
        for name, values, count in zip(self.arguments, flat, self.leaves, strict=True):
            if len(values) != count:
                raise UsageError(
                    f"the input {name!r} has another structure", expected=f"{count} values", got=len(values)
                )
        found = [value for values in flat for value in values]
        for x in self.lengths:
            size = found[x.leaf].shape[x.dim]
            if size not in x:
                raise UsageError(
                    f"the network was captured for other lengths of {self.input_names[x.leaf]!r}",
                    expected=f"{self.input_names[x.leaf]}.shape[{x.dim}]: {x}",
                    got=size,
                    cause="its code decides by the length, or has it written into it",
                    fix="pad to that length, or capture the network with inputs of the length that is needed",
                )
        return found

    @property
    def input_names(self) -> list[str]:
        """What the flat inputs are called: the argument, with a number where it holds several."""
        pairs = zip(self.arguments, self.leaves, strict=True)
        return [name if count == 1 else f"{name}[{i}]" for name, count in pairs for i in range(count)]

    def unflatten(self, values: Sequence[Any]) -> Any:
        """The result in the shape in which the model returned it."""
        return _build(self.output, values)

    def compile(self) -> Callable[..., Any]:
        """The graph as a Python function of (module, \\*inputs) that returns the flat outputs."""
        code = self.graph.python_code("self")
        space = dict(code.globals)
        exec(code.src, space)
        function: Callable[..., Any] = space["forward"]
        return function


@dataclass(frozen=True)
class Leaf:
    """Stands for the i-th flat output in a result's shape."""

    index: int


def outline(value: Any) -> Any:
    """The shape of a nested result of leaves, as plain data: an output's index, None, or {kind: parts}.

    Example:
        >>> outline((Leaf(1), {"a": Leaf(0)}))
        {'tuple': [1, {'dict': {'a': 0}}]}
    """
    if isinstance(value, Leaf):
        return value.index
    if value is None:
        return None
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            return {"items": [[_plain(k), outline(v)] for k, v in value.items()]}
        return {"dict" if type(value) is dict else "record": {k: outline(v) for k, v in value.items()}}
    if isinstance(value, list | tuple):
        if hasattr(value, "_fields"):
            return {"record": {k: outline(v) for k, v in zip(value._fields, value, strict=True)}}
        return {"list" if isinstance(value, list) else "tuple": [outline(v) for v in value]}
    if not hasattr(value, "__dict__"):
        raise _unknown_output(value)
    return {"record": {k: outline(v) for k, v in vars(value).items() if not k.startswith("_")}}


def _plain(key: Any) -> Any:
    if not isinstance(key, str | int | float | None):
        raise _unknown_output(key)
    return key


def _unknown_output(value: Any) -> TraceError:
    return TraceError(
        "the network returns something that cannot be kept with its graph",
        expected="tensors in tuples, lists, dicts with plain keys, or registered dataclasses",
        got=type(value).__name__,
        fix="return a tuple or a dict of it",
    )


def _build(shape: Any, values: Sequence[Any]) -> Any:
    if shape is None:
        return None
    if not isinstance(shape, dict):
        return values[shape]
    ((kind, inner),) = shape.items()
    if kind == "items":
        return {k: _build(s, values) for k, s in inner}
    if kind in ("tuple", "list"):
        made = [_build(s, values) for s in inner]
        return tuple(made) if kind == "tuple" else made
    fields = {k: _build(s, values) for k, s in inner.items()}
    return Record(fields) if kind == "record" else fields


def argument_names(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The names under which a call's arguments reach ``model.forward``."""
    names = [
        p.name
        for p in inspect.signature(model.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    names += [f"input_{i}" for i in range(len(names), len(args))]
    return (*names[: len(args)], *kwargs)


class Rebuilt(nn.Module):
    """A network that runs a :class:`Program`: it trains, moves, copies and exports like any other module.

    Args:
        program: what to run.
        state: parameters and buffers by their full names; a name that ``ties`` maps to another shares its tensor.
        parameters: the names among them that are parameters.
        ties: name -> the name whose tensor it shares.
        transient: names of buffers that are no part of ``state_dict`` (as in the original model).
    """

    def __init__(
        self,
        program: Program,
        state: Mapping[str, torch.Tensor],
        parameters: Sequence[str],
        ties: Mapping[str, str] | None = None,
        transient: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._program = _Shared(program)
        trainable = set(parameters)
        made: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            made[name] = nn.Parameter(tensor, tensor.requires_grad) if name in trainable else tensor
            _place(self, name, made[name], name not in transient)
        for name, source in (ties or {}).items():
            _place(self, name, made[source], name not in transient)

    @property
    def program(self) -> Program:
        """What this module runs."""
        return self._program.value

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the parameters."""
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.get_default_dtype()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the network on the inputs of the model that it was captured from."""
        return self.program.unflatten(self._program.function(self, *self.program.flatten(args, kwargs)))


class _Shared:
    """Holds what copies of a module share: the program and its compiled function."""

    def __init__(self, program: Program) -> None:
        self.value = program

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The program as a function, made when it is first run."""
        return self.value.compile()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        from luthier.model.stored import dump

        return _unpickled, (dump(self.value),)


def _unpickled(data: dict[str, Any]) -> _Shared:
    from luthier.model.stored import restore

    return _Shared(restore(data))


def _place(root: nn.Module, name: str, tensor: torch.Tensor, persistent: bool) -> None:
    *path, leaf = name.split(".")
    owner = root
    for part in path:
        if part not in owner._modules:
            owner.add_module(part, nn.Module())
        owner = owner.get_submodule(part)
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(leaf, tensor)
    else:
        owner.register_buffer(leaf, tensor, persistent=persistent)
