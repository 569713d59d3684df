"""Widths that the runtime likes: which multiples cost no more per channel than the widest ones, by measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from luthier.measure.single import Spec
from luthier.measure.table import Table
from luthier.model import Analysis

MULTIPLES = (1, 2, 4, 8, 16)
SLACK = 1.08
"""How much dearer, for the work that is done, a multiple may be than the largest one."""
_BASE = 96  # a width at which layers do real work

_LAYERS: dict[str, Callable[[int], Spec]] = {
    "conv": lambda w: ("conv", 1, w, w, 1, [14, 14], [3, 3], [1, 1], [1, 1], [1, 1]),
    "depthwise": lambda w: ("conv", 1, w, w, w, [28, 28], [3, 3], [1, 1], [1, 1], [1, 1]),
    "linear": lambda w: ("linear", 64, w, w),
    "recurrent": lambda w: ("lstm", 8, 1, w, w, 1),
}
_USES = {
    **{f"conv{n}d": "conv" for n in (1, 2, 3)},
    **dict.fromkeys(("linear", "addmm", "matmul", "bmm", "mm", "scaled_dot_product_attention"), "linear"),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), "recurrent"),
}


def price(table: Table, kind: str, multiple: int) -> float:
    """How much dearer work is at odd multiples of ``multiple`` than at the next multiple of 16, at its worst.

    Args:
        table: measured times.
        kind: "conv", "depthwise", "linear" or "recurrent".
        multiple: 1 to 16.

    Example:
        >>> fair = Table(None, measure=lambda spec: float(spec[2] ** 2))
        >>> blocks = Table(None, measure=lambda spec: float(-(-spec[2] // 16)) ** 2)
        >>> round(price(fair, "linear", 1), 2), round(price(blocks, "linear", 8), 2), price(blocks, "linear", 16)
        (1.0, 1.16, 1.0)
    """
    wide, power = _BASE + 16, 1 if kind == "depthwise" else 2
    odd = range(_BASE + multiple, wide, 2 * multiple) if multiple < 16 else [wide]
    each = {w: table(_LAYERS[kind](w)) / float(w**power) for w in (*odd, wide)}
    return max(each[w] for w in odd) / each[wide]


def liked(table: Table, kinds: Iterable[str]) -> int:
    """The least multiple at which work in layers of these kinds costs at most :data:`SLACK` times the best.

    Example:
        >>> liked(Table(None, measure=lambda spec: float(-(-spec[2] // 8)) ** 2), ["linear"])
        8
    """
    wanted = [next(m for m in MULTIPLES if price(table, kind, m) <= SLACK) for kind in kinds]
    return max(wanted, default=1)


def multiple_for(analysis: Analysis, multiple: int | str, table: Table | None = None) -> int:
    """The multiple that widths are rounded to: as given, or for "auto" what a network's layers like here.

    Args:
        analysis: of the network.
        multiple: a number, or "auto".
        table: measured times; this machine's if None, kept in the user's cache folder.
    """
    if multiple != "auto":
        return multiple  # type: ignore[return-value]  # Rounding says what is wrong with other words
    table = table or Table.here()
    found = liked(table, kinds(analysis))
    table.save()
    return found


def kinds(analysis: Analysis) -> list[str]:
    """The kinds of layers in a network, of those that are timed."""
    found = set()
    for op, _ in analysis.operations:
        kind = _USES.get(op.name)
        if kind == "conv" and op.node in op.facts.memo and op.dims(op.arg(1))[1].size == 1:
            kind = "depthwise"
        found |= {kind} if kind else set()
    return sorted(found)
