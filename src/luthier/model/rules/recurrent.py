"""LSTM, GRU and plain recurrent layers and cells: gates x units, the units tied through time, layers and directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import fx

from luthier.model.axes import Axis, Product, Sum, unify
from luthier.model.op import Dim, Dims, Op, Result
from luthier.model.rules import Rule
from luthier.model.rules.linear import any_zero, biased

Size = Callable[[Any], int]
_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


class _Layer(NamedTuple):
    """The weights of one layer in one direction."""

    ih: fx.Node
    hh: fx.Node
    biases: tuple[fx.Node, ...]
    projection: fx.Node | None


def _layers(op: Op) -> tuple[list[_Layer], int]:
    """The weights by layer and direction, and how many directions there are."""
    params: Sequence[fx.Node] = op.arg(2)
    directions = 2 if op.arg(7) else 1
    each = len(params) // (op.arg(4) * directions)
    biased, found = bool(op.arg(3)), []
    for i in range(0, len(params), each):
        mine = params[i : i + each]
        biases = tuple(mine[2:4]) if biased else ()
        rest = mine[4 if biased else 2 :]
        found.append(_Layer(mine[0], mine[1], biases, rest[0] if rest else None))
    return found, directions


def recurrent(op: Op) -> Result:
    """All layers and directions have the same units: they share one stack of states."""
    if not str(op.node.target).endswith(".input"):
        return op.unknown()
    x, states = op.arg(0), op.arg(1) if op.name == "lstm" else [op.arg(1)]
    rows = op.dims(x)[:-1]
    steps = 1 if len(rows) > 1 and op.arg(8) else 0
    op.freeze(rows[steps], "steps in time")
    for s in states:
        op.freeze(op.dims(s)[0], "layers and directions")
        if len(rows) > 1:
            op.unify(rows[1 - steps], op.dims(s)[1])
    layers, directions = _layers(op)
    hidden, cell = op.dims(states[0])[-1], op.dims(states[-1])[-1]
    if layers[0].projection is None:
        op.unify(hidden, cell)
    source: Dim | None = None
    for i, layer in enumerate(layers):
        _weights(op, _GATES[op.name], layer, hidden, cell)
        if i < directions:
            op.contract(x, -1, layer.ih, 1)
        elif source is not None:
            op.unify(source, op.dims(layer.ih)[1])
        if i % directions == directions - 1:
            source = Dim(Sum([hidden.expr] * directions))
    zero = cell.zero and _vanishes(op, layers, hidden)
    out = Dim(Sum([hidden.expr] * directions), zero)
    ends: list[Dims] = [[*biased(op.dims(s)[:-1]), Dim(op.dims(s)[-1].expr, zero)] for s in states]
    return [[*biased(rows), out], *ends]


def _weights(op: Op, gates: int, layer: _Layer, hidden: Dim, cell: Dim) -> None:
    why = op.because("gates that do not line up")
    rows = Product([Axis(gates, why), cell.expr])
    for node, dim in ((layer.ih, 0), (layer.hh, 0), *((b, 0) for b in layer.biases)):
        unify(op.dims(node)[dim].expr, rows, why)
    unify(op.dims(layer.hh)[1].expr, hidden.expr, why)
    if layer.projection is not None:
        unify(op.dims(layer.projection)[0].expr, hidden.expr, why)
        unify(op.dims(layer.projection)[1].expr, cell.expr, why)


def _vanishes(op: Op, layers: list[_Layer], hidden: Dim) -> bool:
    """A masked unit stays at zero if it starts there: its gates see nothing."""
    nodes = [n for layer in layers for n in (layer.ih, layer.hh, *layer.biases)]
    return hidden.zero and all(op.dims(n)[0].zero for n in nodes)


def recurrent_macs(op: Op, size: Size) -> int:
    """Every step multiplies by every weight."""
    if not str(op.node.target).endswith(".input"):
        return 0
    steps = math.prod(size(d) for d in op.dims(op.arg(0))[:-1])
    layers, _ = _layers(op)
    weights = [n for layer in layers for n in (layer.ih, layer.hh, layer.projection) if n is not None]
    return steps * sum(math.prod(size(d) for d in op.dims(n)) for n in weights)


def cell(op: Op) -> Result:
    """One step of a recurrent layer."""
    gates = {"lstm_cell": 4, "gru_cell": 3}.get(op.name, 1)
    states = op.arg(1) if op.name == "lstm_cell" else [op.arg(1)]
    biases = tuple(b for b in (op.arg(4, "b_ih"), op.arg(5, "b_hh")) if isinstance(b, fx.Node))
    layer = _Layer(op.arg(2), op.arg(3), biases, None)
    hidden, memory = op.dims(states[0])[-1], op.dims(states[-1])[-1]
    op.contract(op.arg(0), -1, layer.ih, 1)
    op.unify(hidden, memory)
    _weights(op, gates, layer, hidden, memory)
    zero = hidden.zero and memory.zero and _vanishes(op, [layer], hidden)
    for s in states:
        op.broadcast([op.dims(op.arg(0))[:-1], op.dims(s)[:-1]], any_zero)
    outs: list[Dims] = [[*biased(op.dims(s)[:-1]), Dim(op.dims(s)[-1].expr, zero)] for s in states]
    return outs if op.name == "lstm_cell" else outs[0]


def cell_macs(op: Op, size: Size) -> int:
    """One step multiplies by every weight."""
    batch = math.prod(size(d) for d in op.dims(op.arg(0))[:-1])
    return batch * sum(math.prod(size(d) for d in op.dims(op.arg(i))) for i in (2, 3))


RULES = {
    **{name: Rule(recurrent, macs=recurrent_macs) for name in _GATES},
    **{name: Rule(cell, macs=cell_macs) for name in ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")},
}
