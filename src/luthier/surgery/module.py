"""The module target: a copy of the user's own module with sliced tensors and the sizes that its classes keep."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn

from luthier.errors import UsageError
from luthier.model import Analysis, cost
from luthier.model.op import Op
from luthier.surgery.blueprint import Attributes

MOST_NAMES = 6
"""How many attribute names are tried one by one."""
_BY_WEIGHT: dict[type[nn.Module], tuple[tuple[str, int], ...]] = {
    nn.Linear: (("out_features", 0), ("in_features", 1)),
    nn.Embedding: (("embedding_dim", 1),),
    nn.PReLU: (("num_parameters", 0),),
}
"""Class -> the attributes that are sizes of its weight."""


Guesses = dict[tuple[str, str], int]
"""(module path, attribute) -> the size that it may have after the cut."""


def cut_module(
    analysis: Analysis,
    state: Mapping[str, torch.Tensor],
    groups: Mapping[str, list[int]],
    copies: Mapping[fx.Node, fx.Node],
) -> nn.Module:
    """A copy of the model with the given tensors, PyTorch's own layers resized; whether it works is to be checked.

    Args:
        analysis: of the model.
        state: the sliced tensors.
        groups: what was cut.
        copies: from each node of the original graph to the cut one's.
    """
    made = _copied(analysis, state)
    before = dict(analysis.model.named_modules())
    counts = _group_counts(analysis, copies)
    for name, module in made.named_modules():
        _resize(module, before[name], counts.get(name))
    size = cost.Sizes(cost.keep_axes(analysis, groups))
    for path, op in _bare_norms(analysis).items():
        norm: Any = made.get_submodule(path)
        norm.num_features = size(op.dims(op.arg(0))[1])
    return made


def attempts(analysis: Analysis, groups: Mapping[str, list[int]]) -> Iterator[Guesses]:
    """Which sizes kept by the user's own classes to change: none, all that could be meant, all but one name, one name.

    Guesses, every one of them checked by running the module; where none is right the graph target is taken.
    """
    every = _own_sizes(analysis, groups)
    yield {}
    if every:
        yield every
    names = list(dict.fromkeys(name for _, name in every))[:MOST_NAMES]
    if len(names) > 1:
        yield from ({k: v for k, v in every.items() if k[1] != name} for name in names)
        yield from ({k: v for k, v in every.items() if k[1] == name} for name in names)


def apply(made: nn.Module, original: nn.Module, sizes: Guesses, every: Guesses) -> None:
    """Sets these sizes, and puts all other guesses back to what they were."""
    for path, name in every:
        setattr(made.get_submodule(path), name, getattr(original.get_submodule(path), name))
    for (path, name), value in sizes.items():
        setattr(made.get_submodule(path), name, value)


def attributes(made: nn.Module, original: nn.Module) -> Attributes:
    """The sizes that a cut module keeps where they differ: module path -> attribute -> value."""
    before = dict(original.named_modules())
    return {name: found for name, m in made.named_modules() if (found := _changed(m, before[name]))}


def _changed(module: nn.Module, before: nn.Module) -> dict[str, Any]:
    old = vars(before)
    return {k: v for k, v in vars(module).items() if _is_size(v) and k in old and old[k] != v}


def _is_size(value: Any) -> bool:
    return type(value) is int or (isinstance(value, tuple | list) and all(type(v) is int for v in value))


def place(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    ties: Mapping[str, str],
    constants: Mapping[str, torch.Tensor],
    attributes: Attributes,
) -> None:
    """Gives a freshly built network the tensors and sizes of a stored one, in place.

    Raises:
        UsageError: the network has no such tensor or module.
    """
    made: dict[str, Any] = {}
    try:
        for name in [n for n in tensors if n not in constants]:
            made[name] = _replaced(model, name, tensors[name])
        for name, source in ties.items():
            if source in made:
                _put(model, name, made[source])
        for path, values in attributes.items():
            module = model.get_submodule(path)
            for name, value in values.items():
                setattr(module, name, tuple(value) if isinstance(value, list) else value)
    except AttributeError as error:
        raise UsageError(f"{type(model).__name__} is not the class of the stored network", got=str(error)) from error
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]


def _replaced(model: nn.Module, name: str, tensor: torch.Tensor) -> Any:
    path, _, leaf = name.rpartition(".")
    old = getattr(model.get_submodule(path), leaf)
    new = nn.Parameter(tensor.clone(), old.requires_grad) if isinstance(old, nn.Parameter) else tensor.clone()
    _put(model, name, new)
    return new


def _put(model: nn.Module, name: str, value: Any) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, value)


def _copied(analysis: Analysis, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """A deep copy whose tensors are the sliced ones from the start, ties included."""
    model, memo = analysis.model, dict[int, Any]()
    for name, tensor in analysis.traced.state.items():
        new = state[name]
        if isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = nn.Parameter(new, requires_grad=tensor.requires_grad)
        else:
            memo[id(tensor)] = new
    return copy.deepcopy(model, memo)


def _resize(module: nn.Module, before: nn.Module, groups: int | None) -> None:
    """Sets the sizes that PyTorch's own layers keep from the tensors that they now have."""
    weight: Any = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd):
        _resize_conv(module, weight, groups or module.groups)
    elif isinstance(module, nn.GroupNorm):
        module.num_groups = groups or module.num_groups
        module.num_channels = weight.shape[0] if weight is not None else module.num_channels
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        known = [t for t in (module.weight, module.running_mean) if t is not None]
        module.num_features = known[0].shape[0] if known else module.num_features
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm) and weight is not None:
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.RNNBase):
        _resize_rnn(module)
    elif isinstance(module, nn.RNNCellBase):
        module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]
    elif isinstance(module, nn.MultiheadAttention):
        _resize_attention(module, before)
    elif isinstance(weight, torch.Tensor):
        _resize_plain(module, weight)


def _resize_plain(module: nn.Module, weight: torch.Tensor) -> None:
    for kind, sizes in _BY_WEIGHT.items():
        if isinstance(module, kind):
            for name, dim in sizes:
                setattr(module, name, weight.shape[dim])


def _resize_conv(module: Any, weight: torch.Tensor, groups: int) -> None:
    first, second = weight.shape[:2]
    module.groups = groups
    sizes = (first, second * groups) if module.transposed else (second * groups, first)
    module.in_channels, module.out_channels = sizes


def _bare_norms(analysis: Analysis) -> dict[str, Op]:
    """Module path -> the operation of batch and instance norms that have no tensors to tell their width."""
    found = {}
    for op, _ in analysis.operations:
        stack = op.node.meta.get("nn_module_stack")
        if op.name in ("instance_norm", "batch_norm") and stack:
            path = str(list(stack.values())[-1][0]).split("@")[0]
            module = analysis.model.get_submodule(path)
            if isinstance(module, nn.modules.batchnorm._NormBase) and not module.state_dict():
                found[path] = op
    return found


def _group_counts(analysis: Analysis, copies: Mapping[fx.Node, fx.Node]) -> dict[str, int]:
    """Module path -> the number of groups that its convolution or normalisation is left with."""
    at = {"group_norm": 1, **{f"conv{t}{n}d": 6 for t in ("", "_transpose") for n in (1, 2, 3)}}
    found: dict[str, int] = {}
    for op, _ in analysis.operations:
        stack = op.node.meta.get("nn_module_stack")
        if op.name in at and stack and len(op.node.args) > at[op.name]:
            path = str(list(stack.values())[-1][0]).split("@")[0]
            value = copies[op.node].args[at[op.name]]
            found |= {path: value} if isinstance(value, int) else {}
    return found


def _resize_rnn(module: Any) -> None:
    module.input_size = module.weight_ih_l0.shape[1]
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    module.hidden_size = module.weight_ih_l0.shape[0] // gates
    if module.proj_size:
        module.proj_size = module.weight_hr_l0.shape[0]
    module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]


def _resize_attention(module: Any, before: Any) -> None:
    """Heads go whole: the head size stays."""
    out = module.out_proj.weight
    if module._qkv_same_embed_dim:
        module.embed_dim = module.kdim = module.vdim = module.in_proj_weight.shape[1]
    else:
        module.embed_dim, module.kdim, module.vdim = (
            w.shape[1] for w in (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        )
    if out.shape[1] == module.embed_dim:
        module.num_heads = module.embed_dim // before.head_dim


def _own_sizes(analysis: Analysis, groups: Mapping[str, list[int]]) -> Guesses:
    """Whole numbers of the user's classes that equal a width that was cut, where that width's tensors live."""
    found: Guesses = {}
    for group_name, index in groups.items():
        group = analysis.group(group_name)
        places = [p.parameter.rpartition(".")[0] for p in group.occurrences]
        widths = {f * group.size for f in ({_whole(p.expr.size, group.size) for p in group.occurrences} | {1}) if f}
        for path in dict.fromkeys(parent for place in places for parent in _parents(place)):
            module = analysis.model.get_submodule(path)
            if not type(module).__module__.startswith("torch.nn"):
                mine = {n: v for n, v in vars(module).items() if type(v) is int and v in widths}
                found |= {(path, n): v // group.size * len(index) for n, v in mine.items()}
    return found


def _whole(size: int, part: int) -> int:
    return size // part if size % part == 0 else 0


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[: len(parts) - 1])] if parts != [""] else []
