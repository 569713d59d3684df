"""One operation of the graph as the rules see it: its inputs' dimensions, its arguments, what may be said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.utils import _pytree as pytree

from luthier.model import axes
from luthier.model.axes import Axis, Expr
from luthier.model.where import source


class Dim(NamedTuple):
    """A dimension of a tensor.

    Args:
        expr: what it is made of.
        zero: whether the tensor is zero at every index that a mask removes from this dimension. Contractions
            rely on it: the sum over a masked dimension equals the sum over a cut one.
    """

    expr: Expr
    zero: bool = True

    @property
    def size(self) -> int:
        """How many indices, before any cut."""
        return self.expr.size


Dims = list[Dim]
Result = Dims | Sequence[Dims | None] | None
"""A tensor's dimensions; a list of them for several outputs; None where there is no tensor."""


@dataclass(frozen=True)
class Frozen:
    """Why something cannot be cut.

    Args:
        why: in words.
        op: the operation, or "" where none is to blame.
        where: file and line, found when asked for.
    """

    why: str
    op: str = ""
    node: fx.Node | None = field(default=None, repr=False, compare=False)

    @property
    def where(self) -> str:
        """File and line of the user's code, or the node's name."""
        return source(self.node) if self.node is not None else ""

    def __str__(self) -> str:
        return self.why + (f" ({self.op} at {self.where})" if self.op else "")


@dataclass
class Facts:
    """What the rules leave behind, by node.

    Args:
        dims: the dimensions of every node's result.
        contracted: (node, dimension, what of it is summed over): where an activation is consumed.
        statistics: nodes whose result depends on how many of an axis there are (normalisations).
        memo: expressions that a rule needs again when it rewrites or counts.
    """

    dims: dict[fx.Node, Result] = field(default_factory=dict)
    contracted: list[tuple[fx.Node, int, Expr]] = field(default_factory=list)
    statistics: dict[fx.Node, None] = field(default_factory=dict)
    memo: dict[fx.Node, Any] = field(default_factory=dict)


class Op:
    """An operation with its inputs' dimensions."""

    def __init__(self, node: fx.Node, name: str, facts: Facts) -> None:
        self.node, self.name, self.facts = node, name, facts

    def arg(self, i: int, name: str = "", default: Any = None) -> Any:
        """An argument by position or name."""
        return self.node.args[i] if len(self.node.args) > i else self.node.kwargs.get(name, default)

    def dims(self, node: Any) -> Dims:
        """The dimensions of an input; a number has none."""
        found = self.facts.dims.get(node) if isinstance(node, fx.Node) else None
        return found if isinstance(found, list) else []

    def tensors(self) -> list[fx.Node]:
        """The inputs that are tensors, in order."""
        flat = pytree.tree_leaves((self.node.args, self.node.kwargs))
        return [n for n in flat if isinstance(n, fx.Node) and isinstance(self.facts.dims.get(n), list)]

    @property
    def shape(self) -> list[int]:
        """The example output's sizes."""
        return sizes(self.node.meta["val"])

    @property
    def shapes(self) -> list[list[int] | None]:
        """The example outputs' sizes, for operations with several."""
        values = self.node.meta["val"]
        return [sizes(v) if isinstance(v, torch.Tensor) else None for v in values]

    def because(self, why: str) -> Frozen:
        """A reason that names this operation and its line."""
        return Frozen(why, self.name, self.node)

    def unify(self, a: Dim, b: Dim) -> None:
        """Ties two dimensions."""
        axes.unify(a.expr, b.expr, self.because("dimensions that cannot be made to agree"))

    def freeze(self, dim: Dim, why: str) -> Dim:
        """Keeps a dimension whole."""
        axes.freeze(dim.expr, self.because(why))
        return dim

    def fixed(self, size: int, why: str = "a size of its own") -> Dim:
        """A new dimension that stays whole."""
        return Dim(Axis(size, self.because(why)))

    def contract(self, x: fx.Node, i: int, w: fx.Node, j: int) -> None:
        """Sums over dimension i of x times dimension j of w; one of the two must vanish where it is cut."""
        a, b = self.dims(x)[i], self.dims(w)[j]
        self.unify(a, b)
        if not (a.zero or b.zero):
            self.freeze(a, "a sum over values that a mask does not make zero")
        self.facts.contracted.append((x, i % len(self.dims(x)), a.expr))

    def statistic(self, dims: Sequence[Dim]) -> None:
        """Says that the result depends on how many there are of these dimensions' free axes."""
        if any(axes.is_free(d.expr) for d in dims):
            self.facts.statistics[self.node] = None
        for d in dims:
            axes.mark(d.expr, "statistics")

    def broadcast(self, operands: Sequence[Dims], zero: Callable[[list[bool | None]], bool]) -> Dims:
        """Aligns dimensions from the right as PyTorch does.

        Args:
            operands: each input's dimensions.
            zero: from each operand's flag (None where it is broadcast along the dimension) to the result's.
        """
        rank = max(map(len, operands))
        out: Dims = []
        for i in range(-rank, 0):
            here = [d[i] if len(d) >= -i else None for d in operands]
            big = [d for d in here if d is not None and d.size != 1]
            for other in big[1:]:
                self.unify(big[0], other)
            flags = [d.zero if d is not None and d.size != 1 else None for d in here]
            out.append(Dim(big[0].expr, zero(flags)) if big else Dim(Axis(1, "a single index")))
        return out

    def unknown(self) -> Result:
        """No rule: freezes every input and returns frozen outputs."""
        for node in self.tensors():
            for dim in _flat(self.facts.dims[node]):
                self.freeze(dim, f"no rule for {self.name}")
        return self.opaque(f"no rule for {self.name}")

    def opaque(self, why: str) -> Result:
        """Outputs of frozen dimensions."""
        value = self.node.meta.get("val")
        if isinstance(value, torch.Tensor):
            return [self.fixed(s, why) for s in self.shape]
        if isinstance(value, list | tuple):
            return [None if s is None else [self.fixed(k, why) for k in s] for s in self.shapes]
        return None


def sizes(value: torch.Tensor) -> list[int]:
    """A tensor's sizes; symbolic ones by their example."""
    return [whole(s) for s in value.shape]


def whole(size: Any) -> int:
    """A size as a number; a symbolic one by its example."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def _flat(result: Result) -> list[Dim]:
    out: list[Dim] = []
    for item in result or []:
        if isinstance(item, Dim):
            out.append(item)
        else:
            out.extend(item or [])
    return out
