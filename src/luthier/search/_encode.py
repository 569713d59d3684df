"""Points of a space as rows of numbers: snapped to the values there are, inactive dimensions blanked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.parameters import Structure
from luthier.pareto import Array
from luthier.search._structures import Block
from luthier.space import Choice, Int, Parameter, Params, Space

_LISTABLE = 2_000
_TOP = 1.0 - 2.0**-53

Parents = tuple[tuple[slice, Array], ...]


@dataclass(frozen=True)
class Dimension:
    """One column.

    Attributes:
        categorical: whether its values have no order.
        centres: middle of each value's stretch of [0, 1], shape (k,); None where values cannot be listed.
        edges: inner ends of the stretches, shape (k - 1,).
    """

    categorical: bool
    centres: Array | None
    edges: Array | None


class Encoding:
    """How a space becomes rows.

    A *unit* row lies in the unit cube, as :meth:`luthier.space.Space.from_unit` reads it. A *snapped* row
    has each listed value's centre, and 0.5 where a dimension is inactive. A permutation or subset takes several
    columns, its *block*; they count as categorical, but are not listed. ``choices`` are the columns of listed
    categories, ``numbers`` those that are neither choices nor in blocks.

    Args:
        space: the space.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.dimensions = [d for name in space.names for d in _dimensions(space[name])]
        self.blocks = [Block(space.slices[n], p) for n, p in space.parameters.items() if isinstance(p, Structure)]
        self.listed = np.array([d.centres is not None for d in self.dimensions])
        self.categorical = np.array([d.categorical for d in self.dimensions])
        self.structured = np.zeros(len(self), dtype=bool)
        for block in self.blocks:
            self.structured[block.place] = True
        listed_choices = self.categorical & self.listed
        self.choices = np.flatnonzero(listed_choices)
        self.numbers = np.flatnonzero(~listed_choices & ~self.structured)
        self._stretches = [(j, d.centres, d.edges) for j, d in enumerate(self.dimensions) if d.centres is not None]
        self._waiting = [(space.slices[n], _parents(space, n)) for n in space.ordered if space.conditions[n]]

    def __len__(self) -> int:
        return len(self.dimensions)

    @property
    def conditional(self) -> bool:
        """Whether some dimensions exist for some values of others only."""
        return bool(self._waiting)

    def rows(self, params: Mapping[str, Any]) -> Array:
        """The unit row of a combination, shape (d,), with 0.5 where inactive."""
        unit = self.space.to_unit(params)
        return np.asarray(np.clip(np.where(np.isnan(unit), 0.5, unit), 0.0, _TOP))

    def snap(self, unit: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Moves unit rows onto the values there are.

        Args:
            unit: shape (n, d).

        Returns:
            the snapped rows, shape (n, d), and which entries are active, shape (n, d).
        """
        out = np.clip(unit, 0.0, _TOP)
        for j, centres, edges in self._stretches:
            if edges is not None:
                out[:, j] = centres[np.searchsorted(edges, out[:, j], side="right")]
        for block in self.blocks:
            out[:, block.place] = block.snap(out[:, block.place])
        active = np.ones(out.shape, dtype=bool)
        if not self._waiting:
            return out, active
        for place, parents in self._waiting:
            here = np.ones(len(out), dtype=bool)
            for parent, wanted in parents:
                away = np.abs(out[:, None, parent] - wanted).max(2)  # (n, values)
                here &= active[:, parent.start] & (away.min(1) < 1e-9)
            active[:, place] = here[:, None]
        return np.where(active, out, 0.5), active

    def features(self, unit: Array) -> Array:
        """What a model compares: snapped rows, with -1 for an inactive category, shape (n, d)."""
        snapped, active = self.snap(unit)
        return np.asarray(np.where(self.categorical & ~active, -1.0, snapped))

    def params(self, unit: Array) -> Params:
        """The combination at one unit row."""
        return self.space.from_unit(unit.tolist())


def _dimensions(parameter: Parameter) -> list[Dimension]:
    if isinstance(parameter, Structure):
        return [Dimension(True, None, None)] * parameter.columns
    return [Dimension(isinstance(parameter, Choice), *_stretches(parameter))]


def _parents(space: Space, name: str) -> Parents:
    """(columns of the parent, its values' centres, shape (values, columns)) that must all hold for it to be active."""
    out = []
    for parent, wanted in space.conditions[name].items():
        centres = np.array([space[parent].to_unit(v) for v in wanted], dtype=float)
        out.append((space.slices[parent], centres.reshape(len(wanted), -1)))
    return tuple(out)


def _stretches(parameter: Parameter) -> tuple[Array | None, Array | None]:
    if isinstance(parameter, Int) and parameter.size <= _LISTABLE:
        whole = range(parameter.low, parameter.high + 1)
        between = [parameter.to_unit(v + 0.5) for v in whole[:-1]]
        return np.array([parameter.to_unit(v) for v in whole]), np.array(between)
    if parameter.size <= _LISTABLE:
        k = int(parameter.size)
        return (np.arange(k) + 0.5) / k, np.arange(1, k) / k
    return None, None
