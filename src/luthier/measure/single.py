"""One operation at a time in ONNX Runtime: a file of a single node, timed on one thread.

The clock is the thread's CPU time and the result the least of several samples, so that other processes hardly count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from luthier.extras import need

Spec = tuple[Any, ...]
"""What is timed: a kind, then its sizes. See :data:`KINDS`."""

_SAMPLE_SECONDS = 2e-3
_SAMPLES = 5


def milliseconds(spec: Spec) -> float:
    """The time of one operation, in milliseconds of one thread.

    Args:
        spec: ("conv", batch, channels in, channels out, groups, sizes of the image, of the kernel, strides, pads,
            dilations), ("matmul", batch, rows, inner, columns), ("linear", rows, inner, columns),
            ("lstm" | "gru" | "rnn", steps, batch, features, units, directions), ("map" | "softmax" | "norm" |
            "gelu", rows, columns).
    """
    runtime = need("onnxruntime", "onnx", "timing operations")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = KINDS[spec[0]](*spec[1:])
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    draw = np.random.Generator(np.random.Philox(0))
    feed = {i.name: draw.standard_normal(i.shape).astype(np.float32) for i in session.get_inputs()}
    session.run(None, feed)
    repeats = max(1, round(_SAMPLE_SECONDS / max(_sample(session, feed, 1), 1e-7)))
    return 1e3 * min(_sample(session, feed, repeats) for _ in range(_SAMPLES))


def _sample(session: Any, feed: dict[str, Any], repeats: int) -> float:
    start = time.thread_time()
    for _ in range(repeats):
        session.run(None, feed)
    return (time.thread_time() - start) / repeats


def _model(kind: str, x: Sequence[int], y: Sequence[int], *weights: Sequence[int], **attributes: Any) -> bytes:
    """A file with one node: input "x", random weights inside, output "y"."""
    onnx = need("onnx", "onnx", "timing operations")
    draw = np.random.Generator(np.random.Philox(1))
    names = [f"w{i}" for i in range(len(weights))]
    tensors = [
        onnx.numpy_helper.from_array((draw.standard_normal(s) / np.sqrt(s[-1])).astype(np.float32), n)
        for s, n in zip(weights, names, strict=True)
    ]
    kind_of = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, ["x", *names], ["y"], **attributes)],
        "one",
        [onnx.helper.make_tensor_value_info("x", kind_of, list(x))],
        [onnx.helper.make_tensor_value_info("y", kind_of, list(y))],
        tensors,
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    serialised: bytes = made.SerializeToString()
    return serialised


def _conv(
    batch: int,
    inputs: int,
    outputs: int,
    groups: int,
    image: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> bytes:
    n = len(kernel)
    spans = zip(image, kernel, strides, pads, dilations, strict=True)
    after = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in spans]
    weight = (outputs, inputs // groups, *kernel)
    shapes = (batch, inputs, *image), (batch, outputs, *after), weight, (outputs,)
    return _model("Conv", *shapes, group=groups, strides=strides, pads=[*pads, *pads][: 2 * n], dilations=dilations)


def _linear(rows: int, inner: int, columns: int) -> bytes:
    return _model("Gemm", (rows, inner), (rows, columns), (inner, columns), (columns,))


def _matmul(batch: int, rows: int, inner: int, columns: int) -> bytes:
    return _model("MatMul", (batch, rows, inner), (batch, rows, columns), (batch, inner, columns))


def _recurrent(kind: str, gates: int) -> Callable[..., bytes]:
    def made(steps: int, batch: int, features: int, units: int, directions: int) -> bytes:
        weights = (directions, gates * units, features), (directions, gates * units, units)
        way = "bidirectional" if directions == 2 else "forward"
        y = (steps, directions, batch, units)
        return _model(kind, (steps, batch, features), y, *weights, hidden_size=units, direction=way)

    return made


def _map(rows: int, columns: int) -> bytes:
    return _model("Mul", (rows, columns), (rows, columns), (rows, columns))


def _softmax(rows: int, columns: int) -> bytes:
    return _model("Softmax", (rows, columns), (rows, columns), axis=-1)


def _norm(rows: int, columns: int) -> bytes:
    return _model("LayerNormalization", (rows, columns), (rows, columns), (columns,), (columns,))


def _gelu(rows: int, columns: int) -> bytes:
    return _model("Gelu", (rows, columns), (rows, columns))


KINDS: dict[str, Callable[..., bytes]] = {
    "conv": _conv,
    "linear": _linear,
    "matmul": _matmul,
    "lstm": _recurrent("LSTM", 4),
    "gru": _recurrent("GRU", 3),
    "rnn": _recurrent("RNN", 1),
    "map": _map,
    "softmax": _softmax,
    "norm": _norm,
    "gelu": _gelu,
}
"""How to build the file of each kind."""
