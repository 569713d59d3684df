"""One operation at a time in ONNX Runtime: a file of a few equal nodes, timed on one thread.

In a network other layers' weights pass through the caches between two runs of a layer, so that small layers find theirs
gone; a file therefore holds as many copies of a layer, each with weights of its own, as fill the inner caches. The
clock is the thread's CPU time and the result the least of several samples, so that other processes hardly count.
"""

from __future__ import annotations

import math
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
            ("project", rows, inner, columns) for a linear layer over several positions,
            ("lstm" | "gru" | "rnn", steps, batch, features, units, directions), ("map" | "softmax" | "norm" |
            "skip norm" | "gelu" | "transpose", rows, columns).

    Returns:
        of one copy, with its share of what calling the runtime costs.
    """
    runtime = need("onnxruntime", "onnx", "timing operations")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model, copies = KINDS[spec[0]](*spec[1:])
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    draw = np.random.Generator(np.random.Philox(0))
    feed = {i.name: draw.standard_normal(i.shape).astype(np.float32) for i in session.get_inputs()}
    session.run(None, feed)
    repeats = max(1, round(_SAMPLE_SECONDS / max(_sample(session, feed, 1), 1e-7)))
    return 1e3 * min(_sample(session, feed, repeats) for _ in range(_SAMPLES)) / copies


def _sample(session: Any, feed: dict[str, Any], repeats: int) -> float:
    start = time.thread_time()
    for _ in range(repeats):
        session.run(None, feed)
    return (time.thread_time() - start) / repeats


_INNER_CACHES = 4 << 20  # bytes
_MOST_COPIES = 8
File = tuple[bytes, int]
"""An ONNX file, and how many copies of the operation it holds."""


def _model(kind: str, x: Sequence[int], y: Sequence[int], *weights: Sequence[int], **attributes: Any) -> File:
    """A file of equal nodes: input "x", random weights inside, one output each."""
    onnx = need("onnx", "onnx", "timing operations")
    draw = np.random.Generator(np.random.Philox(1))
    size = 4 * sum(math.prod(shape) for shape in weights)
    copies = min(max(_INNER_CACHES // size, 1), _MOST_COPIES) if size else 1
    domain, biased = attributes.pop("domain", ""), attributes.pop("biased", False)
    real, nodes, tensors = onnx.TensorProto.FLOAT, [], []
    for i in range(copies):
        names = [f"w{i}_{j}" for j in range(len(weights))]
        values = [(draw.standard_normal(w) / np.sqrt(w[-1])).astype(np.float32) for w in weights]
        tensors += [onnx.numpy_helper.from_array(v, n) for v, n in zip(values, names, strict=True)]
        if biased:
            nodes.append(onnx.helper.make_node(kind, ["x", *names[:-1]], [f"z{i}"], **attributes))
            nodes.append(onnx.helper.make_node("Add", [f"z{i}", names[-1]], [f"y{i}"]))
        else:
            nodes.append(onnx.helper.make_node(kind, ["x", *names], [f"y{i}"], domain=domain, **attributes))
    outputs = [onnx.helper.make_tensor_value_info(f"y{i}", real, list(y)) for i in range(copies)]
    given = onnx.helper.make_tensor_value_info("x", real, list(x))
    graph = onnx.helper.make_graph(nodes, "one", [given], outputs, tensors)
    known = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    made = onnx.helper.make_model(graph, opset_imports=known, ir_version=9)
    return made.SerializeToString(), copies


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
) -> File:
    n = len(kernel)
    spans = zip(image, kernel, strides, pads, dilations, strict=True)
    after = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in spans]
    weight = (outputs, inputs // groups, *kernel)
    shapes = (batch, inputs, *image), (batch, outputs, *after), weight, (outputs,)
    return _model("Conv", *shapes, group=groups, strides=strides, pads=[*pads, *pads][: 2 * n], dilations=dilations)


def _linear(rows: int, inner: int, columns: int) -> File:
    return _model("Gemm", (rows, inner), (rows, columns), (inner, columns), (columns,))


def _project(rows: int, inner: int, columns: int) -> File:
    shapes = (1, rows, inner), (1, rows, columns), (inner, columns), (columns,)
    return _model("MatMul", *shapes, biased=True)


def _matmul(batch: int, rows: int, inner: int, columns: int) -> File:
    return _model("MatMul", (batch, rows, inner), (batch, rows, columns), (batch, inner, columns))


def _recurrent(kind: str, gates: int) -> Callable[..., File]:
    def made(steps: int, batch: int, features: int, units: int, directions: int) -> File:
        weights = (directions, gates * units, features), (directions, gates * units, units)
        way = "bidirectional" if directions == 2 else "forward"
        y = (steps, directions, batch, units)
        return _model(kind, (steps, batch, features), y, *weights, hidden_size=units, direction=way)

    return made


def _map(rows: int, columns: int) -> File:
    return _model("Mul", (rows, columns), (rows, columns), (rows, columns))


def _softmax(rows: int, columns: int) -> File:
    return _model("Softmax", (rows, columns), (rows, columns), axis=-1)


def _norm(rows: int, columns: int) -> File:
    return _model("LayerNormalization", (rows, columns), (rows, columns), (columns,), (columns,))


def _skip_norm(rows: int, columns: int) -> File:
    """A sum and a norm, which the runtime does as one; its second operand stands for both what is added and weights."""
    shape = (1, rows, columns)
    return _model("SkipLayerNormalization", shape, shape, shape, (columns,), (columns,), domain="com.microsoft")


def _transpose(rows: int, columns: int) -> File:
    heads = max(columns // 64, 1)
    shape = rows, heads, columns // heads
    return _model("Transpose", shape, (heads, rows, columns // heads), perm=[1, 0, 2])


def _gelu(rows: int, columns: int) -> File:
    return _model("Gelu", (rows, columns), (rows, columns))


KINDS: dict[str, Callable[..., File]] = {
    "conv": _conv,
    "linear": _linear,
    "project": _project,
    "matmul": _matmul,
    "lstm": _recurrent("LSTM", 4),
    "gru": _recurrent("GRU", 3),
    "rnn": _recurrent("RNN", 1),
    "map": _map,
    "softmax": _softmax,
    "norm": _norm,
    "skip norm": _skip_norm,
    "transpose": _transpose,
    "gelu": _gelu,
}
"""How to build the file of each kind."""
