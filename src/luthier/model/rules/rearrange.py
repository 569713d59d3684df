"""Channels into positions and back: pixel shuffles, channel shuffles, patches."""

from __future__ import annotations

from typing import Any

from luthier.model.axes import Axis, Product, Sum, split
from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule


def pixel_shuffle(op: Op) -> Dims:
    """Channels = c x r^2; the r^2 go into positions."""
    x, r = op.dims(op.arg(0)), int(op.arg(1))
    channel = Axis(x[-3].size // (r * r))
    op.unify(x[-3], Dim(Product([channel, Axis(r * r, op.because("pixels of a block"))])))
    _hold(op, x[-2:])
    return [*x[:-3], Dim(channel, x[-3].zero), *(op.fixed(s) for s in op.shape[-2:])]


def pixel_unshuffle(op: Op) -> Dims:
    """Blocks of r x r positions become channels: c x r^2."""
    x, r = op.dims(op.arg(0)), int(op.arg(1))
    _hold(op, x[-2:])
    channel = Product([x[-3].expr, Axis(r * r, op.because("pixels of a block"))])
    return [*x[:-3], Dim(channel, x[-3].zero), *(op.fixed(s) for s in op.shape[-2:])]


def channel_shuffle(op: Op) -> Dims:
    """g x c becomes c x g."""
    x, groups = op.dims(op.arg(0)), int(op.arg(1))
    g, c = Axis(groups, op.because("groups to shuffle")), Axis(x[1].size // groups)
    op.unify(x[1], Dim(Product([g, c])))
    return [x[0], Dim(Product([c, g]), x[1].zero), *x[2:]]


def im2col(op: Op) -> Dims:
    """Windows of an image as columns: channels x positions of the window."""
    x, shape = op.dims(op.arg(0)), op.shape
    _hold(op, x[-2:])
    window = Axis(shape[-2] // x[-3].size, op.because("positions of a window"))
    return [*x[:-3], Dim(Product([x[-3].expr, window]), x[-3].zero), op.fixed(shape[-1])]


def col2im(op: Op) -> Dims:
    """Columns back to an image: the channels are what is left of channels x positions."""
    x, shape = op.dims(op.arg(0)), op.shape
    channel = Axis(shape[-3])
    op.unify(x[-2], Dim(Product([channel, Axis(x[-2].size // shape[-3], op.because("positions of a window"))])))
    _hold(op, x[-1:])
    return [*x[:-2], Dim(channel, x[-2].zero), *(op.fixed(s) for s in shape[-2:])]


def unfold(op: Op) -> Dims:
    """Windows that slide along one dimension: it is held, and a new one is added."""
    x = list(op.dims(op.arg(0)))
    at = op.arg(1, "dimension") % len(x)
    _hold(op, [x[at]])
    x[at] = op.fixed(op.shape[at], "windows")
    return [*x, op.fixed(op.shape[-1], "positions of a window")]


def _hold(op: Op, dims: Dims) -> None:
    for d in dims:
        op.freeze(d, "positions of an image")


def glu(op: Op) -> Dims:
    """a * sigmoid(b) of the two halves."""
    x = list(op.dims(op.arg(0)))
    at = op.arg(1, "dim", -1) % len(x)
    why = op.because("halves that do not line up")
    a, b = split(x[at].expr, x[at].size // 2, why)
    op.unify(Dim(a), Dim(b))
    x[at] = Dim(a, x[at].zero)
    return x


def pad(op: Op) -> Dims:
    """A dimension padded with a constant is a sum with what is added; otherwise it is held."""
    x, shape = op.dims(op.arg(0)), op.shape
    constant = op.name == "constant_pad_nd" or (op.name == "pad" and op.arg(2, "mode", "constant") == "constant")
    fill = op.arg(2 if op.name == "constant_pad_nd" else 3, "value", 0) or 0
    out: Dims = []
    for i, (d, s) in enumerate(zip(x, shape, strict=True)):
        before, after = _amounts(op.arg(1), len(x) - 1 - i)
        if not before and not after and d.size == s:
            out.append(Dim(d.expr, d.zero and not fill))
        elif constant and type(before) is int and type(after) is int and before >= 0 and after >= 0:
            parts = [op.fixed(before, "padding").expr, d.expr, op.fixed(after, "padding").expr]
            out.append(Dim(Sum(parts), d.zero and not fill))
        else:
            op.freeze(d, "padding")
            out.append(op.fixed(s, "padding"))
    return out


def _amounts(pads: Any, from_last: int) -> tuple[Any, Any]:
    at = 2 * from_last
    return (pads[at], pads[at + 1]) if at + 1 < len(pads) else (0, 0)


RULES = {
    "pixel_shuffle": Rule(pixel_shuffle),
    "pixel_unshuffle": Rule(pixel_unshuffle),
    "channel_shuffle": Rule(channel_shuffle),
    "native_channel_shuffle": Rule(channel_shuffle),
    "im2col": Rule(im2col),
    "col2im": Rule(col2im),
    "unfold": Rule(unfold),
    "glu": Rule(glu),
    **{name: Rule(pad) for name in ("constant_pad_nd", "pad")},
    **{f"{kind}_pad{n}d": Rule(pad) for kind in ("reflection", "replication") for n in (1, 2, 3)},
}
