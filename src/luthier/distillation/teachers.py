"""One teacher or several, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from luthier.batch import Batch, dtype_of, outputs_of
from luthier.errors import UsageError
from luthier.model.keras import network_of


def as_several(teacher: Any) -> tuple[nn.Module, ...]:
    """The teachers' networks; each may come as a result with ``.model``.

    Raises:
        UsageError: none, or something that is no network.
    """
    given = list(teacher) if isinstance(teacher, list | tuple) else [teacher]
    networks = tuple(map(network_of, given))
    if not networks or not all(isinstance(t, nn.Module) for t in networks):
        raise UsageError(
            "distillation needs two torch modules",
            expected="distill(student, teacher, task, ...), or a list of teachers",
            got=", ".join(type(t).__name__ for t in networks) or "no teacher",
        )
    return networks


def read_shares(shares: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """How much each teacher counts, adding up to 1.

    Example:
        >>> read_shares([3, 1], 2)
        (0.75, 0.25)

    Raises:
        UsageError: another number of them, or weights that cannot be.
    """
    if shares is None:
        return (1 / count,) * count
    fine = len(shares) == count and all(isinstance(s, int | float) and 0 <= s < float("inf") for s in shares)
    if not fine or sum(shares) <= 0:
        raise UsageError("the teachers' weights do not fit", expected=f"{count} numbers >= 0", got=list(shares))
    return tuple(s / sum(shares) for s in shares)


def teach(teacher: nn.Module, batch: Batch) -> Tensor:
    """A teacher's outputs for a batch, without gradient; inputs in the teacher's precision."""
    with torch.no_grad():
        return outputs_of(batch.floating(dtype_of(teacher)).run(teacher))
