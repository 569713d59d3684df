"""ONNX export, and the proof that ONNX Runtime computes what PyTorch does."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from luthier.errors import CheckError, UsageError
from luthier.files import whole
from luthier.measure.onnx_file import write_onnx
from luthier.measure.runtime import Session
from luthier.model.compare import difference, flat
from luthier.model.evaluating import evaluating
from luthier.model.keras import network_of
from luthier.model.lengths import Probe, accepted, positions
from luthier.model.program import Length
from luthier.model.trace import Inputs
from luthier.task import device_of

TOLERANCE = 1e-4
"""Relative to the largest output; float32 sums in another order differ by about 1e-6."""
NOISY = 8.0
"""A network that single precision itself changes by more than the tolerance may differ by this many times that."""
MOST_NOISE = 0.1
"""But never by more than this."""


@dataclass(frozen=True)
class OnnxCheck:
    """The proof of an export.

    Attributes:
        path: the file.
        bytes: its size.
        error: largest |ONNX Runtime - PyTorch| over all batches / largest |PyTorch|.
        limit: what is allowed: 1e-4, or more where the network's own outputs in float32 and in float64 differ so much.
        batch_sizes: the batch sizes tried.
        free: whether the file takes any batch size; False where the network itself takes only the example's.
        lengths: dimensions of the inputs that may have other sizes too, and at which sizes that was tried.
    """

    path: Path
    bytes: int
    error: float
    limit: float
    batch_sizes: tuple[int, ...]
    free: bool = True
    lengths: tuple[Length, ...] = ()

    def __str__(self) -> str:
        sizes = ", ".join(map(str, dict.fromkeys(self.batch_sizes)))
        tried = f"batch sizes {sizes}" if self.free else f"{len(self.batch_sizes)} batches of {sizes}, the only size"
        others = "".join(f"; dimension {x.dim} of input {x.leaf}: {x}" for x in self.lengths)
        return f"ONNX Runtime == torch: relative error {self.error:.1e} (limit {self.limit:.0e}), {tried}{others}"


def export_onnx(model: Any, path: str | Path, inputs: Any, batches: int = 4) -> OnnxCheck:
    """Writes an ONNX file with a free batch size, then proves that ONNX Runtime == PyTorch on several batches.

    Args:
        model: a torch module, or a result with ``.model``.
        path: where to write; written whole or not at all.
        inputs: one batch of example inputs: a tensor, a tuple of arguments or a dict of keyword arguments;
            dimension 0 is the batch.
        batches: how many batches to compare, of as many sizes (1, the example's, larger ones); all of the example's
            size where the network takes no other.

    Returns:
        the proof: largest error, batch sizes, file size.

    Raises:
        TraceError: the model cannot be exported.
        CheckError: ONNX Runtime computes something else; the file is removed.
        OutputError: the file cannot be written.
    """
    module = network_of(model)
    if not isinstance(module, nn.Module):
        raise UsageError("only models can be exported", expected="a torch.nn.Module", got=type(model).__name__)
    example = Inputs.of(inputs)
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{str(target)!r} is a folder", expected="the name of a file", fix=str(target / "model.onnx"))
    with whole(target) as draft, evaluating(module):
        free, lengths = _written(module, draft, example)
        error, sizes = compare(module, draft, example, batches, free)
        limit = TOLERANCE if error <= TOLERANCE else _limit(module, example, sizes)
        if not error <= limit:
            raise CheckError(
                "the ONNX file does not compute what the model computes",
                expected=f"relative error <= {limit:.0e}",
                got=f"{error:.1e} over batches of {', '.join(map(str, sizes))}",
                cause="an operator that the exporter translates differently, or a model that is not deterministic",
            )
    return OnnxCheck(target, target.stat().st_size, error, limit, sizes, free, lengths)


def _written(module: nn.Module, path: Path, example: Inputs) -> tuple[bool, tuple[Length, ...]]:
    """Writes the file with free lengths of sequences where it then follows the network at others, else without."""
    where = accepted(module, example, positions(example.leaves))
    if where:
        free = write_onnx(module, path, example, where)
        lengths = _lengths(module, path, example)
        if lengths is not None:
            return free, lengths
    return write_onnx(module, path, example), ()


def _lengths(module: nn.Module, path: Path, example: Inputs) -> tuple[Length, ...] | None:
    """The lengths that a file leaves free; None if it computes something else at other ones."""
    session = Session(path)
    tensors = [i for i, leaf in enumerate(example.leaves) if isinstance(leaf, Tensor)]
    groups: dict[str, list[tuple[int, int]]] = {}
    for leaf, shape in zip(tensors, session.shapes, strict=True):
        for dim, size in enumerate(shape):
            if dim and isinstance(size, str):
                groups.setdefault(size, []).append((leaf, dim))

    def file(*args: Any, **kwargs: Any) -> list[Tensor]:
        return [torch.from_numpy(y) for y in session(*_tensors(Inputs(args, kwargs)))]

    probe, found = Probe.of(module, file, example.map(lambda t: t.cpu())), list[Length]()
    for places in groups.values():
        leaf, dim = places[0]
        found += probe.lengths(tuple(places), example.leaves[leaf].shape[dim])
    return None if any(x.fixed for x in found) else tuple(found)


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


def compare(
    module: nn.Module, path: Path, example: Inputs, batches: int = 4, free: bool = True
) -> tuple[float, tuple[int, ...]]:
    """Largest relative difference between a module and an ONNX file over several batches.

    Args:
        module: in evaluation mode.
        path: the file.
        example: inputs of one batch.
        batches: how many.
        free: whether other batch sizes than the example's may come.

    Returns:
        (max |ONNX - torch| / max |torch|, the batch sizes).
    """
    session = Session(path)
    size = next(len(t) for t in _tensors(example) if t.dim())
    sizes = [size] * batches
    if free:
        sizes = list(dict.fromkeys([1, size, size + 1, 2 * size + 1, *range(2, 2 + batches)]))[:batches]
    worst = 0.0
    for i, n in enumerate(sizes):
        batch = _batch(example, n, i)
        got = [torch.from_numpy(g) for g in session(*_tensors(batch))]
        worst = max(worst, difference(got, _outputs(module, batch)))
    return worst, tuple(sizes)


def _limit(module: nn.Module, example: Inputs, sizes: Sequence[int]) -> float:
    """What a file may differ by: a network whose outputs hang on the last bits has no exact ones in float32."""
    wide, noise = copy.deepcopy(module).double(), 0.0
    try:
        for i, n in enumerate(sizes):
            batch = _batch(example, n, i)
            exact = _outputs(wide, batch.map(lambda t: t.double() if t.is_floating_point() else t))
            noise = max(noise, difference(_outputs(module, batch), exact))
    except RuntimeError:  # a network with a type written into it does not run in double precision
        return TOLERANCE
    return min(max(TOLERANCE, NOISY * noise), MOST_NOISE)


def _outputs(module: nn.Module, batch: Inputs) -> list[Tensor]:
    moved = batch.map(lambda x: x.to(device_of(module)))
    with torch.no_grad():
        result = module(*moved.args, **moved.kwargs)
    return [x.cpu() for x in flat(result) if isinstance(x, Tensor)]


def _batch(example: Inputs, n: int, seed: int) -> Inputs:
    return example.map(lambda x: _resized(x, n, seed))


def _tensors(inputs: Inputs) -> list[Tensor]:
    return [t for t in pytree.tree_leaves((inputs.args, inputs.kwargs)) if isinstance(t, Tensor)]


def _resized(x: Tensor, n: int, seed: int) -> Tensor:
    """n rows like those of x: rows drawn from x, and for real numbers some noise, so that no batch is the example."""
    if not x.dim():
        return x.cpu()
    generator = torch.Generator().manual_seed(seed)
    rows = x.cpu()[torch.randint(len(x), (n,), generator=generator)]
    if not rows.is_floating_point():
        return rows
    return rows + rows.std(correction=0) * 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
