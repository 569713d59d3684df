"""Teachers' outputs on disk: in full, or the likeliest classes and the rest. No pickle; a file is whole or absent."""

from __future__ import annotations

import hashlib
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luthier.errors import OutputError, UsageError
from luthier.extras import need
from luthier.files import whole
from luthier.model.contents import as_bytes

_INDEX = 4  # bytes of a stored class (int32)


@dataclass(frozen=True)
class Cache:
    """A folder of teachers' outputs.

    A file is found by the teacher's weights and the data; one of another teacher or of other data is never used, one
    that is damaged is made anew.

    Args:
        folder: where the files lie; made where it is not there.
        top_k: how many classes of each example are stored, with the log of the summed exponentials of all others, which
            then share what is left: at temperature 1 the probabilities of the stored classes are exact. None: all.

    Raises:
        UsageError: no whole number.

    Example:
        >>> Cache("teacher", top_k=5).bytes(60_000, (1000,))
        2640000
        >>> Cache("teacher").bytes(60_000, (1000,))
        240000000
    """

    folder: str | Path
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None and (type(self.top_k) is not int or self.top_k < 1):
            raise UsageError("'top_k' is out of range", expected="a whole number >= 1, or None", got=repr(self.top_k))

    def bytes(self, count: int, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
        """What a file will hold, without its header of about a kilobyte.

        Args:
            count: examples.
            shape: of one example's outputs, the classes first.
            dtype: of the outputs.
        """
        classes, places = shape[0], count * math.prod(shape[1:])
        if self.top_k is None or self.top_k >= classes:
            return places * classes * dtype.itemsize
        return places * (self.top_k * (dtype.itemsize + _INDEX) + dtype.itemsize)


@dataclass(frozen=True)
class Answers:
    """A teacher's outputs over a data set, as they are stored.

    Attributes:
        parts: (outputs,) of shape (n, ...), or (values, classes, rest) of shapes (n, ..., k), (n, ..., k), (n, ...).
        classes: how many there are, where only some are stored.
        class_dim: which dimension of the outputs holds them.
    """

    parts: tuple[Tensor, ...]
    classes: int = 0
    class_dim: int = 1

    def dense(self, parts: Sequence[Tensor]) -> Tensor:
        """Outputs for some of the examples, from the same rows of the parts."""
        if len(parts) == 1:
            return parts[0]
        values, index, rest = parts
        share = rest - math.log(self.classes - values.shape[-1])
        filled = share[..., None].expand(*share.shape, self.classes).clone()
        return filled.scatter(-1, index.long(), values).movedim(-1, self.class_dim)


def shortened(outputs: Tensor, top_k: int | None, class_dim: int = 1) -> Answers:
    """The likeliest classes of each example and the log of the summed exponentials of the others.

    Example:
        >>> kept = shortened(torch.tensor([[3.0, 1.0, 1.0]]), top_k=1)
        >>> kept.dense(kept.parts)
        tensor([[3., 1., 1.]])
    """
    classes = outputs.shape[class_dim]
    if top_k is None or top_k >= classes:
        return Answers((outputs,))
    ordered, index = outputs.movedim(class_dim, -1).sort(dim=-1, descending=True)
    rest = ordered[..., top_k:].logsumexp(-1)
    return Answers((ordered[..., :top_k].contiguous(), index[..., :top_k].int().contiguous(), rest), classes, class_dim)


def digest(*parts: Any) -> str:
    """64 letters that stand for texts, tensors and what else a state holds."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            total.update(f"{part.dtype}{tuple(part.shape)}".encode())
        total.update(as_bytes(part))
    return total.hexdigest()


def key_of(teacher: nn.Module, data: Sequence[Tensor], cache: Cache, class_dim: int) -> str:
    """What outputs depend on: the teacher's structure and weights, the inputs, and how much is stored."""
    state = [x for name, value in teacher.state_dict().items() for x in (name, value)]
    return digest(str(teacher), *state, f"{cache.top_k} {class_dim}", *data)


def stored(
    cache: Cache, key: str, count: int, first: Tensor, compute: Callable[[], Tensor], class_dim: int = 1
) -> Answers:
    """A teacher's outputs from the cache; computed and stored where they are not in it.

    Args:
        cache: where.
        key: what they depend on.
        count: how many examples there are.
        first: the teacher's outputs for the first examples: those in the file must be these.
        compute: gives all outputs.
        class_dim: the dimension of the outputs that holds the classes.

    Raises:
        OutputError: not enough room, or no folder.
    """
    path = Path(cache.folder) / f"{key[:24]}.safetensors"
    sample = shortened(first, cache.top_k, class_dim)
    found = _read(path, key, sample, count) if path.exists() else None
    if found is not None:
        return found
    _check_room(path, cache.bytes(count, first.movedim(class_dim, 1).shape[1:], first.dtype))
    answers = shortened(compute(), cache.top_k, class_dim)
    _write(path, key, answers)
    return answers


def _check_room(path: Path, size: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise OutputError(
            f"{path.parent} cannot hold the teacher's outputs",
            expected="a folder that can be written to",
            got=f"{type(error).__name__}: {error.strerror}",
        ) from error
    if size > free:
        raise OutputError(
            "the teacher's outputs do not fit on the disk",
            expected=f"{size:,} bytes free at {path.parent}",
            got=f"{free:,}",
            fix="Cache(folder, top_k=...), or no cache",
        )


def _write(path: Path, key: str, answers: Answers) -> None:
    save = need("safetensors.torch", "torch", "storing a teacher's outputs").save_file
    full = need("safetensors", "torch", "storing a teacher's outputs").SafetensorError
    tensors = {str(i): part.contiguous() for i, part in enumerate(answers.parts)}
    about = {"key": key, "sum": digest(*answers.parts), "classes": str(answers.classes), "dim": str(answers.class_dim)}
    with whole(path, full=(full,)) as draft:
        save(tensors, draft, metadata=about)


def _read(path: Path, key: str, sample: Answers, count: int) -> Answers | None:
    """The file's outputs; None, with a warning, where they are not what they should be."""
    reader = need("safetensors", "torch", "reading a teacher's outputs")
    try:
        with reader.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            parts = tuple(file.get_tensor(name) for name in sorted(file.keys()))
    except Exception as error:  # whatever a damaged file makes the reader say
        _warn(path, f"{type(error).__name__}: {error}")
        return None
    if about.get("key") != key or about.get("sum") != digest(*parts):
        _warn(path, "its contents are not those that were written")
        return None
    rows = len(sample.parts[0])
    if len(parts[0]) != count or not torch.allclose(parts[0][:rows], sample.parts[0], rtol=1e-3, atol=1e-3):
        _warn(path, "the teacher now gives other outputs for the first examples")
        return None
    return Answers(parts, int(about["classes"]), int(about["dim"]))


def _warn(path: Path, why: str) -> None:
    warnings.warn(f"the stored outputs in {path} are made anew: {why}", stacklevel=3)
