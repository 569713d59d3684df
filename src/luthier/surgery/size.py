"""A budget of bytes: those of the file that is shipped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import fx

from luthier.errors import LuthierError
from luthier.measure.onnx_file import write_onnx
from luthier.model import Analysis, cost
from luthier.model.cost import KeepByName
from luthier.model.evaluating import evaluating
from luthier.model.trace import op_name


def file_size(analysis: Analysis) -> Callable[[KeepByName], float]:
    """From what stays to the bytes of the ONNX file: its tensors, and what the dense network's file holds beside them.

    Where there is no ONNX file to look at, because the network or this installation cannot write one, the tensors
    alone count.
    """
    beside, folded = 0, _folded(analysis)
    with tempfile.TemporaryDirectory() as folder, evaluating(analysis.model):
        path = Path(folder) / "dense.onnx"
        try:
            write_onnx(analysis.model, path, analysis.traced.inputs)
            beside = path.stat().st_size - cost.size_in_bytes(analysis, without=folded)
        except LuthierError:
            folded = set()
    return lambda keep: beside + cost.size_in_bytes(analysis, keep, folded)


def _folded(analysis: Analysis) -> set[str]:
    """Tensors of batch norms behind convolutions: the exporter folds them into the weights, and a bias is left."""
    found: set[str] = set()
    for op, _ in analysis.operations:
        source = op.arg(0)
        if op.name == "batch_norm" and isinstance(source, fx.Node) and op_name(source).startswith("conv"):
            biased = isinstance(source.args[2] if len(source.args) > 2 else None, fx.Node)
            tensors = [op.arg(i) for i in (1, 3, 4, *((2,) if biased else ()))]
            found |= {str(t.target) for t in tensors if isinstance(t, fx.Node)}
    return {analysis.traced.ties.get(name, name) for name in found}
