"""Export: files that load anywhere, each proven against the model it came from."""

from luthier.export.bundle import load, save
from luthier.export.onnx import export_onnx

__all__ = ["export_onnx", "load", "save"]
