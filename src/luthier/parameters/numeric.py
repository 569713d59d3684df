"""Numbers: real and whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from luthier.errors import UsageError
from luthier.parameters._kind import plain_value


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


def _check_prior(kind: str, parameter: Float | Int) -> None:
    if parameter.prior is not None and not parameter.contains(parameter.prior):
        raise UsageError(
            f"{kind}: the prior is not one of the values",
            expected=f"{parameter.low} <= prior <= {parameter.high}",
            got=repr(parameter.prior),
        )


@dataclass(frozen=True)
class Float:
    """A real number in [low, high].

    Args:
        low: smallest value.
        high: largest value.
        log: whether ratios matter rather than differences (learning rates).
        prior: the value that you believe in; early proposals are drawn to it.

    Example:
        >>> round(Float(1e-4, 1.0, log=True).from_unit(0.5), 6)
        0.01
    """

    low: float
    high: float
    log: bool = False
    condition: Mapping[str, Any] | None = None
    prior: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_bounds("Float", self.low, self.high, self.log, Real)
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        _check_prior("Float", self)

    @property
    def size(self) -> float:
        return 1 if self.low == self.high else math.inf

    @property
    def columns(self) -> int:
        return 1

    def from_unit(self, u: float) -> float:
        return min(max(_between(self.low, self.high, self.log, u), self.low), self.high)

    def to_unit(self, value: float) -> float:
        return _place(self.low, self.high, self.log, value)

    def grid(self, levels: int) -> list[float]:
        if self.low == self.high or levels == 1:
            return [self.from_unit(0.5)]
        return [self.from_unit(i / (levels - 1)) for i in range(levels)]

    def contains(self, value: Any) -> bool:
        return _is_number(value, Real) and self.low <= float(value) <= self.high

    def read(self, value: Any) -> Any:
        return value

    def dump(self, value: Any) -> Any:
        return plain_value(value)

    def load(self, value: Any) -> Any:
        return value

    def to_json(self) -> dict[str, Any]:
        return {"kind": "float", "low": self.low, "high": self.high, "log": self.log, **_belief(self.prior)}

    def when(self, **parents: Any) -> Float:
        return replace(self, condition=parents)


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high].

    Args:
        low: smallest value.
        high: largest value, included.
        log: whether ratios matter rather than differences (widths, batch sizes).
        prior: the value that you believe in; early proposals are drawn to it.

    Example:
        >>> [Int(1, 4).from_unit(u) for u in (0.0, 0.3, 0.6, 0.99)]
        [1, 2, 3, 4]
    """

    low: int
    high: int
    log: bool = False
    condition: Mapping[str, Any] | None = None
    prior: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_bounds("Int", self.low, self.high, self.log, Integral)
        object.__setattr__(self, "low", int(self.low))
        object.__setattr__(self, "high", int(self.high))
        _check_prior("Int", self)

    @property
    def size(self) -> float:
        return self.high - self.low + 1

    @property
    def columns(self) -> int:
        return 1

    def from_unit(self, u: float) -> int:
        value = _between(self.low - 0.5, self.high + 0.5, self.log, u)
        return min(max(round(value), self.low), self.high)

    def to_unit(self, value: float) -> float:
        return _place(self.low - 0.5, self.high + 0.5, self.log, value)

    def grid(self, levels: int) -> list[int]:
        if self.size <= levels:
            return list(range(self.low, self.high + 1))
        ends = Float(self.low, self.high, self.log).grid(levels)
        return list(dict.fromkeys(round(v) for v in ends))

    def contains(self, value: Any) -> bool:
        return _is_number(value, Integral) and self.low <= int(value) <= self.high

    def read(self, value: Any) -> Any:
        return value

    def dump(self, value: Any) -> Any:
        return plain_value(value)

    def load(self, value: Any) -> Any:
        return value

    def to_json(self) -> dict[str, Any]:
        return {"kind": "int", "low": self.low, "high": self.high, "log": self.log, **_belief(self.prior)}

    def when(self, **parents: Any) -> Int:
        return replace(self, condition=parents)


def _between(low: float, high: float, log: bool, u: float) -> float:
    if log:
        a, b = math.log(low), math.log(high)
        return math.exp(a + u * (b - a))
    return low + u * (high - low)


def _place(low: float, high: float, log: bool, value: float) -> float:
    if low == high:
        return 0.5
    if log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _belief(prior: Any) -> dict[str, Any]:
    return {} if prior is None else {"prior": plain_value(prior)}
