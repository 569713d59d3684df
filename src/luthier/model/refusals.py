"""What cannot be captured, and what to do about it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from luthier.errors import LuthierError, TraceError, UsageError
from luthier.model.where import source, user_line

if TYPE_CHECKING:
    from luthier.model.trace import Inputs


def demand_network(model: nn.Module, given: Inputs) -> None:
    """Says what cannot be captured at all before anything is tried.

    Raises:
        UsageError: no module, no example, or layers that have no weights yet or none that can be cut.
    """
    if not isinstance(model, nn.Module):
        raise UsageError("only networks can be captured", expected="a torch.nn.Module", got=type(model).__name__)
    tensors = [t for t in given.leaves if isinstance(t, torch.Tensor) and t.dim()]
    if tensors and not any(t.numel() for t in tensors):
        raise UsageError("the example inputs are empty", expected="a batch of at least one", got=tensors[0].shape)
    for name, part in model.named_modules():
        kind = type(part).__name__
        if isinstance(part, torch.jit.ScriptModule):
            raise UsageError("a scripted network has no graph to cut", got=kind, fix="cut the module before scripting")
        if isinstance(part, nn.modules.lazy.LazyModuleMixin) and part.has_uninitialized_params():  # type: ignore[misc]
            raise UsageError(f"{name or kind!r} has no weights yet", got=kind, fix="call the network once on inputs")
        if ".quantized." in f"{type(part).__module__}.":
            raise UsageError(f"{name or kind!r} is quantised", got=kind, fix="cut the network, then quantise it")


def demand_sizes(node: fx.Node) -> None:
    """Says which operation's result has a size that depends on the values of a tensor.

    Raises:
        TraceError: it has one.
    """
    value = node.meta.get("val")
    tensors = [t for t in (value if isinstance(value, tuple | list) else [value]) if isinstance(t, torch.Tensor)]
    sizes: list[Any] = [s for t in tensors for s in t.shape]
    if any(isinstance(s, torch.SymInt) and s.node.hint is None for s in sizes):
        raise TraceError(
            "how large a result is depends on the values of a tensor",
            expected="sizes that follow from the sizes of the inputs",
            got=str(node.target),
            cause=source(node),
            fix="zero what a mask leaves out (torch.where, a product) in place of picking it, or cut part='backbone'",
        )


def no_plain_form(what: str, node: fx.Node) -> TraceError:
    """The error for functions within the graph, such as loops and branches that are operations themselves."""
    return TraceError(
        f"{what} has no plain form in a graph",
        expected="tensor operations in a row",
        cause=source(node),
        fix="write it out (a loop in Python, torch.where, broadcasting), or cut a part without it: part='backbone'",
    )


def refusal(model: nn.Module, given: Inputs, error: Exception) -> LuthierError:
    """Why a network cannot be captured: it does not run at all, or its code decides by values."""
    try:
        with torch.no_grad():
            copy.deepcopy(model)(*given.args, **given.kwargs)
    except Exception as own:
        return does_not_run(model, own)
    if isinstance(error, TraceError):
        return error
    if "in output, which is not a known type" in str(error):
        return TraceError(
            f"{type(model).__name__} returns objects of a class that PyTorch cannot look into",
            got=str(error).partition(",")[0],
            fix="torch.export.register_dataclass(that class), or return a tuple or a dict",
        )
    return TraceError(
        f"{type(model).__name__} cannot be captured as a graph",
        expected="a forward whose control flow does not depend on the values of tensors",
        got=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error).strip() else ''}",
        cause=user_line(error),
        fix="rewrite that line without data-dependent Python, or work on a part that can be captured: part='backbone'",
    )


def does_not_run(model: nn.Module, error: Exception) -> UsageError:
    """The error for inputs that the network itself does not take."""
    return UsageError(
        f"{type(model).__name__} does not run on the example inputs",
        got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        cause=user_line(error),
        fix="give inputs of the shapes, types and device that its forward takes",
    )
