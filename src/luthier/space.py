"""Search spaces: parameters, conditions between them, forbidden combinations. Values only; nothing here searches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from luthier.errors import UsageError, nearest, unknown
from luthier.parameters import (
    KINDS,
    Choice,
    Float,
    Int,
    Ordinal,
    Parameter,
    Permutation,
    Subset,
    label,
    parameter_from_json,
    plain_value,
)
from luthier.pareto import Array

__all__ = [
    "Choice",
    "Float",
    "Int",
    "Ordinal",
    "Parameter",
    "Params",
    "Permutation",
    "Predicate",
    "Space",
    "Subset",
    "parameter_from_json",
]

Params = dict[str, Any]
Predicate = Callable[[Params], bool]

_BELOW_ONE = 1.0 - 2.0**-53
_TRIES = 10_000


class Space:
    """A set of named parameters.

    Args:
        parameters: a mapping, for names that are no identifiers.
        where: predicates over the active parameters; a combination for which one is false is forbidden.
            A predicate that reads a parameter which is not active does not apply. It should be cheap, below 0.1 ms: a
            proposal asks it some ten times, with ``bayes`` up to some hundred times.
        named: the parameters by keyword.

    Raises:
        UsageError: no parameters, a wrong type, a condition on an unknown or circular parent, or no predicates.

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
        where: Sequence[Predicate] | Predicate | None = (),
        **named: Parameter,
    ) -> None:
        self.parameters: dict[str, Parameter] = {**(parameters or {}), **named}
        self.where = _predicates(where)
        if not self.parameters:
            raise UsageError("the space is empty", expected="at least one parameter", got="none")
        for name, parameter in self.parameters.items():
            if not isinstance(name, str):
                raise UsageError("a parameter's name is no text", expected='a text, such as "lr"', got=repr(name))
            if not isinstance(parameter, tuple(KINDS.values())):
                raise UsageError(
                    f"parameter {name!r} has no kind",
                    expected="Float, Int, Choice, Ordinal, Permutation or Subset",
                    got=repr(parameter),
                    fix=f"Choice({list(parameter)!r})" if isinstance(parameter, list | tuple) else None,
                )
        self.conditions = {name: self._read_condition(name) for name in self.parameters}
        self.ordered = self._sort_by_parents()
        self.experience: tuple[Mapping[str, Any], ...] = ()
        self.slices = self._lay_out()
        self.width = sum(p.columns for p in self.parameters.values())

    def _lay_out(self) -> dict[str, slice]:
        """Which columns of a unit array belong to which parameter."""
        out, at = {}, 0
        for name, parameter in self.parameters.items():
            out[name] = slice(at, at + parameter.columns)
            at += parameter.columns
        return out

    def _read_condition(self, name: str) -> dict[str, tuple[Any, ...]]:
        out = {}
        condition = self.parameters[name].condition or {}
        if not isinstance(condition, Mapping):
            raise UsageError(
                f"the condition of {name!r} is no mapping", expected="made by .when(parent=value)", got=repr(condition)
            )
        for parent, wanted in condition.items():
            if parent not in self.parameters:
                raise unknown(f"parent of parameter {name!r}:", parent, self.parameters)
            known = self.parameters[parent]
            several = isinstance(wanted, tuple) and not known.contains(wanted)
            values = wanted if several else (wanted,)
            wrong = [v for v in values if not known.contains(v)] if values else [()]
            if wrong:
                raise _never(name, parent, known, wrong[0])
            out[parent] = tuple(known.read(v) for v in values)
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
        """The parameters, in the order given."""
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
            parent in values and any(label(values[parent]) == label(v) for v in wanted)
            for parent, wanted in self.conditions[name].items()
        )

    def from_unit(self, u: Sequence[float] | Array) -> Params:
        """The active parameters' values at a point of the unit cube, shape (width,).

        A parameter has one column, in the order of ``names``; a permutation or subset has several, see ``slices``.
        """
        row = [min(max(float(x), 0.0), _BELOW_ONE) for x in u]
        if len(row) != self.width:
            raise UsageError("the point is not of this space", expected=f"{self.width} numbers", got=f"{len(row)}")
        values: Params = {}
        for name in self.ordered:
            if not self.conditions[name] or self.is_active(name, values):
                parameter, place = self.parameters[name], self.slices[name]
                part = row[place.start] if parameter.columns == 1 else row[place]
                values[name] = parameter.from_unit(part)
        return {name: values[name] for name in self.parameters if name in values}

    def to_unit(self, params: Mapping[str, Any]) -> Array:
        """The point of the unit cube that stands for these values, shape (width,); NaN where inactive."""
        row = np.full(self.width, np.nan)
        for name, value in params.items():
            row[self.slices[name]] = self.parameters[name].to_unit(value)
        return row

    def broken(self, params: Params) -> int | None:
        """Index of the first predicate of ``where`` that forbids these values, or None.

        Raises:
            UsageError: a predicate looked for something that is not there.
        """
        for i, predicate in enumerate(self.where):
            try:
                allowed = predicate(dict(params))  # which it may change
            except KeyError as missing:
                if missing.args and missing.args[0] in self.parameters and missing.args[0] not in params:
                    continue
                raise self._lacks(i, missing) from missing
            if not allowed:
                return i
        return None

    def _lacks(self, i: int, missing: KeyError) -> UsageError:
        name = missing.args[0] if missing.args else None
        return UsageError(
            f"the predicate where[{i}] looks for {name!r}, which is not there",
            expected="one of the parameters " + ", ".join(self.names),
            got=f"KeyError in {_source(self.where[i])}",
            fix=nearest(name, self.names),
        )

    def allows(self, params: Params) -> bool:
        """Whether no predicate of ``where`` forbids these values."""
        return self.broken(params) is None

    def draw(
        self,
        generator: np.random.Generator,
        bend: Callable[[Array], Array] | None = None,
        until: float = math.inf,
    ) -> Params:
        """A uniformly drawn allowed combination.

        Args:
            generator: the stream to draw from.
            bend: turns a uniform row, shape (width,), into the one to read; None: it stays.
            until: ``time.monotonic()`` from which a forbidden draw is the last.

        Raises:
            UsageError: ten thousand draws in a row were forbidden, or the time was up; names the predicate.
        """
        culprit = tried = 0
        while tried < _TRIES and (tried == 0 or time.monotonic() < until):
            row = generator.random(self.width)
            params = self.from_unit((row if bend is None else bend(row)).tolist())
            broken = self.broken(params)
            if broken is None:
                return params
            culprit, tried = broken, tried + 1
        raise self.infeasible(culprit, f"{tried:,} random combinations, all forbidden")

    def infeasible(self, culprit: int, got: str, **details: str) -> UsageError:
        """The error for a space in which nothing allowed can be found.

        Args:
            culprit: the predicate of ``where`` that forbade last.
            got: what was looked at.
            details: of the error, where they differ from the usual ones.
        """
        usual = {
            "expected": f"one that satisfies where[{culprit}], {_source(self.where[culprit])}",
            "cause": "contradictory constraints, or an allowed part too small to hit",
            "fix": "widen the constraint, or narrow the parameters' bounds to the allowed part",
        }
        return UsageError("no allowed combination was found in the space", **{**usual, "got": got, **details})

    def check(self, params: Mapping[str, Any]) -> Params:
        """Reads values given by a user: all active parameters, each in its range, none forbidden; others are left out.

        Raises:
            UsageError: an unknown, missing or out-of-range parameter, or a forbidden combination.
        """
        for name in params:
            if name not in self.parameters:
                raise unknown("parameter", name, self.names)
        given = {n: self[n].read(v) if self[n].contains(v) else v for n, v in params.items()}
        for name in self.ordered:
            active = self.is_active(name, given)
            if active and name not in given:
                raise UsageError(f"parameter {name!r} is missing", expected=self.parameters[name], got=dict(params))
            if active and not self.parameters[name].contains(given[name]):
                raise UsageError(
                    f"parameter {name!r} is out of range", expected=self.parameters[name], got=repr(given[name])
                )
        values = {n: given[n] for n in self.names if n in given and self.is_active(n, given)}
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
                    p: [self.parameters[p].dump(v) for v in vs] for p, vs in self.conditions[name].items()
                }
        learned = {"experience": [dict(record) for record in self.experience]} if self.experience else {}
        return {"parameters": rows, "where": len(self.where), **learned}

    @classmethod
    def from_json(cls, text: Mapping[str, Any]) -> Space:
        """The space without its predicates; options that JSON lacks come back as their printed form."""
        bare = cls({name: parameter_from_json(row) for name, row in text["parameters"].items()})
        return bare.with_experience(text.get("experience", ()))

    def with_experience(self, told: Sequence[Mapping[str, Any]]) -> Space:
        """A copy that knows what other studies found.

        Args:
            told: a record for each study: ``{"study": name, "trials": [[params as dumped, rank], ...]}``, with ranks
                from 0, the best, to 1.
        """
        copy = Space(self.parameters, where=self.where)
        copy.experience = tuple(told)
        return copy

    def dump(self, params: Mapping[str, Any]) -> Params:
        """Values as JSON has them; an option that JSON lacks as its printed form."""
        return {n: self.parameters[n].dump(v) if n in self.parameters else plain_value(v) for n, v in params.items()}

    def load(self, params: Mapping[str, Any]) -> Params:
        """The inverse of :meth:`dump`, finding options by their printed form."""
        return {n: self.parameters[n].load(v) if n in self.parameters else v for n, v in params.items()}


def _never(name: str, parent: str, known: Parameter, value: Any) -> UsageError:
    """The error for a condition that never holds."""
    several = isinstance(value, list | range | set) and len(value) > 0 and all(known.contains(v) for v in value)
    return UsageError(
        f"{name!r} waits for a value that {parent!r} never takes",
        expected=f"a value of {known}, or a tuple of some",
        got=repr(value),
        fix=f"when({parent}={tuple(value)!r})" if several else nearest(value, getattr(known, "options", ())),
    )


def _predicates(where: Any) -> tuple[Predicate, ...]:
    """What was given as ``where``, as a tuple.

    Raises:
        UsageError: something that cannot be called.
    """
    listed = [where] if callable(where) else () if where is None else where
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        listed = [listed]
    listed = tuple(listed)
    for predicate in listed:
        if not callable(predicate):
            raise UsageError(
                "a predicate of 'where' cannot be called",
                expected='a function of the parameters, such as lambda p: p["x"] < 1, or a list of them',
                got=repr(predicate),
            )
    return listed


def _source(predicate: Predicate) -> str:
    code = getattr(predicate, "__code__", None)
    name = getattr(predicate, "__name__", repr(predicate))
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name
