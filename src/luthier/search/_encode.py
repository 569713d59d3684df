"""Points of a space as rows of numbers: snapped to the values there are, inactive dimensions blanked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.pareto import Array
from luthier.space import Choice, Int, Parameter, Params, Space

_LISTABLE = 2_000
_TOP = 1.0 - 2.0**-53


@dataclass(frozen=True)
class Dimension:
    """One parameter as a column.

    Attributes:
        categorical: whether its values have no order.
        centres: middle of each value's stretch of [0, 1], shape (k,); None where values cannot be listed.
        edges: inner ends of the stretches, shape (k - 1,).
        parents: (column of the parent, its values' centres) that must all hold for it to be active.
    """

    categorical: bool
    centres: Array | None
    edges: Array | None
    parents: tuple[tuple[int, Array], ...]


class Encoding:
    """How a space becomes rows.

    A *unit* row lies in the unit cube, as :meth:`luthier.space.Space.from_unit` reads it. A *snapped* row
    has each listed value's centre, and 0.5 where a dimension is inactive.

    Args:
        space: the space.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        columns = {name: j for j, name in enumerate(space.names)}
        self.dimensions = [_dimension(space, name, columns) for name in space.names]
        self.order = [columns[name] for name in space.ordered]
        self.listed = np.array([d.centres is not None for d in self.dimensions])
        self.categorical = np.array([d.categorical for d in self.dimensions])

    def __len__(self) -> int:
        return len(self.dimensions)

    def rows(self, params: Mapping[str, Any]) -> Array:
        """The unit row of a combination, shape (d,), with 0.5 where inactive."""
        return np.asarray(np.clip(np.nan_to_num(self.space.to_unit(params), nan=0.5), 0.0, _TOP))

    def snap(self, unit: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Moves unit rows onto the values there are.

        Args:
            unit: shape (n, d).

        Returns:
            the snapped rows, shape (n, d), and which entries are active, shape (n, d).
        """
        out = np.clip(unit, 0.0, _TOP)
        for j, dimension in enumerate(self.dimensions):
            if dimension.centres is not None and dimension.edges is not None:
                out[:, j] = dimension.centres[np.searchsorted(dimension.edges, out[:, j], side="right")]
        active = np.ones(out.shape, dtype=bool)
        for j in self.order:
            for parent, wanted in self.dimensions[j].parents:
                close = np.abs(out[:, parent, None] - wanted) < 1e-9
                active[:, j] &= active[:, parent] & close.any(1)
        return np.where(active, out, 0.5), active

    def features(self, unit: Array) -> Array:
        """What a model compares: snapped rows, with -1 for an inactive category, shape (n, d)."""
        snapped, active = self.snap(unit)
        return np.asarray(np.where(self.categorical & ~active, -1.0, snapped))

    def params(self, unit: Array) -> Params:
        """The combination at one unit row."""
        return self.space.from_unit(unit)


def _dimension(space: Space, name: str, columns: Mapping[str, int]) -> Dimension:
    parameter = space[name]
    centres, edges = _stretches(parameter)
    parents = tuple(
        (columns[parent], np.array([space[parent].to_unit(v) for v in wanted]))
        for parent, wanted in space.conditions[name].items()
    )
    return Dimension(isinstance(parameter, Choice), centres, edges, parents)


def _stretches(parameter: Parameter) -> tuple[Array | None, Array | None]:
    if isinstance(parameter, Int) and parameter.size <= _LISTABLE:
        whole = range(parameter.low, parameter.high + 1)
        between = [parameter.to_unit(v + 0.5) for v in whole[:-1]]  # type: ignore[arg-type]
        return np.array([parameter.to_unit(v) for v in whole]), np.array(between)
    if parameter.size <= _LISTABLE:
        k = int(parameter.size)
        return (np.arange(k) + 0.5) / k, np.arange(1, k) / k
    return None, None
