"""Checks of the algorithms' own settings, made where they are given."""

from __future__ import annotations

import math
from numbers import Integral, Real

from luthier.errors import UsageError


def whole(owner: object, least: int, **settings: object) -> None:
    """Whole numbers, ``least`` at least.

    Raises:
        UsageError: one that is not.
    """
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise _refusal(owner, name, value, f"a whole number, {name} >= {least}")


def real(owner: object, low: float, high: float, **settings: object) -> None:
    """Finite numbers, low <= value <= high.

    Raises:
        UsageError: one that is not.
    """
    for name, value in settings.items():
        fits = isinstance(value, Real) and low <= float(value) <= high and math.isfinite(value)
        if isinstance(value, bool) or not fits:
            above = f"a number, {name} >= {low:g}"
            raise _refusal(owner, name, value, above if math.isinf(high) else f"{low:g} <= {name} <= {high:g}")


def _refusal(owner: object, name: str, value: object, expected: str) -> UsageError:
    return UsageError(f"{type(owner).__name__}: {name!r} cannot be used", expected=expected, got=repr(value))
