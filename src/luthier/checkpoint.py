"""Checkpoints of a training run: written whole or not at all, read without pickle, the same bits go on."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from luthier.errors import StoreError, UsageError
from luthier.files import whole
from luthier.model.contents import as_bytes, printed

_VERSION = 2

Curve = list[dict[str, float]]
OnEpoch = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Checkpoint:
    """A file that a training run is continued from.

    Args:
        path: where it is.
        key: what makes two runs the same one: see :func:`key_of`.
    """

    path: Path
    key: str

    def read(self) -> dict[str, Any] | None:
        """What was saved; None where nothing was.

        Raises:
            StoreError: the file is damaged.
            UsageError: it belongs to another run.
        """
        if not self.path.exists():
            return None
        try:
            found: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            version, key = found["version"], found["key"]
        except Exception as error:  # whatever a damaged file makes the reader say
            raise StoreError(
                f"the checkpoint {self.path} cannot be read",
                cause=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                fix="remove it to train from the beginning",
            ) from error
        if version != _VERSION or key != self.key:
            raise UsageError(
                f"the checkpoint {self.path} belongs to another run",
                expected="the same network, settings, losses, teachers and training data",
                got="a file of another version of Luthier" if version != _VERSION else "others",
                fix="another path, or remove the file",
            )
        return found

    def write(self, state: Mapping[str, Any]) -> None:
        """Replaces what was saved.

        Raises:
            OutputError: the file cannot be written.
        """
        with whole(self.path, full=(RuntimeError,)) as draft:
            torch.save({**state, "version": _VERSION, "key": self.key}, draft)


@dataclass
class Record:
    """What a run remembers of its epochs.

    Attributes:
        curve: an epoch's scores.
        best: the best value of the main metric, its sign turned where less is better.
        risen: the epoch of it, from 1.
        state: the weights of it, where they are to be kept.
    """

    curve: Curve = field(default_factory=list)
    best: float = -math.inf
    risen: int = 0
    state: dict[str, torch.Tensor] = field(default_factory=dict)


def key_of(model: torch.nn.Module, *parts: object) -> str:
    """What makes two runs the same: the network's names and shapes, and how it is trained."""
    shapes = [(name, tuple(p.shape)) for name, p in model.state_dict(keep_vars=True).items() if hasattr(p, "shape")]
    return hashlib.sha256(printed([shapes, *parts]).encode()).hexdigest()


def held_by(loader: Any) -> str:
    """What a loader's data are, where they lie in memory: a data set's tensors, or a list's batches; of others "".

    A data set that has to be read may draw or augment: it would be another one each time.
    """
    held = loader if isinstance(loader, list | tuple) else getattr(getattr(loader, "dataset", None), "tensors", ())
    total = hashlib.sha256()
    leaves = pytree.tree_leaves(held)
    for leaf in leaves:
        total.update(as_bytes(leaf))
    return total.hexdigest() if leaves else ""


def random_state() -> dict[str, Any]:
    """Every global random stream that training draws from: PyTorch's, NumPy's and Python's.

    CUDA's where it has been used: to look would start it, in every process.
    """
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Puts the global random streams back to a :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def seed_streams(seed: int) -> None:
    """Seeds every global random stream; CUDA's where it has been used."""
    if torch.cuda.is_initialized() or not torch.cuda.is_available():  # type: ignore[no-untyped-call]
        torch.manual_seed(seed)
    else:  # else CUDA would take the seed when it starts, and nobody would put it back
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global random streams inside and leaves them outside as they were."""
    before = random_state()
    try:
        seed_streams(seed)
        yield
    finally:
        set_random_state(before)
