"""Orders and selections of items: values made of several parts, with several columns in the unit cube."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations
from typing import Any

import numpy as np

from luthier.errors import UsageError
from luthier.parameters._kind import label, waiting
from luthier.parameters.listed import read_options, written
from luthier.pareto import Array

_MANY = 170  # 171! is beyond a float


@dataclass(frozen=True, init=False)
class Structure:
    """Common ground of :class:`Permutation` and :class:`Subset`: values are tuples of items."""

    items: tuple[Any, ...]
    condition: Mapping[str, Any] | None
    _places: Mapping[str, int] = field(repr=False, compare=False)

    def _set_items(self, items: Sequence[Any], condition: Mapping[str, Any] | None) -> None:
        values = read_options(type(self).__name__, items)
        object.__setattr__(self, "items", values)
        object.__setattr__(self, "condition", condition)
        object.__setattr__(self, "_places", {label(v): i for i, v in enumerate(values)})

    @property
    def prior(self) -> None:
        """No belief is taken for structures."""
        return

    def places(self, value: Any) -> list[int]:
        """Positions of a value's parts among the items."""
        return [self._places[label(v)] for v in value]

    def _different(self, value: Any) -> bool:
        """Whether these are items, each at most once."""
        if isinstance(value, str) or not isinstance(value, Sequence | set | frozenset | np.ndarray):
            return False
        labels = [label(v) for v in value]
        return len(set(labels)) == len(labels) and all(text in self._places for text in labels)

    def dump(self, value: Any) -> Any:
        texts = written(self.items)
        return [texts[i] for i in self.places(value)]

    def load(self, value: Any) -> Any:
        known = {label(text): item for text, item in zip(written(self.items), self.items, strict=True)}
        return tuple(known.get(label(v), v) for v in value)


class Permutation(Structure):
    """An order of items: a tour, a schedule, a ranking. A value is a tuple of all items.

    Args:
        items: at least one; no two alike.

    Example:
        >>> order = Permutation(["a", "b", "c"])
        >>> order.from_unit([0.7, 0.1, 0.4]), order.size
        (('b', 'c', 'a'), 6)

    Source:
        sorted keys: Bean, "Genetic algorithms and random keys for sequencing and optimization", 1994.
    """

    def __init__(self, items: Sequence[Any], condition: Mapping[str, Any] | None = None) -> None:
        self._set_items(items, condition)

    @property
    def size(self) -> float:
        return math.factorial(len(self.items)) if len(self.items) <= _MANY else math.inf

    @property
    def columns(self) -> int:
        return len(self.items)

    def from_unit(self, u: Sequence[float] | Array) -> tuple[Any, ...]:
        return tuple(self.items[i] for i in np.argsort(np.asarray(u), kind="stable"))

    def to_unit(self, value: Any) -> Array:
        out = np.empty(len(self.items))
        out[self.places(value)] = (np.arange(len(self.items)) + 0.5) / len(self.items)
        return out

    def grid(self, levels: int) -> Iterator[tuple[Any, ...]]:
        return permutations(self.items)

    def contains(self, value: Any) -> bool:
        ordered = not isinstance(value, set | frozenset)
        return ordered and self._different(value) and len(value) == len(self.items)

    def read(self, value: Any) -> tuple[Any, ...]:
        return tuple(self.items[i] for i in self.places(value))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "permutation", "items": written(self.items)}

    def when(self, **parents: Any) -> Permutation:
        return Permutation(self.items, waiting(self.condition, parents))


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= int(value) <= most


@dataclass(frozen=True, init=False)
class Subset(Structure):
    """A selection of items, such as features to use. A value is a tuple of items, in the order given.

    A uniform draw takes every size with the same probability, then every selection of that size.

    Args:
        items: at least one; no two alike.
        min: fewest items of a value.
        max: most items of a value; None: all.

    Example:
        >>> some = Subset(["a", "b", "c"], min=1, max=2)
        >>> some.from_unit([0.9, 0.7, 0.1, 0.4]), some.size
        (('a', 'c'), 6)
    """

    min: int
    max: int

    def __init__(
        self,
        items: Sequence[Any],
        min: int = 0,
        max: int | None = None,
        condition: Mapping[str, Any] | None = None,
    ) -> None:
        self._set_items(items, condition)
        most = len(self.items) if max is None else max
        for name, value in (("min", min), ("max", most)):
            if not _is_count(value, len(self.items)):
                raise UsageError(
                    f"Subset: {name!r} is no possible number of items",
                    expected=f"0 <= {name} <= {len(self.items)}",
                    got=repr(value),
                )
        if min > most:
            raise UsageError("Subset: 'min' is above 'max'", expected="min <= max", got=f"min={min}, max={most}")
        object.__setattr__(self, "min", int(min))
        object.__setattr__(self, "max", int(most))

    @property
    def size(self) -> float:
        count = sum(math.comb(len(self.items), k) for k in range(self.min, self.max + 1))
        return count if count < 10**300 else math.inf

    @property
    def columns(self) -> int:
        return len(self.items) + 1

    def from_unit(self, u: Sequence[float] | Array) -> tuple[Any, ...]:
        keys = np.asarray(u)
        count = self.min + min(int(keys[0] * (self.max - self.min + 1)), self.max - self.min)
        chosen = np.argsort(-keys[1:], kind="stable")[:count]
        return tuple(self.items[i] for i in sorted(chosen))

    def to_unit(self, value: Any) -> Array:
        out = np.full(len(self.items) + 1, 0.25)
        out[0] = (len(value) - self.min + 0.5) / (self.max - self.min + 1)
        out[[1 + i for i in self.places(value)]] = 0.75
        return out

    def grid(self, levels: int) -> Iterator[tuple[Any, ...]]:
        return (chosen for k in range(self.min, self.max + 1) for chosen in combinations(self.items, k))

    def contains(self, value: Any) -> bool:
        return self._different(value) and self.min <= len(value) <= self.max

    def read(self, value: Any) -> tuple[Any, ...]:
        return tuple(self.items[i] for i in sorted(self.places(value)))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "subset", "items": written(self.items), "min": self.min, "max": self.max}

    def when(self, **parents: Any) -> Subset:
        return Subset(self.items, self.min, self.max, waiting(self.condition, parents))
