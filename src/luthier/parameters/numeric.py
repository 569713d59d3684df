"""Numbers: real and whole."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Self

import numpy as np

from luthier.errors import UsageError
from luthier.parameters._kind import plain_value, waiting

_ROUNDING = 2.0**-52  # places nearer to each other than this are the same


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool | np.bool_)


def _real(value: Any) -> float:
    """The number as a float, infinite where it is beyond one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _check_bounds(kind: str, low: Any, high: Any, log: bool, number: type) -> None:
    for name, value in (("low", low), ("high", high)):
        if not _is_number(value, number) or not math.isfinite(_real(value)):
            word = "a whole number" if number is Integral else "a finite number"
            big = isinstance(value, int) and not isinstance(value, bool)
            got = "a number beyond 1.7e308" if big else repr(value)
            raise UsageError(f"{kind}: {name!r} is not {word}", expected=f"{word} that a float can hold", got=got)
    if not math.isfinite(_real(high) - _real(low)):
        raise UsageError(
            f"{kind}: the range is too wide",
            expected="high - low below 1.7e308",
            got=f"low={_real(low):g}, high={_real(high):g}",
            fix="narrow it" if log else "narrow it, or search the exponent",
        )
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
class _Number:
    """What real and whole numbers have in common; each says which type its bounds and prior have."""

    low: Any
    high: Any
    log: bool = False
    condition: Mapping[str, Any] | None = None
    prior: Any = field(default=None, kw_only=True)

    def _settle(self, number: type, plain: Callable[[Any], Any]) -> None:
        """Checks bounds and prior, and makes the bounds plain numbers."""
        kind = type(self).__name__
        if not isinstance(self.log, bool | np.bool_):
            raise UsageError(
                f"{kind}: 'log' is neither True nor False",
                expected=f"{kind}(low, high, log=True), or without it",
                got=repr(self.log),
                fix="Ordinal(range(low, high + 1, step)) for values a step apart" if kind == "Int" else None,
            )
        _check_bounds(kind, self.low, self.high, self.log, number)
        object.__setattr__(self, "low", plain(self.low))
        object.__setattr__(self, "high", plain(self.high))
        object.__setattr__(self, "log", bool(self.log))
        if self.prior is None:
            return
        if not self.contains(self.prior):
            raise UsageError(
                f"{kind}: the prior is not one of the values",
                expected=f"{self.low} <= prior <= {self.high}",
                got=repr(self.prior),
            )
        object.__setattr__(self, "prior", plain(self.prior))

    @abstractmethod
    def contains(self, value: Any) -> bool: ...

    @abstractmethod
    def to_unit(self, value: Any) -> float: ...

    @abstractmethod
    def _between(self, u: float) -> Any:
        """The value at a place, but for rounding."""

    def from_unit(self, u: float) -> Any:
        if self.prior is not None and abs(u - self.to_unit(self.prior)) <= _ROUNDING:
            return self.prior  # as given, not as rounding has it
        return min(max(self._between(u), self.low), self.high)

    @property
    def columns(self) -> int:
        return 1

    def dump(self, value: Any) -> Any:
        return plain_value(value)

    def load(self, value: Any) -> Any:
        return value

    def to_json(self) -> dict[str, Any]:
        belief = {} if self.prior is None else {"prior": plain_value(self.prior)}
        return {"kind": type(self).__name__.lower(), "low": self.low, "high": self.high, "log": self.log, **belief}

    def when(self, **parents: Any) -> Self:
        return replace(self, condition=waiting(self.condition, parents))


@dataclass(frozen=True)
class Float(_Number):
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
    prior: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._settle(Real, float)

    @property
    def size(self) -> float:
        return 1 if self.low == self.high else math.inf

    def _between(self, u: float) -> float:
        return _between(self.low, self.high, self.log, u)

    def to_unit(self, value: float) -> float:
        return _place(self.low, self.high, self.log, value)

    def grid(self, levels: int) -> list[float]:
        if self.low == self.high or levels == 1:
            return [self.from_unit(0.5)]
        return [self.low, *(self.from_unit(i / (levels - 1)) for i in range(1, levels - 1)), self.high]

    def contains(self, value: Any) -> bool:
        return _is_number(value, Real) and self.low <= _real(value) <= self.high

    def read(self, value: Any) -> float:
        return float(value)


@dataclass(frozen=True)
class Int(_Number):
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
    prior: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._settle(Integral, int)

    @property
    def size(self) -> float:
        return self.high - self.low + 1

    def _between(self, u: float) -> int:
        return round(_between(self.low - 0.5, self.high + 0.5, self.log, u))

    def to_unit(self, value: float) -> float:
        return _place(self.low - 0.5, self.high + 0.5, self.log, value)

    def grid(self, levels: int) -> list[int]:
        if self.size <= levels:
            return list(range(self.low, self.high + 1))
        spread = [min(max(round(v), self.low), self.high) for v in Float(self.low, self.high, self.log).grid(levels)]
        if levels > 1:
            spread[0], spread[-1] = self.low, self.high  # which a float may have rounded
        return list(dict.fromkeys(spread))

    def contains(self, value: Any) -> bool:
        return _is_number(value, Integral) and self.low <= int(value) <= self.high

    def read(self, value: Any) -> int:
        return int(value)


def _between(low: float, high: float, log: bool, u: float) -> float:
    if log:
        a, b = math.log(low), math.log(high)
        return math.exp(a + u * (b - a))
    return low + u * (high - low)


def _place(low: float, high: float, log: bool, value: float) -> float:
    if low == high:
        return 0.5
    if log and math.isfinite(high / low):
        return math.log(value / low) / math.log(high / low)
    if log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)
