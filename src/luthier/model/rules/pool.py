"""Pooling, interpolation and padding: channels pass through, positions change."""

from __future__ import annotations

from luthier.model.op import Dim, Dims, Op, Result
from luthier.model.rules import Rule

_POOLS = ("avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool", "lp_pool", "fractional_max_pool")
_RESIZES = (
    "nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d", "bicubic2d", "nearest_exact1d",
    "nearest_exact2d", "nearest_exact3d",
)  # fmt: skip
_KINDS = (
    *(f"{kind}{n}d{suffix}" for kind in _POOLS for n in (1, 2, 3) for suffix in ("", "_with_indices")),
    *(f"{prefix}upsample_{kind}" for prefix in ("", "_") for kind in _RESIZES),
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "max_unpool2d", "max_unpool3d",
)  # fmt: skip
_SPATIAL = {"1": 1, "2": 2, "3": 3}


def positions(op: Op) -> Result:
    """Batch and channels stay; every position that may change is held."""
    x = op.dims(op.arg(0))
    spatial = next((n for digit, n in _SPATIAL.items() if digit in op.name), len(x) - 2)
    for d in x[-spatial:]:
        op.freeze(d, "positions that a window slides over")
    shapes = [op.shape] if not isinstance(op.node.meta["val"], tuple | list) else op.shapes
    keeps = not op.name.startswith(("max_unpool", "grid"))
    outs: list[Dims | None] = []
    for k, shape in enumerate(shapes):
        lead = [Dim(d.expr, d.zero and k == 0 and keeps) for d in x[:-spatial]]
        outs.append([*lead, *(op.fixed(s, "positions of an image") for s in (shape or [])[len(lead) :])])
    for other in op.tensors()[1:] if op.name.startswith("max_unpool") else []:
        for a, b in zip(x[:-spatial], op.dims(other)[:-spatial], strict=True):
            op.unify(a, b)
    return outs if isinstance(op.node.meta["val"], tuple | list) else outs[0]


def pad(op: Op) -> Dims:
    """A padded dimension is held; so is what is added to it."""
    x = op.dims(op.arg(0))
    out: Dims = []
    for d, s in zip(x, op.shape, strict=True):
        if d.size == s:
            out.append(d)
        else:
            op.freeze(d, "padding")
            out.append(op.fixed(s, "padding"))
    fill = op.arg(2 if op.name == "constant_pad_nd" else 3, "value", 0)
    return [Dim(d.expr, d.zero and not fill) for d in out]


RULES = {
    **{name: Rule(positions) for name in _KINDS},
    **{
        name: Rule(pad)
        for name in (
            "constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
            "replication_pad1d", "replication_pad2d", "replication_pad3d",
        )
    },
}  # fmt: skip
