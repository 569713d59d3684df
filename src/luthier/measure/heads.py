"""Heads: whether a model ends in a softmax or a sigmoid, so that its outputs are probabilities and not logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_CHANCES = ("softmax", "_softmax", "sigmoid", "sigmoid_", "special_expit")
_COPIES = ("clone", "contiguous", "reshape", "flatten", "to", "_to_copy", "clamp", "clamp_min", "clamp_max", "clip")
"""What leaves probabilities what they are: copies, and limits that keep them off 0 and 1."""
_FORMS = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "Clip")
"""ONNX nodes that change how numbers lie, or keep them off 0 and 1, not what they are."""
_ACTIVE = ("Dense", "EinsumDense", "Activation", *(f"Conv{d}D{t}" for d in (1, 2, 3) for t in ("", "Transpose")))
"""Keras layers whose activation is the last that they do."""


class Watch:
    """Looks on while a torch module runs for the first time.

    Attributes:
        probabilities: whether the outputs were what a softmax or a sigmoid gave, or a view or copy of it.
    """

    def __init__(self) -> None:
        self.probabilities: bool | None = None

    @contextmanager
    def looking(self) -> Iterator[list[Tensor]]:
        """Runs the body under watch if it is the first; it appends its outputs to the list."""
        outputs: list[Tensor] = []
        if self.probabilities is not None:
            yield outputs
            return
        with _Seen() as seen:
            yield outputs
        self.probabilities = bool(outputs) and seen.gave(outputs[0])


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the latest result of a softmax or sigmoid and its copies: nothing else can take their places in memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "overloadpacket", func).__name__
        if name in _CHANCES:
            self.held = [result]
        elif name in _COPIES and self.gave(args[0]):
            self.held.append(result)
        return result

    def gave(self, outputs: Tensor) -> bool:
        """Whether these are the same numbers in memory."""
        size = outputs.numel()
        return size > 0 and any(x.numel() == size and x.data_ptr() == outputs.data_ptr() for x in self.held)


def keras_gives_probabilities(model: Any) -> bool:
    """Whether a Keras model's configuration says that its last layer ends in softmax or sigmoid."""
    last = model
    while (inner := _inside(last)) is not None:
        last = inner
    name = type(last).__name__
    active = getattr(getattr(last, "activation", None), "__name__", None) if name in _ACTIVE else name.lower()
    return active in ("softmax", "sigmoid")


def _inside(layer: Any) -> Any:
    """The last layer of a model, the layer that a wrapper applies everywhere; None for a plain layer."""
    if type(layer).__name__ == "TimeDistributed":
        return layer.layer
    outputs = getattr(layer, "outputs", None) or []
    if len(outputs) == 1 and hasattr(layer, "layers"):
        return outputs[0]._keras_history.operation
    return None


def onnx_gives_probabilities(path: Path, output: int) -> bool:
    """Whether an output of an ONNX file comes from a Softmax or Sigmoid node; False where ONNX is not installed."""
    if find_spec("onnx") is None:
        return False
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(graph.output[output].name)
    while node is not None and node.op_type in _FORMS:
        node = makers.get(node.input[0])
    return node is not None and node.op_type in ("Softmax", "Sigmoid")
