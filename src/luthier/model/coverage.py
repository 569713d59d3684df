"""How much of a network can be cut, and what is in the way of the rest."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier.model import axes, cost
from luthier.model.op import Frozen

if TYPE_CHECKING:
    from luthier.model.analysis import Analysis

_BY_DESIGN = (
    "the model's input",
    "the model's output",
    "protect=",
    "positions",
    "a vocabulary",
    "a size of its own",
    "a slice as long as the input is",
)


@dataclass(frozen=True)
class Blocker:
    """Something that keeps dimensions whole.

    Args:
        why: in words; ``op``: the operation; ``where``: file and line.
        op: the operation's name.
        where: file and line of the user's code.
        parameters: how many parameters would otherwise lie on a free axis more.
    """

    why: str
    op: str
    where: str
    parameters: int

    def __str__(self) -> str:
        return f"{self.parameters:>12,} parameters  {self.why}: {self.op} at {self.where}"


@dataclass(frozen=True)
class Coverage:
    """The share of a network on free axes.

    Args:
        parameters: share of its parameters, 0 to 1.
        macs: share of its multiply-adds, 0 to 1.
        blockers: what is in the way, the largest first.
    """

    parameters: float
    macs: float
    blockers: tuple[Blocker, ...] = ()

    def __str__(self) -> str:
        head = f"{self.parameters:.1%} of the parameters and {self.macs:.1%} of the MACs can be cut"
        if not self.parameters and not self.blockers:
            head += ": every width belongs to the inputs or the outputs, or is protected"
        return "\n".join([head, *(f"  {b}" for b in self.blockers[:5])])


def coverage(analysis: Analysis) -> Coverage:
    """Counts what lies on the axes that are cut by default."""
    free = {g.axis for g in analysis.groups}
    sizes = {name: analysis.traced.state[name].numel() for name in analysis.parameters}
    mine = sum(n for name, n in sizes.items() if any(axes.touches(d.expr, free) for d in analysis.state[name]))
    total = sum(sizes.values())
    macs = cost.by_operation(analysis)
    touched = sum(n for op, n in macs.items() if cost.shrinks(analysis, op, free))
    whole = sum(macs.values())
    return Coverage(mine / total if total else 0.0, touched / whole if whole else 0.0, _blockers(analysis, sizes))


def _blockers(analysis: Analysis, sizes: dict[str, int]) -> tuple[Blocker, ...]:
    found: dict[tuple[str, str, str], int] = defaultdict(int)
    for name, _, why in analysis.frozen:
        if isinstance(why, Frozen) and why.op and not why.why.startswith(_BY_DESIGN):
            found[why.why, why.op, why.where] += sizes[name]
    ranked = sorted(found.items(), key=lambda item: -item[1])
    return tuple(Blocker(why, op, where, n) for (why, op, where), n in ranked)
