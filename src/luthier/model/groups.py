"""Groups: a free axis with every place where it occurs. What is cut, is cut by groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import fx

from luthier.model import axes
from luthier.model.axes import Axis, Expr, Product, Sum

if TYPE_CHECKING:
    from luthier.model.analysis import Analysis


class Occurrence(NamedTuple):
    """A place where a group shows.

    Args:
        parameter: the tensor's name.
        dim: which of its dimensions.
        expr: what that dimension is made of.
    """

    parameter: str
    dim: int
    expr: Expr


@dataclass(frozen=True, eq=False)
class Group:
    """A free axis.

    Args:
        name: the module whose output width it is, such as "layer1.0.conv1".
        axis: the axis itself.
        occurrences: where it shows, in order of use.
        default: whether it is cut unless asked otherwise: of several factors of one width only one is.
    """

    name: str
    axis: Axis
    occurrences: tuple[Occurrence, ...] = field(repr=False)
    default: bool = True

    @property
    def size(self) -> int:
        """How many indices it has."""
        return self.axis.size

    @property
    def roles(self) -> set[str]:
        """What is known of its use: "heads", "head size", "groups", "statistics"."""
        return self.axis.roles

    @property
    def exact(self) -> bool:
        """Whether the cut network equals the masked one without restricting a normalisation to what is left."""
        return "statistics" not in self.axis.roles

    def __repr__(self) -> str:
        return f"Group({self.name!r}, {self.size})"


def find_groups(analysis: Analysis) -> list[Group]:
    """Every free axis that some parameter has, in order of first use."""
    places: dict[Axis, list[Occurrence]] = {}
    for name in _by_use(analysis):
        for i, dim in enumerate(analysis.state[name]):
            for axis in dict.fromkeys(axes.leaves(dim.expr)):
                if axis.why is None and axis.size > 1:
                    places.setdefault(axis, []).append(Occurrence(name, i, axes.find(dim.expr)))
    chosen = _choose(analysis, places)
    names = _names(places)
    return [Group(names[axis], axis, tuple(found), axis in chosen) for axis, found in places.items()]


def _by_use(analysis: Analysis) -> list[str]:
    """Parameters in the order in which the graph first uses them."""
    order = {op.node: i for i, (op, _) in enumerate(analysis.operations)}
    first: dict[str, int] = {}
    for node in analysis.traced.program.graph.nodes:
        if node.op == "get_attr":
            name = analysis.traced.ties.get(node.target, node.target)
            at = min((_used(user, order) for user in node.users), default=len(order))
            first[name] = min(at, first.get(name, at))
    return sorted(analysis.parameters, key=lambda name: first.get(name, len(order)))


def _used(node: fx.Node, order: dict[fx.Node, int]) -> int:
    return order.get(node, len(order))


def _names(places: dict[Axis, list[Occurrence]]) -> dict[Axis, str]:
    """Each axis by the module of its first occurrence; further ones of one module are numbered."""
    owners = {axis: found[0].parameter.rpartition(".")[0] or found[0].parameter for axis, found in places.items()}
    seen: Counter[str] = Counter()
    names = {}
    for axis, owner in owners.items():
        names[axis] = owner if not seen[owner] else f"{owner}:{seen[owner]}"
        seen[owner] += 1
    return names


def _choose(analysis: Analysis, places: dict[Axis, list[Occurrence]]) -> set[Axis]:
    """The axes that are cut by default: of the free factors of one width, one.

    Heads before head sizes; else the larger factor, the outer one where they are equal.
    """
    rivals: dict[Axis, set[Axis]] = {}
    order: list[Axis] = []
    for found in places.values():
        for place in found:
            for product in _products(place.expr):
                free = [a for a in _factors(product) if a in places]
                for a in free:
                    rivals.setdefault(a, set()).update(b for b in free if b is not a)
                order += sorted(free, key=lambda a: ("head size" in a.roles, "heads" not in a.roles, -a.size))
    chosen: set[Axis] = set()
    for axis in [*order, *places]:
        if not rivals.get(axis, set()) & chosen and "head size" not in axis.roles:
            chosen.add(axis)
    return chosen


def _products(e: Expr) -> list[Product]:
    e = axes.find(e)
    if isinstance(e, Product):
        return [e]
    return [p for part in e.parts for p in _products(part)] if isinstance(e, Sum) else []


def _factors(product: Product) -> list[Axis]:
    return list(dict.fromkeys(axes.leaves(product)))
