"""Writing ONNX files: captured once, with a free batch size where the network allows one."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from luthier.errors import TraceError
from luthier.extras import need
from luthier.model.lengths import Positions
from luthier.model.trace import Inputs
from luthier.model.where import user_line
from luthier.task import device_of

_VIEWS = tuple(getattr(getattr(torch.ops.aten, n), k) for n, k in (
    ("view", "default"), ("reshape", "default"), ("flatten", "using_ints"), ("unflatten", "int"),
))  # fmt: skip


def write_onnx(module: nn.Module, path: Path, example: Any, lengths: Positions | None = None) -> bool:
    """Exports without the proof. The weights are inside the one file.

    Args:
        module: in evaluation mode.
        path: where to.
        example: inputs: a tensor, a tuple of arguments or a dict of keyword arguments; dimension 0 is the batch.
        lengths: further dimensions that the file may leave free: see :func:`luthier.model.lengths.positions`.

    Returns:
        whether the file takes any batch size; False where the network itself takes only the example's.

    Raises:
        TraceError: the model cannot be exported.
    """
    need("onnxscript", "onnx", "exporting to ONNX")
    path.parent.mkdir(parents=True, exist_ok=True)
    device = device_of(module)
    given = Inputs.of(example).map(lambda t: t.to(device))
    try:
        with _quiet():
            captured, free = _captured(module, given, lengths or {})
            _plain_reshapes(captured.graph)
            program = torch.onnx.export(
                captured,
                dynamo=True,
                verbose=False,
                input_names=input_names(given),
                output_names=_output_names(module, given),
                external_data=False,
            )
            if program is None:
                raise RuntimeError("the exporter gave nothing back")
            _without_traces(program.model)
            program.save(str(path), external_data=False)
    except OSError:
        raise
    except Exception as error:
        raise TraceError(
            f"{type(module).__name__} cannot be exported to ONNX",
            cause=_cause(error),
            fix="keep forward() free of data-dependent control flow, and of operations that ONNX does not have",
        ) from error
    return free


def _captured(module: nn.Module, given: Inputs, lengths: Positions) -> tuple[torch.export.ExportedProgram, bool]:
    """The network as PyTorch exports it, with a free batch size if it can be, else with the example's."""
    several = given.map(two_of)
    for free in (lengths, {}) if lengths else ({},):
        with contextlib.suppress(Exception):
            shapes = _shapes(module, several, free)
            return torch.export.export(module, several.args, several.kwargs, dynamic_shapes=shapes, strict=False), True
    return torch.export.export(module, given.args, given.kwargs, strict=False), False


def _shapes(module: nn.Module, given: Inputs, lengths: Positions) -> dict[str, Any]:
    """Dimension 0 of every input is one batch size, nested as ``forward`` takes its arguments."""
    batch, auto = torch.export.Dim("batch", min=1), torch.export.Dim.AUTO
    spec = given.with_leaves(
        [
            {0: batch, **dict.fromkeys(lengths.get(i, ()), auto)} if isinstance(t, Tensor) and t.dim() else None
            for i, t in enumerate(given.leaves)
        ]
    )
    return dict(inspect.signature(module.forward).bind(*spec.args, **spec.kwargs).arguments)


def _without_traces(model: Any) -> None:
    """Drops what the exporter notes of every node: file names and lines of the machine that wrote the file."""
    for graph in (model.graph, *(f.graph for f in model.functions.values())):
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()


def _plain_reshapes(graph: torch.fx.Graph) -> None:
    """Copies what is viewed; the copies are gone from the file.

    The exporter's rewriting changes strides, and a view that was possible may not be any more.
    """
    for node in list(graph.nodes):
        if node.target in _VIEWS:
            source = node.args[0]
            with graph.inserting_before(node):
                copied = graph.call_function(
                    torch.ops.aten.clone.default, (source,), {"memory_format": torch.contiguous_format}
                )
            copied.meta = dict(source.meta)
            node.update_arg(0, copied)


def input_names(given: Inputs) -> list[str]:
    """Names in the file: "input" for one tensor, else "input_0" and so on, or the keywords."""
    count = len(pytree.tree_leaves(given.args))
    if not given.kwargs:
        return [f"input_{i}" for i in range(count)] if count > 1 else ["input"]
    named = [
        name if len(pytree.tree_leaves(value)) == 1 else f"{name}_{i}"
        for name, value in given.kwargs.items()
        for i in range(len(pytree.tree_leaves(value)))
    ]
    return [*(f"input_{i}" for i in range(count)), *named]


def _output_names(module: nn.Module, given: Inputs) -> list[str] | None:
    """A dict's keys; None where the result is something else, or its values are not plain tensors."""
    with torch.no_grad():
        result = module(*given.args, **given.kwargs)
    named = isinstance(result, dict) and all(isinstance(v, Tensor) for v in result.values())
    return [str(key) for key in result] if named else None


def _cause(error: BaseException) -> str:
    """The innermost reason, and the line of the user's code that it names."""
    line = user_line(error)
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    frames = re.findall(r'File "([^"]+)", line (\d+)', text)
    mine = [f"{file}:{number}" for file, number in frames if "/torch/" not in file]
    where = mine[-1] if mine else line
    return f"{first.strip()} (at {where})" if where else first.strip()


def two_of(x: Tensor) -> Tensor:
    """A batch of at least two, since tracing takes a size of one for a constant."""
    return torch.cat([x, x]) if x.dim() and x.shape[0] == 1 else x


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the exporter says to its developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
