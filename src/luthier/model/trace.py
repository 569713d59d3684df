"""Captures a network as a graph: exported in evaluation mode, with a dynamic batch where the network allows it."""

from __future__ import annotations

import contextlib
import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from luthier.errors import UsageError
from luthier.model.evaluating import evaluating
from luthier.model.lengths import Positions, examine, positions, varies
from luthier.model.program import DEVICE, DTYPE, TRAINING, Leaf, Program, argument_names, outline
from luthier.model.refusals import demand_network, no_plain_form, refusal

CONSTANTS = "constants"
"""Where tensors live that the network's code makes itself."""
_TRAINING_ARGUMENT = {
    "batch_norm": 5, "instance_norm": 5, "dropout": 2, "dropout_": 2, "feature_dropout": 2, "feature_dropout_": 2,
    "alpha_dropout": 2, "alpha_dropout_": 2, "feature_alpha_dropout": 2, "rrelu": 3, "rrelu_": 3,
    "lstm": 6, "gru": 6, "rnn_tanh": 6, "rnn_relu": 6,
}  # fmt: skip
_FILLED = ("zeros", "ones", "full", "empty", "eye")
"""What is of the floating type at hand where no type is said."""
_DROPPED = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size", "sym_constrain_range")


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call of the model.

    Example:
        >>> Inputs.of(torch.zeros(2)).args[0].shape
        torch.Size([2])
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: Any) -> Inputs:
        """Reads a tensor, a tuple of arguments, or a mapping of keyword arguments.

        Raises:
            UsageError: none of these, or empty.
        """
        if isinstance(inputs, Inputs):
            return inputs
        if isinstance(inputs, Mapping) and inputs:
            return cls((), dict(inputs))
        if isinstance(inputs, list | tuple) and inputs:
            return cls(tuple(inputs))
        if isinstance(inputs, torch.Tensor):
            return cls((inputs,))
        raise UsageError(
            "example inputs are needed to capture the network",
            expected="a tensor, a tuple of arguments or a dict of keyword arguments",
            got=repr(inputs)[:80],
        )

    def map(self, change: Any) -> Inputs:
        """The same arguments with every tensor changed."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, change, (self.args, self.kwargs))
        return Inputs(tuple(args), dict(kwargs))

    @property
    def leaves(self) -> list[Any]:
        """The values in nested arguments, in order."""
        return pytree.tree_leaves((self.args, self.kwargs))

    def with_leaves(self, leaves: Sequence[Any]) -> Inputs:
        """The same arguments with other values in them."""
        args, kwargs = pytree.tree_unflatten(leaves, pytree.tree_structure((self.args, self.kwargs)))
        return Inputs(args, kwargs)


@dataclass(frozen=True)
class Traced:
    """A captured network.

    Args:
        program: its graph; nodes carry example values and source lines.
        state: its tensors by full name, shared with the model.
        parameters: the names of its parameters.
        ties: name -> the name whose tensor it shares.
        transient: names of tensors that are not in ``state_dict``.
        inputs: the example inputs, as given.
        batch: example batch of the capture divided by that of ``inputs`` (2 where a batch of one was doubled).
    """

    program: Program
    state: dict[str, torch.Tensor]
    parameters: tuple[str, ...]
    ties: dict[str, str]
    transient: frozenset[str]
    inputs: Inputs
    batch: int

    @property
    def constants(self) -> frozenset[str]:
        """The names of tensors that the network's code makes itself."""
        return frozenset(name for name in self.state if name.startswith(CONSTANTS + ".") and name in self.transient)


def trace(model: nn.Module, inputs: Any) -> Traced:
    """Captures ``model`` as called with ``inputs``; the model itself is left as it was.

    Args:
        model: any module.
        inputs: a tensor, a tuple of arguments, or a dict of keyword arguments.

    Raises:
        TraceError: the network cannot be captured; the message names the line of its code.
    """
    given = Inputs.of(inputs)
    demand_network(model, given)
    where = positions(given.leaves)
    with evaluating(model):
        for free in (where, {}) if where else ({},):
            traced = _dynamic(model, given, free)
            lengths = examine(model, traced, where) if traced else None
            if traced and lengths is not None:
                return replace(traced, program=replace(traced.program, lengths=lengths))
        try:
            traced = _canonical(model, _export(model, given, None), given, batch=1)
        except Exception as error:
            raise refusal(model, given, error) from error
        return replace(traced, program=replace(traced.program, lengths=examine(model, traced, where) or ()))


def _dynamic(model: nn.Module, given: Inputs, free: Positions) -> Traced | None:
    """The capture with a dynamic batch and these dimensions dynamic, as far as the network allows; None if it fails."""
    tensors = [t for t in given.leaves if isinstance(t, torch.Tensor) and t.dim()]
    if tensors and all(t.shape[0] == 1 for t in tensors):
        doubled = given.map(lambda t: torch.cat([t, t]) if t.dim() else t)
        with contextlib.suppress(Exception):
            traced = _canonical(model, _export(model, doubled, free), given, batch=2)
            if traced.program.batch:  # else the capture is of two examples, and of no other number
                return traced
    with contextlib.suppress(Exception):
        return _canonical(model, _export(model, given, free), given, batch=1)
    return None


def _export(model: nn.Module, inputs: Inputs, free: Positions | None) -> torch.export.ExportedProgram:
    """Captures with dimension 0 dynamic, and those of ``free``; with None nothing is."""
    shapes: Any = None
    if free is not None:
        spec = inputs.with_leaves(
            [
                dict.fromkeys((0, *free.get(i, ())), torch.export.Dim.AUTO)
                if isinstance(t, torch.Tensor) and t.dim()
                else None
                for i, t in enumerate(inputs.leaves)
            ]
        )
        shapes = dict(inspect.signature(model.forward).bind(*spec.args, **spec.kwargs).arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model, inputs.args, inputs.kwargs, dynamic_shapes=shapes, strict=False)


def _canonical(model: nn.Module, exported: torch.export.ExportedProgram, given: Inputs, batch: int) -> Traced:
    builder = _Builder(exported)
    graph = builder.build()
    names = argument_names(model, given.args, given.kwargs)
    counts = tuple(len(pytree.tree_leaves(value)) for value in (*given.args, *given.kwargs.values()))
    spec = exported.call_spec.out_spec
    marked = pytree.tree_unflatten([Leaf(i) for i in range(spec.num_leaves)], spec)
    program = Program(graph, names, counts, outline(marked), batch=_takes_any_batch(graph))
    state, ties = _state(model, builder.constants)
    parameters = tuple(name for name, _ in model.named_parameters(remove_duplicate=False))
    persistent = set(model.state_dict(keep_vars=True))
    transient = frozenset(name for name in state if name not in persistent)
    return Traced(program, state, parameters, ties, transient, given, batch)


def _takes_any_batch(graph: fx.Graph) -> bool:
    values = [n.meta.get("val") for n in graph.nodes if n.op == "placeholder"]
    return all(varies(v.shape[0]) for v in values if isinstance(v, torch.Tensor) and v.dim())


def _state(model: nn.Module, constants: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by name, each once, and the further names of shared ones."""
    state: dict[str, torch.Tensor] = {}
    ties: dict[str, str] = {}
    first: dict[int, str] = {}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in [*named, *constants.items()]:
        if id(tensor) in first:
            if name not in state:
                ties[name] = first[id(tensor)]
            continue
        first[id(tensor)] = name
        state[name] = tensor
    return state, ties


class _Builder:
    """Copies an exported graph: state by name, no assertions, no nested graphs, live flags (mode, type, device)."""

    def __init__(self, exported: torch.export.ExportedProgram) -> None:
        self.exported = exported
        self.signature = exported.graph_signature
        self.graph = fx.Graph()
        self.flags: dict[str, fx.Node] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.sizes: dict[str, fx.Node] = {}
        tensors = [t for t in exported.state_dict.values() if t.is_floating_point()]
        self.dtype = tensors[0].dtype if tensors else torch.get_default_dtype()
        self.device = tensors[0].device if tensors else torch.device("cpu")

    def build(self) -> fx.Graph:
        env: dict[fx.Node, Any] = {}
        used = set(self.signature.user_inputs)
        placeholders = [n for n in self.exported.graph.nodes if n.op == "placeholder"]
        self._inputs(placeholders, env, used)
        self._sizes()
        self._copy(self.exported.graph_module, env)
        output = next(iter(reversed(self.exported.graph.nodes)))
        count = len(self.signature.user_outputs)
        values = list(output.args[0])[-count:] if count else []
        self.graph.output(tuple(env[v] if isinstance(v, fx.Node) else v for v in values))
        for node in list(self.graph.nodes):
            _keep_cast_inside(node)
        self.graph.eliminate_dead_code(is_impure)
        for node in self.graph.nodes:
            if op_name(node) == "_add_batch_dim":
                raise no_plain_form("torch.vmap", node)
        return self.graph

    def _sizes(self) -> None:
        """Every symbolic size is read off an input, so that nothing is kept, or held, for its size alone."""
        for node in [n for n in self.graph.nodes if n.op == "placeholder"]:
            value = node.meta.get("val")
            shape: Sequence[Any] = value.shape if isinstance(value, torch.Tensor) else ()
            for i, s in enumerate(shape):
                if isinstance(s, torch.SymInt) and str(s) not in self.sizes:
                    made = self.graph.call_function(torch.ops.aten.sym_size.int, (node, i))
                    made.meta["val"] = s
                    self.sizes[str(s)] = made

    def _inputs(self, placeholders: Sequence[fx.Node], env: dict[fx.Node, Any], used: set[Any]) -> None:
        sig = self.signature
        names = {**sig.inputs_to_parameters, **sig.inputs_to_buffers}
        for node in placeholders:
            if node.name not in names and node.name not in sig.inputs_to_lifted_tensor_constants:
                env[node] = self._keep_meta(self.graph.placeholder(node.name), node)
        for flag in (TRAINING, DTYPE, DEVICE):
            self.flags[flag] = self.graph.get_attr(flag)
        for node in placeholders:
            if node in env or not node.users:
                continue
            target = names.get(node.name)
            if target is None:
                key = sig.inputs_to_lifted_tensor_constants[node.name]
                target = f"{CONSTANTS}.{key.replace('.', '_')}"
                self.constants[target] = self.exported.constants[key]
            env[node] = self._keep_meta(self.graph.get_attr(target), node)

    def _keep_meta(self, new: fx.Node, old: fx.Node) -> fx.Node:
        new.meta = {k: old.meta[k] for k in ("val", "stack_trace", "nn_module_stack") if k in old.meta}
        return new

    def _copy(self, module: fx.GraphModule, env: dict[fx.Node, Any]) -> None:
        for node in module.graph.nodes:
            if node.op == "call_function":
                self._function(module, node, env)

    def _function(self, module: fx.GraphModule, node: fx.Node, env: dict[fx.Node, Any]) -> None:
        name = op_name(node)
        if name in _DROPPED:
            return
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            env[node] = self._inlined(module, node, env)
            return
        source: Any = node.args[0] if node.args else None
        if name == "getitem" and isinstance(env.get(source), list):
            env[node] = env[source][node.args[1]]
            return
        if name == "sym_size" and (known := self.sizes.get(str(node.meta.get("val")))) is not None:
            env[node] = known
            return
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: env[n])
        target: Any = node.target
        if target is torch.ops.aten.view.default:
            target = torch.ops.aten.reshape.default
        new = self.graph.call_function(target, tuple(args), dict(kwargs))
        self._live(name, new, node)
        env[node] = self._keep_meta(new, node)

    def _inlined(self, module: fx.GraphModule, node: fx.Node, env: dict[fx.Node, Any]) -> list[Any]:
        """Puts a nested graph (no_grad, autocast) in line; what was computed without gradients is detached."""
        if not str(node.target).startswith(("wrap_with_set_grad_enabled", "wrap_with_autocast")):
            raise no_plain_form(str(node.target), node)
        at = next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a.op == "get_attr")
        body = getattr(module, str(node.args[at].target))  # type: ignore[union-attr]
        inner: dict[fx.Node, Any] = {}
        holes = [n for n in body.graph.nodes if n.op == "placeholder"]
        for hole, value in zip(holes, node.args[at + 1 :], strict=True):
            inner[hole] = env[value] if isinstance(value, fx.Node) else value
        self._copy(body, inner)
        output = next(iter(reversed(body.graph.nodes)))
        values = [inner[v] if isinstance(v, fx.Node) else v for v in output.args[0]]
        return [self._detached(v) for v in values] if node.args[0] is False else values

    def _detached(self, value: Any) -> Any:
        example = value.meta.get("val") if isinstance(value, fx.Node) else None
        if not isinstance(example, torch.Tensor) or not example.is_floating_point():
            return value
        new = self.graph.call_function(torch.ops.aten.detach.default, (value,))
        return self._keep_meta(new, value)

    def _live(self, name: str, new: fx.Node, old: fx.Node) -> None:
        """Arguments that the capture fixed but that the running module decides."""
        at = _TRAINING_ARGUMENT.get(name)
        if at is not None and len(new.args) > at and new.args[at] is False:
            new.update_arg(at, self.flags[TRAINING])
        line = old.meta.get("stack_trace") or ""
        if new.kwargs.get("device") == self.device:
            new.update_kwarg("device", self.flags[DEVICE])
        if re.search(r"float32|\.float\(|float64|\.double\(", line.strip().rsplit("\n", 1)[-1]):
            return
        filled = name in _FILLED and "dtype" not in new.kwargs and old.meta["val"].dtype == self.dtype
        if filled or new.kwargs.get("dtype") == self.dtype:
            new.update_kwarg("dtype", self.flags[DTYPE])
        if name == "to" and len(new.args) > 1 and new.args[1] == self.dtype:
            new.update_arg(1, self.flags[DTYPE])


def _keep_cast_inside(node: fx.Node) -> None:
    """A cast that changed nothing hands its input on, so that code outside its module seems to use the cast's result.

    It uses the input; in another floating type the two differ.
    """
    source = node.args[0] if node.args else None
    if op_name(node) != "to" or not isinstance(source, fx.Node):
        return
    before, after = source.meta.get("val"), node.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor) or before.dtype != after.dtype:
        return
    home = _home(node)
    for user in [u for u in node.users if home and not (_home(u) + ".").startswith(home + ".")]:
        user.replace_input_with(node, source)


def _home(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def is_impure(node: fx.Node) -> bool:
    """What dead code elimination must not remove."""
    return node.op in ("placeholder", "output") or op_name(node).endswith("_") or node.is_impure()


def op_name(node: fx.Node) -> str:
    """The plain name of a node's operation: "conv2d" for aten.conv2d.default."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._opname
    return getattr(target, "__name__", str(target))
