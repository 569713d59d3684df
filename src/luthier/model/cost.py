"""What a network costs: parameters and multiply-adds (MACs), predicted for any cut, and counted by PyTorch."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from luthier.model import axes
from luthier.model.axes import Axis
from luthier.model.evaluating import evaluating
from luthier.model.op import Dim
from luthier.model.trace import Inputs

if TYPE_CHECKING:
    from luthier.model.analysis import Analysis

KeepByName = Mapping[str, Sequence[int]]
"""Group name -> the indices that stay; a group that is not named stays whole."""


def keep_axes(analysis: Analysis, keep: KeepByName | None) -> dict[Axis, axes.Indices]:
    """The same by axis.

    Raises:
        UsageError: no group has that name.
    """
    return {analysis.group(name).axis: np.asarray(index, dtype=np.int64) for name, index in (keep or {}).items()}


class Sizes:
    """From a dimension to its size after a cut; remembers what it has measured."""

    def __init__(self, cut: axes.Keep) -> None:
        self._cut = cut
        self._known: dict[int, tuple[axes.Expr, int]] = {}

    def __call__(self, d: Any) -> int:
        """The size of a dimension or of an expression."""
        e: axes.Expr = d.expr if isinstance(d, Dim) else d
        if id(e) not in self._known:
            self._known[id(e)] = e, axes.length(e, self._cut)
        return self._known[id(e)][1]


def parameters(analysis: Analysis, keep: KeepByName | None = None) -> int:
    """The number of parameters after a cut; shared ones count once. Nothing is run.

    Example:
        >>> from luthier.model import analyse
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> analysis = analyse(net, torch.zeros(1, 4))
        >>> parameters(analysis), parameters(analysis, {"0": [0, 1, 2]})
        (58, 23)
    """
    cut = keep_axes(analysis, keep)
    used = {name: math.prod(axes.length(d.expr, cut) for d in analysis.state[name]) for name in analysis.parameters}
    rest = [n for n in analysis.traced.parameters if n in analysis.traced.state and n not in used]
    return sum(used.values()) + sum(analysis.traced.state[n].numel() for n in rest)


def size_in_bytes(analysis: Analysis, keep: KeepByName | None = None, without: Container[str] = ()) -> int:
    """Bytes of all tensors but those named after a cut, buffers and constants too, each in its own type.

    Example:
        >>> from luthier.model import analyse
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        >>> analysis = analyse(net, torch.zeros(2, 4))
        >>> size_in_bytes(analysis) == sum(t.numel() * t.element_size() for t in net.state_dict().values())
        True
    """
    cut = keep_axes(analysis, keep)
    total = 0
    for name in [n for n in analysis.traced.state if n not in without]:
        tensor, dims = analysis.traced.state[name], analysis.state.get(name)
        count = tensor.numel() if dims is None else math.prod(axes.length(d.expr, cut) for d in dims)
        total += count * tensor.element_size()
    return total


def macs(analysis: Analysis, keep: KeepByName | None = None) -> int:
    """Multiply-adds of one forward pass on the example inputs after a cut. Nothing is run.

    Example:
        >>> from luthier.model import analyse
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> analysis = analyse(net, torch.zeros(1, 4))
        >>> macs(analysis), macs(analysis, {"0": [0, 1, 2]})
        (48, 18)
    """
    return sum(by_operation(analysis, keep).values())


def by_operation(analysis: Analysis, keep: KeepByName | None = None) -> dict[fx.Node, int]:
    """Multiply-adds by operation; those that count none are left out."""
    size = Sizes(keep_axes(analysis, keep))
    found = {}
    for op, rule in analysis.operations:
        if rule is not None and rule.macs is not None:
            count = rule.macs(op, size)
            found[op.node] = count // analysis.traced.batch if op.node in analysis.batched else count
    return found


def shrinks(analysis: Analysis, node: fx.Node, free: Iterable[Axis]) -> bool:
    """Whether cutting any of ``free`` makes an operation cheaper."""
    mine = set(free)
    results = [analysis.facts.dims[n] for n in (*node.all_input_nodes, node) if n in analysis.facts.dims]
    dims = [d for result in results for d in result or [] if isinstance(d, Dim)]
    return any(axes.touches(d.expr, mine) for d in dims)


def count_parameters(model: nn.Module) -> int:
    """How many numbers the parameters hold; shared ones count once."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, inputs: Any) -> int:
    """Multiply-adds of one forward pass as PyTorch's own counter sees them.

    Source:
        ``torch.utils.flop_counter``, which counts two operations for each multiply-add.
    """
    given = Inputs.of(inputs)
    with evaluating(model), torch.no_grad(), counting() as counter:
        model(*given.args, **given.kwargs)
    return int(counter.get_total_flops()) // 2


@contextlib.contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """PyTorch's counter, with every multiplication in plain sight: no fused attention, no fused recurrence."""
    with (
        warnings.catch_warnings(action="ignore"),
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.mkldnn.flags(enabled=False),
        FlopCounterMode(display=False) as counter,
    ):
        yield counter
