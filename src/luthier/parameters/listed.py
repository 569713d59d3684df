"""One of several options, with or without an order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from luthier.errors import UsageError, nearest
from luthier.parameters._kind import label, plain_value, waiting


def read_options(kind: str, options: Any) -> tuple[Any, ...]:
    """The options as a tuple.

    Raises:
        UsageError: no list, empty, or two alike.
    """
    if isinstance(options, str) or not isinstance(options, Sequence | np.ndarray):
        raise UsageError(f"{kind}: the options are not a list", expected="a list or tuple", got=repr(options))
    values = tuple(options)
    if not values:
        raise UsageError(f"{kind}: the list of options is empty", expected="at least one option", got="none")
    labels = [label(v) for v in values]
    for i, text in enumerate(labels):
        if text in labels[:i]:
            raise UsageError(f"{kind}: an option is there twice", expected="different options", got=text)
    return values


def written(options: Sequence[Any]) -> list[Any]:
    """Options as JSON has them; those it lacks as their printed form, numbered where two look alike."""
    texts = [plain_value(v) for v in options]
    labels = [label(t) for t in texts]
    return [
        t if labels.count(label) == 1 else f"{t} #{i}" for i, (t, label) in enumerate(zip(texts, labels, strict=True))
    ]


@dataclass(frozen=True, init=False)
class Listed:
    """Common ground of :class:`Choice` and :class:`Ordinal`: values in a list.

    Attributes:
        options: the values.
        condition: when it is active.
        prior: the option that is believed in.
        written: the options as JSON has them, those it lacks as their printed form when the parameter was made.
    """

    options: tuple[Any, ...]
    condition: Mapping[str, Any] | None
    prior: Any
    written: Sequence[Any] = field(repr=False, compare=False)
    _places: Mapping[str, int] = field(repr=False, compare=False)

    def __init__(
        self, options: Sequence[Any], condition: Mapping[str, Any] | None = None, *, prior: Any = None
    ) -> None:
        kind = type(self).__name__
        values = read_options(kind, options)
        object.__setattr__(self, "options", values)
        object.__setattr__(self, "condition", condition)
        object.__setattr__(self, "written", written(values))
        object.__setattr__(self, "_places", {label(v): i for i, v in enumerate(values)})
        if prior is not None and not self.contains(prior):
            raise UsageError(
                f"{kind}: the prior is none of the options",
                expected=list(values),
                got=repr(prior),
                fix=nearest(prior, values),
            )
        object.__setattr__(self, "prior", prior)

    @property
    def size(self) -> float:
        return len(self.options)

    @property
    def columns(self) -> int:
        return 1

    def _place(self, value: Any) -> int | None:
        """Position among the options: by what it is, or as the very object, which may have changed since."""
        place = self._places.get(label(value))
        return next((i for i, v in enumerate(self.options) if v is value), None) if place is None else place

    def index(self, value: Any) -> int:
        """Position of a value among the options.

        Raises:
            ValueError: it is none of them.
        """
        place = self._place(value)
        if place is None:
            raise ValueError(f"{value!r} is none of the options")
        return place

    def from_unit(self, u: float) -> Any:
        return self.options[min(int(u * len(self.options)), len(self.options) - 1)]

    def to_unit(self, value: Any) -> float:
        return (self.index(value) + 0.5) / len(self.options)

    def grid(self, levels: int) -> list[Any]:
        return list(self.options)

    def contains(self, value: Any) -> bool:
        return self._place(value) is not None

    def read(self, value: Any) -> Any:
        return self.options[self.index(value)]

    def dump(self, value: Any) -> Any:
        plain = plain_value(value)
        return self.written[self.index(value)] if plain is not value and self.contains(value) else plain

    def load(self, value: Any) -> Any:
        for option, text in zip(self.options, self.written, strict=True):
            if label(text) == label(value):
                return option
        return value

    def _described(self, kind: str) -> dict[str, Any]:
        belief = {} if self.prior is None else {"prior": self.dump(self.prior)}
        return {"kind": kind, "options": self.written, **belief}


class Choice(Listed):
    """One of several unordered options: strings, numbers, None, tuples, classes ...

    Args:
        options: at least one; no two alike.
        prior: the option that you believe in; early proposals are drawn to it.

    Example:
        >>> Choice(["sgd", "adamw"]).from_unit(0.7)
        'adamw'
    """

    def to_json(self) -> dict[str, Any]:
        return self._described("choice")

    def when(self, **parents: Any) -> Choice:
        return Choice(self.options, waiting(self.condition, parents), prior=self.prior)


class Ordinal(Listed):
    """One of several options whose order matters, such as batch sizes 16, 32, 64.

    Args:
        options: at least one, in order.
        prior: the option that you believe in; early proposals are drawn to it and its neighbours.
    """

    def to_json(self) -> dict[str, Any]:
        return self._described("ordinal")

    def when(self, **parents: Any) -> Ordinal:
        return Ordinal(self.options, waiting(self.condition, parents), prior=self.prior)
