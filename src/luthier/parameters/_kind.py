"""What every kind of parameter can do, and how values are told apart and written."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

P = TypeVar("P", bound="Parameter")

_PLAIN = (float, int, str, bool, type(None))
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Parameter(Protocol):
    """What every kind of parameter can do. The unit interval [0, 1) is the algorithms' common ground."""

    @property
    def condition(self) -> Mapping[str, Any] | None:
        """The parents' values for which it is active; None: always."""

    @property
    def prior(self) -> Any:
        """The value that the user believes in; None: no belief (an option None is a belief only in a list)."""

    @property
    def size(self) -> float:
        """How many values there are; infinite for a Float."""

    @property
    def columns(self) -> int:
        """How many numbers in [0, 1) stand for a value: 1, or more for a :class:`Structure`."""
        ...

    @abstractmethod
    def from_unit(self, u: Any) -> Any:
        """The value at ``u``: a number in [0, 1), or an array of shape (columns,) where there are several.

        Uniform numbers give what :meth:`luthier.space.Space.draw` calls a uniform draw.
        """

    @abstractmethod
    def to_unit(self, value: Any) -> Any:
        """The middle of what gives this value: a number, or an array of shape (columns,)."""

    @abstractmethod
    def grid(self, levels: int) -> Iterable[Any]:
        """Every value, or ``levels`` spread ones where there are more than can be listed."""

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether it is one of the parameter's values."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """A value that :meth:`contains` accepted, in the form that :meth:`from_unit` gives."""

    @abstractmethod
    def dump(self, value: Any) -> Any:
        """The value as JSON has it; options that JSON lacks as their printed form."""

    @abstractmethod
    def load(self, value: Any) -> Any:
        """The inverse of :meth:`dump`."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A description that :func:`luthier.parameters.parameter_from_json` reads."""

    @abstractmethod
    def when(self: P, **parents: Any) -> P:
        """A copy that is active only where each parent has the given value (a tuple: one of the values).

        What it waited for before it still waits for, unless the same parent is named again.
        """


def waiting(condition: Mapping[str, Any] | None, parents: Mapping[str, Any]) -> dict[str, Any]:
    """A condition with further parents."""
    return {**(condition or {}), **parents}


def label(value: Any) -> str:
    """Tells values apart as people do: True is not 1, 1 is not 1.0, numpy's 1 is 1."""
    plain = value.item() if isinstance(value, np.generic) else value
    return f"{type(plain).__name__}:{plain!r}"


def apart(value: Any) -> Any:
    """The value with dicts, lists and sets of its own, at every depth, so that changing them changes nothing else.

    Other objects (arrays, models, estimators) stay the same ones.
    """
    if type(value) is dict:
        return {name: each if type(each) in _PLAIN else apart(each) for name, each in value.items()}
    return type(value)(map(apart, value)) if type(value) in (list, tuple, set) else value


def plain_value(value: Any) -> Any:
    """The value where JSON has it, else its printed form."""
    plain = value.item() if isinstance(value, np.generic) else value
    if type(plain) in _PLAIN:  # members of enumerations are none of them
        return plain
    return _ADDRESS.sub("", repr(plain))  # an address is another one in every run
