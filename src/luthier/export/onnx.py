"""ONNX export, and the proof that ONNX Runtime computes what PyTorch does."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from luthier.errors import CheckError, OutputError, TraceError, UsageError
from luthier.extras import need
from luthier.measure.runtime import Session
from luthier.model.trace import evaluating
from luthier.task import device_of

TOLERANCE = 1e-4  # relative to the largest output; float32 sums in another order differ by about 1e-6


@dataclass(frozen=True)
class OnnxCheck:
    """The proof of an export.

    Attributes:
        path: the file.
        bytes: its size.
        error: largest |ONNX Runtime - PyTorch| over all batches / largest |PyTorch|.
        limit: what is allowed.
        batch_sizes: the batch sizes tried.
    """

    path: Path
    bytes: int
    error: float
    limit: float
    batch_sizes: tuple[int, ...]

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.batch_sizes))
        return f"ONNX Runtime == torch: relative error {self.error:.1e} (limit {self.limit:.0e}), batch sizes {sizes}"


def export_onnx(model: Any, path: str | Path, inputs: Tensor | Sequence[Tensor], batches: int = 4) -> OnnxCheck:
    """Writes an ONNX file with a free batch size, then proves that ONNX Runtime == PyTorch on several batches.

    Args:
        model: a torch module, or a result with ``.model``.
        path: where to write; written whole or not at all.
        inputs: one batch of example inputs; dimension 0 is the batch.
        batches: how many batches to compare, of as many sizes (1, the example's, larger ones).

    Returns:
        the proof: largest error, batch sizes, file size.

    Raises:
        TraceError: the model cannot be exported.
        CheckError: ONNX Runtime computes something else; the file is removed.
        OutputError: the file cannot be written.
    """
    module = getattr(model, "model", model)
    if not isinstance(module, nn.Module):
        raise UsageError("only models can be exported", expected="a torch.nn.Module", got=type(model).__name__)
    example = read_inputs(inputs)
    target = _writable(Path(path))
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with evaluating(module):
            write_onnx(module, draft, example)
            error, sizes = compare(module, draft, example, batches)
        if not error <= TOLERANCE:
            raise CheckError(
                "the ONNX file does not compute what the model computes",
                expected=f"relative error <= {TOLERANCE:.0e}",
                got=f"{error:.1e} over batches of {', '.join(map(str, sizes))}",
                cause="an operator that the exporter translates differently, or a model that is not deterministic",
            )
        os.replace(draft, target)
    except OSError as failure:
        raise OutputError(f"{target} cannot be written", cause=failure) from failure
    finally:
        draft.unlink(missing_ok=True)
    return OnnxCheck(target, target.stat().st_size, error, TOLERANCE, sizes)


def read_inputs(inputs: Any) -> tuple[Tensor, ...]:
    """Example inputs as a tuple of tensors.

    Raises:
        UsageError: anything else.
    """
    example = (inputs,) if isinstance(inputs, Tensor) else inputs
    if not isinstance(example, tuple | list) or not example or not all(isinstance(x, Tensor) for x in example):
        raise UsageError(
            "the example inputs are no batch", expected="a tensor, or a tuple of tensors", got=type(inputs).__name__
        )
    return tuple(example)


def _writable(target: Path) -> Path:
    if target.is_dir():
        raise UsageError(f"{str(target)!r} is a folder", expected="the name of a file", fix=str(target / "model.onnx"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be written", cause=error) from error
    return target


def write_onnx(module: nn.Module, path: Path, example: tuple[Tensor, ...]) -> None:
    """Exports without the proof. The weights are inside the one file.

    Raises:
        TraceError: the model cannot be exported.
    """
    need("onnxscript", "onnx", "exporting to ONNX")
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"input_{i}" for i in range(len(example))] if len(example) > 1 else ["input"]
    device = device_of(module)
    traced = tuple(two_of(x).to(device) for x in example)
    shapes = _as_called(module, [{0: torch.export.Dim("batch", min=1)} for _ in example])
    try:
        with _quiet():
            outputs = _output_names(module, traced)
            program = torch.onnx.export(
                module,
                traced,
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=outputs,
                dynamic_shapes=shapes,
                external_data=False,
            )
            if program is None:
                raise RuntimeError("the exporter gave nothing back")
            program.save(str(path), external_data=False)
    except OSError:
        raise
    except Exception as error:
        raise TraceError(
            f"{type(module).__name__} cannot be exported to ONNX",
            cause=_first_line(error),
            fix="keep forward() free of data-dependent control flow and of a fixed batch size",
        ) from error


def _output_names(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[str] | None:
    """A dict's keys; None where the result is something else, or its values are not plain tensors."""
    with torch.no_grad():
        result = module(*inputs)
    named = isinstance(result, dict) and all(isinstance(v, Tensor) for v in result.values())
    return [str(key) for key in result] if named else None


def _first_line(error: Exception) -> str:
    """The first line of a message, without a terminal's colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()
    return next((line for line in lines if line.strip()), type(error).__name__)


def _as_called(module: nn.Module, per_input: list[Any]) -> tuple[Any, ...]:
    """What belongs to each input, nested as ``forward`` takes them: those that fall to ``*args`` in a tuple."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(per_input)
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*per_input[:first], tuple(per_input[first:]))


def two_of(x: Tensor) -> Tensor:
    """A batch of at least two, since tracing takes a size of one for a constant."""
    return x if x.shape[0] > 1 else torch.cat([x, x])


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


def compare(
    module: nn.Module, path: Path, example: tuple[Tensor, ...], batches: int = 4
) -> tuple[float, tuple[int, ...]]:
    """Largest relative difference between a module and an ONNX file over batches of several sizes.

    Returns:
        (max |ONNX - torch| / max |torch|, the batch sizes).
    """
    session = Session(path)
    size = example[0].shape[0]
    sizes = tuple(dict.fromkeys([1, size, size + 1, 2 * size + 1, *range(2, 2 + batches)]))[:batches]
    worst = 0.0
    for i, n in enumerate(sizes):
        batch = tuple(_resized(x, n, seed=i) for x in example)
        with torch.no_grad():
            result = module(*(x.to(device_of(module)) for x in batch))
        wanted = [x.cpu() for x in pytree.tree_leaves(result) if isinstance(x, Tensor)]
        worst = max(worst, *(_difference(torch.from_numpy(g), w) for g, w in zip(session(*batch), wanted, strict=True)))
    return worst, sizes


def _resized(x: Tensor, n: int, seed: int) -> Tensor:
    """n rows like those of x: rows drawn from x, and for real numbers some noise, so that no batch is the example."""
    generator = torch.Generator().manual_seed(seed)
    rows = x.cpu()[torch.randint(len(x), (n,), generator=generator)]
    if not rows.is_floating_point():
        return rows
    return rows + rows.std(correction=0) * 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)


def _difference(got: Tensor, wanted: Tensor) -> float:
    if got.shape != wanted.shape:
        return float("inf")
    scale = float(wanted.abs().max()) if wanted.numel() else 1.0
    gap = float((got.double() - wanted.double()).abs().max()) if wanted.numel() else 0.0
    return gap / max(scale, 1e-12) if gap == gap else float("inf")
