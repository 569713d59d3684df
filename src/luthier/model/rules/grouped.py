"""Products with one matrix per group of rows, as in a mixture of experts: experts and rows stay, widths are free."""

from __future__ import annotations

from luthier.model.op import Dims, Op, Result
from luthier.model.rules import Rule


def grouped(op: Op) -> Result:
    """x [rows, k] with w [experts, k, n]: rows come sorted by expert, so both stay whole; k is summed over."""
    x, w = op.arg(0), op.arg(1)
    rows, matrices = op.dims(x), op.dims(w)
    if len(rows) != 2 or len(matrices) != 3 or op.arg(3, "bias") is not None:
        return op.unknown()
    op.freeze(rows[0], "rows that are sorted by expert")
    op.freeze(matrices[0], "experts that rows are sorted by")
    op.contract(x, 1, w, 1)
    if op.name == "_grouped_mm":
        for d in matrices[1:]:
            op.freeze(d, "rows that must be multiples of 16 bytes long")
    out: Dims = [rows[0], matrices[2]]
    return out


RULES = {name: Rule(grouped) for name in ("_grouped_mm", "grouped_mm_fallback")}
