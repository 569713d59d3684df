"""A budget of bytes: those of the file that is shipped."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import fx, nn

from luthier.errors import LuthierError
from luthier.measure.onnx_file import write_onnx
from luthier.model import Analysis, cost
from luthier.model.cost import KeepByName
from luthier.model.evaluating import evaluating
from luthier.model.trace import op_name


class FileSize:
    """From what stays to the bytes of the ONNX file: its tensors, and what the dense network's file holds beside them.

    Where there is no ONNX file to look at, because the network or this installation cannot write one, the tensors
    alone count. A cut network that runs as a graph has more beside its tensors: :meth:`corrected` finds out.

    Args:
        analysis: of the network.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.analysis, self.folded, self.beside, self.more = analysis, _folded(analysis), 0.0, 0.0
        size = _written(analysis, analysis.model)
        if size is None:
            self.folded = set()
        else:
            self.beside = size - cost.size_in_bytes(analysis, without=self.folded)
        self.known = size is not None

    def __call__(self, keep: KeepByName) -> float:
        """The file's bytes, as predicted."""
        more = self.more if keep else 0.0
        return self.beside + more + cost.size_in_bytes(self.analysis, keep, self.folded)

    def corrected(self, keep: KeepByName, model: nn.Module, share: float) -> bool:
        """Whether a cut network's file is over a share of the dense one's; what is predicted is put right by it."""
        size = _written(self.analysis, model) if self.known else None
        if size is None or size <= share * self({}):
            return False
        self.more += size - self(keep)
        return True


def _written(analysis: Analysis, model: nn.Module) -> int | None:
    """The bytes of a network's ONNX file; None where there can be none."""
    with tempfile.TemporaryDirectory() as folder, evaluating(model):
        path = Path(folder) / "model.onnx"
        try:
            write_onnx(model, path, analysis.traced.inputs)
        except LuthierError:
            return None
        return path.stat().st_size


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
