"""Pooling, interpolation and padding: channels pass through, positions change."""

from __future__ import annotations

from luthier.model.op import Dim, Dims, Op, Result
from luthier.model.rules import Rule

_POOLS = ("avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool", "fractional_max_pool")
_RESIZES = ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d", "bicubic2d")
_KINDS = (
    *(f"{kind}{n}d" for kind in _POOLS for n in (1, 2, 3) if (kind, n) != ("fractional_max_pool", 1)),
    "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices",
    *(f"upsample_{kind}" for kind in _RESIZES),
    *(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)),
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
    keeps = not op.name.startswith("max_unpool")
    outs: list[Dims | None] = []
    for k, shape in enumerate(shapes):
        kept = [Dim(d.expr, d.zero and k == 0 and keeps) for d in x[:-spatial]]
        outs.append([*kept, *(op.fixed(s, "positions of an image") for s in (shape or [])[len(kept) :])])
    for other in op.tensors()[1:] if op.name.startswith(("max_unpool", "fractional")) else []:
        lead = op.dims(other)[:2] if op.name.startswith("fractional") else op.dims(other)[:-spatial]
        for a, b in zip(reversed(x[:-spatial]), reversed(lead), strict=False):
            op.unify(a, b)
    return outs if isinstance(op.node.meta["val"], tuple | list) else outs[0]


def grid_sampler(op: Op) -> Dims:
    """Positions are looked up; channels pass."""
    x = op.dims(op.arg(0))
    for d in [*x[2:], *op.dims(op.arg(1))]:
        op.freeze(d, "positions that are looked up")
    return [*x[:2], *(op.fixed(s) for s in op.shape[2:])]


RULES = {
    **{name: Rule(positions) for name in _KINDS},
    **{name: Rule(grid_sampler) for name in ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")},
}
