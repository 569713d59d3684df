"""ONNX Runtime, on a fixed number of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from luthier.errors import UsageError
from luthier.extras import need

_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class Session:
    """An ONNX file, loaded to run on the CPU.

    Attributes:
        names: of the inputs.
        shapes: of the inputs; sizes that are free have names.
        main: the number of the output that is the network's result.

    Args:
        path: the file.
        threads: with 1, all the work is done by the calling thread, so that its CPU time is the model's.

    Raises:
        UsageError: the file is not there or is not ONNX.
        MissingExtra: ONNX Runtime is not installed.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        runtime = need("onnxruntime", "onnx", "running ONNX files")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not Path(path).is_file():
            raise UsageError(f"there is no file {str(path)!r}", expected="an ONNX file")
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            first = str(error).splitlines()[0]
            raise UsageError(f"{str(path)!r} is not an ONNX file that can run", cause=first) from error
        self.names = [i.name for i in self._session.get_inputs()]
        self.shapes: list[list[int | str]] = [list(i.shape) for i in self._session.get_inputs()]
        self._types = {i.name: _FLOATS.get(i.type) for i in self._session.get_inputs()}
        outputs = [o.name for o in self._session.get_outputs()]
        self.main = outputs.index("logits") if "logits" in outputs else 0

    def feed(self, *inputs: Tensor | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The inputs by name, as arrays; real numbers in the file's precision."""
        return {n: self._array(n, x) for n, x in zip(self.names, inputs, strict=True)}

    def _array(self, name: str, x: Tensor | NDArray[Any]) -> NDArray[Any]:
        array = np.ascontiguousarray(x)
        wanted = self._types[name]
        return array.astype(wanted) if wanted is not None and array.dtype.kind == "f" else array

    def run(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs for inputs by name."""
        outputs: list[NDArray[Any]] = self._session.run(None, feed)
        return outputs

    def __call__(self, *inputs: Tensor | NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs for inputs in order."""
        return self.run(self.feed(*inputs))
