"""What layers cost on this machine and runtime, measured one by one and kept: from a plan to its latency.

A network's latency is predicted as the sum over its operations. Each is timed alone in ONNX Runtime at a few widths
(all, a half, a quarter, an eighth), and in between by interpolation of log time over log width. Element-wise work and
changes of order are timed per element. What the runtime fuses (batch norms, and activations behind a convolution)
costs nothing here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import fx

from luthier.errors import OutputError
from luthier.extras import need
from luthier.files import write_json
from luthier.measure.single import Spec, milliseconds
from luthier.model import Analysis, cost
from luthier.model.cost import KeepByName
from luthier.model.op import Op
from luthier.model.trace import op_name

_PER_ELEMENT = {
    "map": ("add", "add_", "sub", "mul", "mul_", "div", "cat", "sigmoid", "tanh", "silu", "silu_", "hardswish",
            "hardswish_", "pow", "mean", "stack", "adaptive_avg_pool2d", "avg_pool2d", "max_pool2d",
            "slice", "select", "split", "chunk"),
    "transpose": ("permute", "transpose", "movedim"),
    "softmax": ("softmax", "_softmax"),
    "norm": ("layer_norm", "group_norm", "instance_norm", "rms_norm"),
    "skip norm": (),
    "gelu": ("gelu",),
}  # fmt: skip
_ELEMENT_KIND = {name: kind for kind, names in _PER_ELEMENT.items() for name in names}
_GRID = (1.0, 0.5, 0.25, 0.125)
_ROWS, _COLUMNS = 256, 256  # at which element-wise work is timed


def folder() -> Path:
    """Where measurements are kept: ``LUTHIER_CACHE``, else the user's cache folder."""
    given = os.environ.get("LUTHIER_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luthier"


def machine() -> str:
    """What measurements are valid for: this processor and this version of ONNX Runtime."""
    runtime = need("onnxruntime", "onnx", "timing operations")
    name = _processor()
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"onnxruntime-{runtime.__version__}-{digest}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


@dataclass
class Table:
    """Measured times by operation and sizes; what is missing is measured when it is asked for.

    Args:
        path: the file in which they are kept; None to keep nothing.
        measure: what times one operation, in milliseconds.
        times: what is known, by the spec as JSON.

    Example:
        >>> table = Table(None, measure=lambda spec: math.prod(spec[1:]) / 1e6)
        >>> round(table(("linear", 10, 100, 200)), 3)
        0.2
    """

    path: Path | None
    measure: Callable[[Spec], float] = milliseconds
    times: dict[str, float] = field(default_factory=dict)

    @classmethod
    def here(cls) -> Table:
        """This machine's, from its file."""
        name = f"latency-2-{machine()}.json"
        try:
            return cls.at(folder() / name)
        except RuntimeError:  # this user has no home
            return cls(None)

    @classmethod
    def at(cls, path: Path) -> Table:
        """That of a file; empty where it is not there yet, or damaged."""
        try:
            return cls(path, times=_times(json.loads(path.read_text())))
        except (OSError, ValueError):
            return cls(path)

    def __call__(self, spec: Spec) -> float:
        """Milliseconds of an operation."""
        key = json.dumps(spec)
        if key not in self.times:
            self.times[key] = self.measure(spec)
        return self.times[key]

    def save(self) -> None:
        """Writes what is known, whole or not at all; where it cannot be written, that is a warning."""
        if self.path is None:
            return
        try:
            write_json(self.path, self.times, indent=None)
        except OutputError as error:
            warnings.warn(f"times cannot be kept, they will be measured again: {error}", stacklevel=2)


def _times(found: Any) -> dict[str, float]:
    """What a file holds.

    Raises:
        ValueError: it is no table of times.
    """
    if not isinstance(found, dict) or not all(type(v) in (int, float) and 0 <= v < math.inf for v in found.values()):
        raise ValueError("no table of times")
    return {name: float(value) for name, value in found.items()}


class Predictor:
    """The latency of any cut of a network, from a table.

    Args:
        analysis: of the network; its example inputs say the batch size.
        table: measured times.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from luthier.model import analyse
        >>> net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
        >>> flops = Table(None, measure=lambda spec: math.prod(spec[1:]) / 1e6)
        >>> latency = Predictor(analyse(net, torch.zeros(2, 64)), flops)
        >>> round(latency({"0": range(64)}) / latency(), 2)
        0.5
    """

    def __init__(self, analysis: Analysis, table: Table) -> None:
        self.analysis, self.table = analysis, table

    @cached_property
    def _whole(self) -> dict[fx.Node, list[Spec]]:
        return self._specs(None)

    def _specs(self, keep: KeepByName | None) -> dict[fx.Node, list[Spec]]:
        size = cost.Sizes(cost.keep_axes(self.analysis, keep))
        found = ((op.node, _specs(op, size, self.analysis.traced.batch)) for op, _ in self.analysis.operations)
        return {node: specs for node, specs in found if specs}

    def by_operation(self, keep: KeepByName | None = None) -> dict[fx.Node, float]:
        """Milliseconds of each operation that costs anything."""
        return {
            node: sum(self._time(whole, spec) for whole, spec in zip(self._whole[node], specs, strict=False))
            for node, specs in self._specs(keep).items()
        }

    def __call__(self, keep: KeepByName | None = None) -> float:
        """Milliseconds of the whole network, with what one call of the runtime costs."""
        return sum(self.by_operation(keep).values()) + self.table(("map", 1, 1))

    def _time(self, whole: Spec, spec: Spec) -> float:
        if spec == ("call",):
            return self.table(("map", 1, 1))
        if spec[0] in _PER_ELEMENT:
            return float(spec[1]) * self.table((spec[0], _ROWS, _COLUMNS)) / (_ROWS * _COLUMNS)
        places = _WIDTHS.get(_family(whole), ())
        return _between(self.table, whole, spec, places)


def _family(spec: Spec) -> str:
    return "depthwise" if spec[0] == "conv" and spec[4] > 1 else str(spec[0])


_WIDTHS: dict[str, tuple[tuple[int, ...], ...]] = {
    "conv": ((2,), (3,)),
    "depthwise": ((2, 3, 4),),
    "linear": ((2,), (3,)),
    "project": ((2,), (3,)),
    "matmul": ((1,), (3,), (4,)),
    "lstm": ((3,), (4,)),
    "gru": ((3,), (4,)),
    "rnn": ((3,), (4,)),
}
"""By family, the places of a spec that are widths; those of one tuple change together."""


def _between(table: Table, whole: Spec, spec: Spec, places: tuple[tuple[int, ...], ...]) -> float:
    """Log time, linear in the log of one width after the other between the measured widths."""
    if not places or (spec[0] == "conv" and spec[4] > 1 and spec[4] != spec[2]):
        return _alone(table, spec)
    first, rest = places[0], places[1:]
    lower, upper = _neighbours(whole[first[0]], spec[first[0]])
    low = _between(table, whole, _with(whole, spec, first, lower), rest)
    if lower == upper:
        return low
    high = _between(table, whole, _with(whole, spec, first, upper), rest)
    share = math.log(spec[first[0]] / lower) / math.log(upper / lower)
    return math.exp((1 - share) * math.log(low) + share * math.log(high))


def _alone(table: Table, spec: Spec) -> float:
    """The time of an operation without that of calling the runtime at all."""
    return max(table(spec) - table(("map", 1, 1)), 1e-4)


def _neighbours(whole: int, width: int) -> tuple[int, int]:
    """The measured widths around one: shares of the whole, at multiples of 8 where there are."""
    if width >= whole:
        return width, width
    grid = sorted(
        {max(1, round(whole * share / 8) * 8 if whole * share >= 8 else round(whole * share)) for share in _GRID}
    )
    grid[-1] = whole
    below = [g for g in grid if g <= width]
    above = [g for g in grid if g >= width]
    return (below[-1] if below else width), (above[0] if above else whole)


def _with(whole: Spec, spec: Spec, places: tuple[int, ...], width: int) -> Spec:
    out = list(spec)
    for place in places:
        out[place] = width if whole[place] == whole[places[0]] else whole[place] * width // whole[places[0]]
    return tuple(out)


def _specs(op: Op, size: cost.Sizes, doubled: int) -> list[Spec]:
    """What to time for an operation after a cut; nothing where it is free."""
    if op.name in _SPECS:
        return _SPECS[op.name](op, size, doubled)
    kind = _ELEMENT_KIND.get(op.name)
    if kind is None:
        return []
    if kind == "norm" and isinstance(op.arg(0), fx.Node) and op_name(op.arg(0)) in ("add", "add_"):
        kind = "skip norm"  # the runtime does both as one
    return [(kind, _elements(op, size) // doubled)] if _elements(op, size) // doubled > 64 else []


def _elements(op: Op, size: cost.Sizes) -> int:
    """How many numbers an operation gives; 0 where that is unknown."""
    result: Any = op.facts.dims.get(op.node)
    if not isinstance(result, list):
        return 0
    parts = result if all(isinstance(d, list) for d in result) else [result]
    if not all(hasattr(d, "expr") for part in parts for d in part):
        return 0
    return sum(math.prod(size(d) for d in part) for part in parts)


def _conv_spec(op: Op, size: cost.Sizes, doubled: int) -> list[Spec]:
    x, w = op.dims(op.arg(0)), op.dims(op.arg(1))
    result: Any = op.facts.dims[op.node]
    n = len(w) - 2
    batch = max(size(x[0]) // doubled, 1) if len(x) == len(w) else 1
    groups = op.facts.memo.get(op.node)
    numbers = [
        _listed(op.arg(i, name, d), n) for i, name, d in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    ]
    if "transpose" in op.name:
        numbers = [[1] * n, [0] * n, [1] * n]
    strides, pads, dilations = numbers
    kernel = [size(d) for d in w[2:]]
    pads = [
        d * (k - 1) // 2 if p == "same" else 0 if p == "valid" else p
        for p, k, d in zip(pads, kernel, dilations, strict=True)
    ]
    inputs, outputs = size(x[-n - 1]), size(result[-n - 1])
    made: Spec = (
        "conv",
        batch,
        inputs,
        outputs,
        size(groups) if groups else 1,
        [d.size for d in x[-n:]],
        kernel,
        strides,
        pads,
        dilations,
    )
    return [made]


def _listed(value: Any, n: int) -> list[Any]:
    listed = list(value) if isinstance(value, list | tuple) else [value]
    return listed * n if len(listed) == 1 else listed


def _linear_spec(op: Op, size: cost.Sizes, doubled: int) -> list[Spec]:
    x, w = op.dims(op.arg(0)), op.dims(op.arg(1))
    if len(w) != 2:
        return []
    rows = max(math.prod(size(d) for d in x[:-1]) // doubled, 1)
    kind = "linear" if len(x) == 2 else "project"
    return [(kind, rows, size(x[-1]), size(w[0] if op.name == "linear" else w[1]))]


def _addmm_spec(op: Op, size: cost.Sizes, doubled: int) -> list[Spec]:
    x, w = op.dims(op.arg(1)), op.dims(op.arg(2))
    return [("linear", max(size(x[0]) // doubled, 1), size(x[1]), size(w[1]))]


def _matmul_spec(op: Op, size: cost.Sizes, doubled: int) -> list[Spec]:
    x, y = op.dims(op.arg(0)), op.dims(op.arg(1))
    if len(y) < 3 or len(x) < 3:
        return _linear_spec(op, size, doubled) if len(y) == 2 else []
    result: Any = op.facts.dims[op.node]
    batch = max(math.prod(size(d) for d in result[:-2]) // doubled, 1)
    return [("matmul", batch, size(x[-2]), size(x[-1]), size(y[-1]))]


def _attention_spec(op: Op, size: cost.Sizes, doubled: int) -> list[Spec]:
    """Two products with a softmax between them, and the keys turned round."""
    q, k, v = (op.dims(op.arg(i)) for i in range(3))
    batch = max(math.prod(size(d) for d in q[:-2]) // doubled, 1)
    rows, keys = size(q[-2]), size(k[-2])
    products: list[Spec] = [("matmul", batch, rows, size(q[-1]), keys), ("matmul", batch, rows, keys, size(v[-1]))]
    return [*products, ("softmax", batch * rows * keys), ("transpose", batch * keys * size(k[-1]))]


def _recurrent_spec(op: Op, size: cost.Sizes, doubled: int) -> list[Spec]:
    """One for each layer; the further ones read what the ones before them give."""
    if not str(op.node.target).endswith(".input"):
        return []
    x, weights = op.dims(op.arg(0)), op.arg(2)
    steps = [size(d) for d in x[:-1]]
    batch, length = (steps[0], steps[-1]) if op.arg(8) else (steps[-1], steps[0])
    directions, kind = 2 if op.arg(7) else 1, {"lstm": "lstm", "gru": "gru"}.get(op.name, "rnn")
    each = len(weights) // op.arg(4)
    layers = [(op.dims(weights[i]), op.dims(weights[i + 1])) for i in range(0, len(weights), each)]
    found: list[Spec] = [
        (kind, length, max(batch // doubled, 1), size(w[1]), size(h[1]), directions) for w, h in layers
    ]
    return [*found, *[("call",)] * (_AROUND * op.arg(4))]


_AROUND = 12
"""How many small operations the exporter puts around each recurrent layer: initial states, slices, other orders."""

_SPECS: Mapping[str, Callable[[Op, cost.Sizes, int], list[Spec]]] = {
    **{f"conv{t}{n}d": _conv_spec for t in ("", "_transpose") for n in (1, 2, 3)},
    "linear": _linear_spec,
    "addmm": _addmm_spec,
    **dict.fromkeys(("matmul", "bmm", "mm"), _matmul_spec),
    "scaled_dot_product_attention": _attention_spec,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent_spec),
}
