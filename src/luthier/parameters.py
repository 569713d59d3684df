"""Parameters: what one setting of a search can be. Values only; a space puts them together."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Protocol, TypeVar

import numpy as np

from luthier.errors import UsageError, unknown

P = TypeVar("P", bound="Parameter")

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Parameter(Protocol):
    """What every kind of parameter can do. The unit interval [0, 1) is the algorithms' common ground."""

    @property
    def condition(self) -> Mapping[str, Any] | None:
        """The parents' values for which it is active; None: always."""

    @property
    def size(self) -> float:
        """How many values there are; infinite for a Float."""

    @abstractmethod
    def from_unit(self, u: float) -> Any:
        """The value at ``u`` in [0, 1]; equal lengths of the interval are equally likely values."""

    @abstractmethod
    def to_unit(self, value: Any) -> float:
        """The middle of the stretch of [0, 1] that gives this value."""

    @abstractmethod
    def grid(self, levels: int) -> list[Any]:
        """Every value, or ``levels`` spread ones where there are more than can be listed."""

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether it is one of the parameter's values."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A description that :func:`parameter_from_json` reads."""

    @abstractmethod
    def when(self: P, **parents: Any) -> P:
        """A copy that is active only where each parent has the given value (a tuple: one of the values)."""


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool | np.bool_)


def _check_bounds(kind: str, low: Any, high: Any, log: bool, number: type) -> None:
    for name, value in (("low", low), ("high", high)):
        if not _is_number(value, number) or not math.isfinite(value):
            word = "a whole number" if number is Integral else "a finite number"
            raise UsageError(f"{kind}: {name!r} is not {word}", expected=word, got=repr(value))
    if low > high:
        raise UsageError(
            f"{kind}: 'low' is above 'high'",
            expected="low <= high",
            got=f"low={low}, high={high}",
            cause="the two are swapped",
            fix=f"{kind}({high}, {low})",
        )
    if log and low <= 0:
        raise UsageError(
            f"{kind}: a logarithmic scale needs positive bounds",
            expected="low > 0",
            got=f"low={low}",
            fix="raise 'low' (1e-6, say), or leave log=True out",
        )


@dataclass(frozen=True)
class Float:
    """A real number in [low, high].

    Args:
        low: smallest value.
        high: largest value.
        log: whether ratios matter rather than differences (learning rates).

    Example:
        >>> round(Float(1e-4, 1.0, log=True).from_unit(0.5), 6)
        0.01
    """

    low: float
    high: float
    log: bool = False
    condition: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_bounds("Float", self.low, self.high, self.log, Real)
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    @property
    def size(self) -> float:
        return 1 if self.low == self.high else math.inf

    def from_unit(self, u: float) -> float:
        if self.log:
            a, b = math.log(self.low), math.log(self.high)
            value = math.exp(a + u * (b - a))
        else:
            value = self.low + u * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def to_unit(self, value: float) -> float:
        if self.low == self.high:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def grid(self, levels: int) -> list[float]:
        if self.low == self.high or levels == 1:
            return [self.from_unit(0.5)]
        return [self.from_unit(i / (levels - 1)) for i in range(levels)]

    def contains(self, value: Any) -> bool:
        return _is_number(value, Real) and self.low <= float(value) <= self.high

    def to_json(self) -> dict[str, Any]:
        return {"kind": "float", "low": self.low, "high": self.high, "log": self.log}

    def when(self, **parents: Any) -> Float:
        return replace(self, condition=parents)


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high].

    Args:
        low: smallest value.
        high: largest value, included.
        log: whether ratios matter rather than differences (widths, batch sizes).

    Example:
        >>> [Int(1, 4).from_unit(u) for u in (0.0, 0.3, 0.6, 0.99)]
        [1, 2, 3, 4]
    """

    low: int
    high: int
    log: bool = False
    condition: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_bounds("Int", self.low, self.high, self.log, Integral)
        object.__setattr__(self, "low", int(self.low))
        object.__setattr__(self, "high", int(self.high))

    @property
    def size(self) -> float:
        return self.high - self.low + 1

    @property
    def _real(self) -> Float:
        return Float(self.low - 0.5, self.high + 0.5, self.log)

    def from_unit(self, u: float) -> int:
        return min(max(round(self._real.from_unit(u)), self.low), self.high)

    def to_unit(self, value: int) -> float:
        return self._real.to_unit(value)

    def grid(self, levels: int) -> list[int]:
        if self.size <= levels:
            return list(range(self.low, self.high + 1))
        ends = Float(self.low, self.high, self.log).grid(levels)
        return list(dict.fromkeys(round(v) for v in ends))

    def contains(self, value: Any) -> bool:
        return _is_number(value, Integral) and self.low <= int(value) <= self.high

    def to_json(self) -> dict[str, Any]:
        return {"kind": "int", "low": self.low, "high": self.high, "log": self.log}

    def when(self, **parents: Any) -> Int:
        return replace(self, condition=parents)


@dataclass(frozen=True, init=False)
class Listed:
    """Common ground of :class:`Choice` and :class:`Ordinal`: values in a list."""

    options: tuple[Any, ...]
    condition: Mapping[str, Any] | None

    def __init__(self, options: Sequence[Any], condition: Mapping[str, Any] | None = None) -> None:
        kind = type(self).__name__
        if isinstance(options, str) or not isinstance(options, Sequence | np.ndarray):
            raise UsageError(f"{kind}: the options are not a list", expected="a list or tuple", got=repr(options))
        values = tuple(options)
        if not values:
            raise UsageError(f"{kind}: the list of options is empty", expected="at least one option", got="none")
        labels = [label(v) for v in values]
        for i, text in enumerate(labels):
            if text in labels[:i]:
                raise UsageError(f"{kind}: an option is there twice", expected="different options", got=text)
        object.__setattr__(self, "options", values)
        object.__setattr__(self, "condition", condition)

    @property
    def size(self) -> float:
        return len(self.options)

    @property
    def written(self) -> list[Any]:
        """The options as JSON has them; those it lacks as their printed form, numbered where two look alike."""
        texts = [plain_value(v) for v in self.options]
        labels = [label(t) for t in texts]
        return [
            t if labels.count(label) == 1 else f"{t} #{i}"
            for i, (t, label) in enumerate(zip(texts, labels, strict=True))
        ]

    def index(self, value: Any) -> int:
        """Position of a value among the options."""
        return [label(v) for v in self.options].index(label(value))

    def from_unit(self, u: float) -> Any:
        return self.options[min(int(u * len(self.options)), len(self.options) - 1)]

    def to_unit(self, value: Any) -> float:
        return (self.index(value) + 0.5) / len(self.options)

    def grid(self, levels: int) -> list[Any]:
        return list(self.options)

    def contains(self, value: Any) -> bool:
        return label(value) in [label(v) for v in self.options]


class Choice(Listed):
    """One of several unordered options: strings, numbers, None, tuples, classes ...

    Args:
        options: at least one; no two alike.

    Example:
        >>> Choice(["sgd", "adamw"]).from_unit(0.7)
        'adamw'
    """

    def to_json(self) -> dict[str, Any]:
        return {"kind": "choice", "options": self.written}

    def when(self, **parents: Any) -> Choice:
        return Choice(self.options, parents)


class Ordinal(Listed):
    """One of several options whose order matters, such as batch sizes 16, 32, 64.

    Args:
        options: at least one, in order.
    """

    def to_json(self) -> dict[str, Any]:
        return {"kind": "ordinal", "options": self.written}

    def when(self, **parents: Any) -> Ordinal:
        return Ordinal(self.options, parents)


def label(value: Any) -> str:
    """Tells values apart as people do: True is not 1, 1 is not 1.0, numpy's 1 is 1."""
    plain = value.item() if isinstance(value, np.generic) else value
    return f"{type(plain).__name__}:{plain!r}"


def plain_value(value: Any) -> Any:
    """The value where JSON has it, else its printed form."""
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is None or isinstance(plain, bool | int | float | str):
        return plain
    return _ADDRESS.sub("", repr(plain))  # an address is another one in every run


def parameter_from_json(row: Mapping[str, Any]) -> Parameter:
    """The parameter that ``to_json`` described.

    Raises:
        UsageError: a kind that this version does not know.
    """
    condition = {p: tuple(v) for p, v in row.get("when", {}).items()} or None
    kind = row["kind"]
    if kind == "float":
        return Float(row["low"], row["high"], row["log"], condition)
    if kind == "int":
        return Int(row["low"], row["high"], row["log"], condition)
    if kind in ("choice", "ordinal"):
        return (Choice if kind == "choice" else Ordinal)(row["options"], condition)
    raise unknown("kind of parameter", kind, ["float", "int", "choice", "ordinal"])
