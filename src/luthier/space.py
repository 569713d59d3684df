"""Search spaces: parameters, conditions between them, forbidden combinations. Values only; nothing here searches."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Protocol, TypeVar

import numpy as np

from luthier.errors import UsageError, unknown
from luthier.pareto import Array

Params = dict[str, Any]
Predicate = Callable[[Params], bool]
P = TypeVar("P", bound="Parameter")

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_BELOW_ONE = 1.0 - 2.0**-53
_TRIES = 10_000


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
class _Listed:
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
        labels = [_label(v) for v in values]
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
        texts = [_plain(v) for v in self.options]
        labels = [_label(t) for t in texts]
        return [
            t if labels.count(label) == 1 else f"{t} #{i}"
            for i, (t, label) in enumerate(zip(texts, labels, strict=True))
        ]

    def index(self, value: Any) -> int:
        """Position of a value among the options."""
        return [_label(v) for v in self.options].index(_label(value))

    def from_unit(self, u: float) -> Any:
        return self.options[min(int(u * len(self.options)), len(self.options) - 1)]

    def to_unit(self, value: Any) -> float:
        return (self.index(value) + 0.5) / len(self.options)

    def grid(self, levels: int) -> list[Any]:
        return list(self.options)

    def contains(self, value: Any) -> bool:
        return _label(value) in [_label(v) for v in self.options]


class Choice(_Listed):
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


class Ordinal(_Listed):
    """One of several options whose order matters, such as batch sizes 16, 32, 64.

    Args:
        options: at least one, in order.
    """

    def to_json(self) -> dict[str, Any]:
        return {"kind": "ordinal", "options": self.written}

    def when(self, **parents: Any) -> Ordinal:
        return Ordinal(self.options, parents)


def _label(value: Any) -> str:
    """Tells values apart as people do: True is not 1, 1 is not 1.0, numpy's 1 is 1."""
    plain = value.item() if isinstance(value, np.generic) else value
    return f"{type(plain).__name__}:{plain!r}"


def _plain(value: Any) -> Any:
    """The value where JSON has it, else its printed form."""
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is None or isinstance(plain, bool | int | float | str):
        return plain
    return _ADDRESS.sub("", repr(plain))  # an address is another one in every run


class Space:
    """A set of named parameters.

    Args:
        parameters: a mapping, for names that are no identifiers.
        where: predicates over the active parameters; a combination for which one is false is forbidden.
            A predicate that reads a parameter which is not active does not apply.
        named: the parameters by keyword.

    Raises:
        UsageError: no parameters, a wrong type, or a condition on an unknown or circular parent.

    Example:
        >>> space = Space(opt=Choice(["sgd", "adam"]), momentum=Float(0, 0.99).when(opt="sgd"))
        >>> space.from_unit([0.9, 0.5])
        {'opt': 'adam'}
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter] | None = None,
        /,
        *,
        where: Sequence[Predicate] | Predicate = (),
        **named: Parameter,
    ) -> None:
        self.parameters: dict[str, Parameter] = {**(parameters or {}), **named}
        self.where: tuple[Predicate, ...] = (where,) if callable(where) else tuple(where)
        if not self.parameters:
            raise UsageError("the space is empty", expected="at least one parameter", got="none")
        for name, parameter in self.parameters.items():
            if not isinstance(parameter, Float | Int | Choice | Ordinal):
                raise UsageError(
                    f"parameter {name!r} has no kind",
                    expected="Float, Int, Choice or Ordinal",
                    got=repr(parameter),
                    fix=f"Choice({list(parameter)!r})" if isinstance(parameter, list | tuple) else None,
                )
        self.conditions = {name: self._read_condition(name) for name in self.parameters}
        self.ordered = self._sort_by_parents()

    def _read_condition(self, name: str) -> dict[str, tuple[Any, ...]]:
        out = {}
        for parent, wanted in (self.parameters[name].condition or {}).items():
            if parent not in self.parameters:
                raise unknown(f"parent of parameter {name!r}:", parent, self.parameters)
            known = self.parameters[parent]
            several = isinstance(wanted, tuple) and not known.contains(wanted)
            values = wanted if several else (wanted,)
            for value in values:
                if not known.contains(value):
                    raise UsageError(
                        f"{name!r} waits for a value that {parent!r} never takes",
                        expected=f"a value of {known}",
                        got=repr(value),
                    )
            out[parent] = tuple(values)
        return out

    def _sort_by_parents(self) -> tuple[str, ...]:
        done: list[str] = []
        left = list(self.parameters)
        while left:
            ready = [n for n in left if all(p in done for p in self.conditions[n])]
            if not ready:
                raise UsageError("conditions go in a circle", expected="parents without loops", got=" -> ".join(left))
            done += ready
            left = [n for n in left if n not in ready]
        return tuple(done)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order given; column j of a unit array belongs to names[j]."""
        return tuple(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        return self.parameters[name]

    def __repr__(self) -> str:
        return "Space(" + ", ".join(f"{n}={p}" for n, p in self.parameters.items()) + ")"

    def is_active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether a parameter counts, given the values of its parents."""
        return all(
            parent in values and any(_label(values[parent]) == _label(v) for v in wanted)
            for parent, wanted in self.conditions[name].items()
        )

    def from_unit(self, u: Sequence[float] | Array) -> Params:
        """The active parameters' values at a point of the unit cube, shape (d,)."""
        column = {name: float(x) for name, x in zip(self.names, u, strict=True)}
        values: Params = {}
        for name in self.ordered:
            if self.is_active(name, values):
                values[name] = self.parameters[name].from_unit(min(max(column[name], 0.0), _BELOW_ONE))
        return {name: values[name] for name in self.names if name in values}

    def to_unit(self, params: Mapping[str, Any]) -> Array:
        """The point of the unit cube that stands for these values, shape (d,); NaN where inactive."""
        row = [self.parameters[n].to_unit(params[n]) if n in params else math.nan for n in self.names]
        return np.array(row, dtype=float)

    def broken(self, params: Params) -> int | None:
        """Index of the first predicate of ``where`` that forbids these values, or None."""
        for i, predicate in enumerate(self.where):
            try:
                allowed = predicate(params)
            except KeyError as missing:
                if missing.args and missing.args[0] in self.parameters and missing.args[0] not in params:
                    continue
                raise
            if not allowed:
                return i
        return None

    def allows(self, params: Params) -> bool:
        """Whether no predicate of ``where`` forbids these values."""
        return self.broken(params) is None

    def draw(self, generator: np.random.Generator) -> Params:
        """A uniformly drawn allowed combination.

        Raises:
            UsageError: ten thousand draws in a row were forbidden; names the predicate.
        """
        culprit = 0
        for _ in range(_TRIES):
            params = self.from_unit(generator.random(len(self)))
            broken = self.broken(params)
            if broken is None:
                return params
            culprit = broken
        raise self.infeasible(culprit)

    def infeasible(self, culprit: int) -> UsageError:
        """The error for a space in which nothing allowed can be found."""
        return UsageError(
            "no allowed combination was found in the space",
            expected=f"one that satisfies where[{culprit}], {_source(self.where[culprit])}",
            got=f"{_TRIES:,} random combinations, all forbidden",
            cause="contradictory constraints, or an allowed part too small to hit",
            fix="widen the constraint, or narrow the parameters' bounds to the allowed part",
        )

    def check(self, params: Mapping[str, Any]) -> Params:
        """Reads values given by a user: exactly the active parameters, each in its range, none forbidden.

        Raises:
            UsageError: an unknown, missing, inactive or out-of-range parameter, or a forbidden combination.
        """
        for name in params:
            if name not in self.parameters:
                raise unknown("parameter", name, self.names)
        for name in self.ordered:
            active = self.is_active(name, params)
            if active and name not in params:
                raise UsageError(f"parameter {name!r} is missing", expected=self.parameters[name], got=dict(params))
            if active and not self.parameters[name].contains(params[name]):
                raise UsageError(
                    f"parameter {name!r} is out of range", expected=self.parameters[name], got=repr(params[name])
                )
        values = {n: params[n] for n in self.names if n in params and self.is_active(n, params)}
        broken = self.broken(values)
        if broken is not None:
            raise UsageError(f"the combination is forbidden by where[{broken}]", got=values)
        return values

    def to_json(self) -> dict[str, Any]:
        """A description for stores and reports; predicates appear as their number only."""
        rows = {}
        for name, parameter in self.parameters.items():
            rows[name] = parameter.to_json()
            if self.conditions[name]:
                rows[name]["when"] = {
                    p: [_dumped(self.parameters[p], v) for v in vs] for p, vs in self.conditions[name].items()
                }
        return {"parameters": rows, "where": len(self.where)}

    @classmethod
    def from_json(cls, text: Mapping[str, Any]) -> Space:
        """The space without its predicates; options that JSON lacks come back as their printed form."""
        return cls({name: parameter_from_json(row) for name, row in text["parameters"].items()})

    def dump(self, params: Mapping[str, Any]) -> Params:
        """Values as JSON has them; an option that JSON lacks as its printed form."""
        return {n: _dumped(self.parameters[n], v) if n in self.parameters else _plain(v) for n, v in params.items()}

    def load(self, params: Mapping[str, Any]) -> Params:
        """The inverse of :meth:`dump`, finding options by their printed form."""
        return {n: _original(self.parameters[n], v) if n in self.parameters else v for n, v in params.items()}


def _dumped(parameter: Parameter, value: Any) -> Any:
    plain = _plain(value)
    if isinstance(parameter, _Listed) and plain is not value and parameter.contains(value):
        return parameter.written[parameter.index(value)]
    return plain


def _original(parameter: Parameter, value: Any) -> Any:
    if isinstance(parameter, _Listed):
        for option, text in zip(parameter.options, parameter.written, strict=True):
            if _label(text) == _label(value):
                return option
    return value


def _source(predicate: Predicate) -> str:
    code = getattr(predicate, "__code__", None)
    name = getattr(predicate, "__name__", repr(predicate))
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name


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
