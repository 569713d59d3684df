"""The errors a user can meet. Each says what went wrong, what was expected, what came, why, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class LuthierError(Exception):
    """Base of the family; never raised itself.

    Args:
        what: one line, the fact.
        expected: what would have been right, in symbols or numbers.
        got: what came instead.
        cause: the likely reason.
        fix: what to do next.

    Example:
        >>> print(UsageError("'low' is above 'high'", expected="low <= high", got="low=2, high=1"))
        'low' is above 'high'
          expected: low <= high
          got:      low=2, high=1
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        expected: object = None,
        got: object = None,
        cause: object = None,
        fix: object = None,
    ) -> None:
        details = {"expected": expected, "got": got, "cause": cause, "fix": fix}
        self.what = what
        self.details = {name: str(text) for name, text in details.items() if text is not None}
        lines = [f"  {name + ':':<9} {text}" for name, text in self.details.items()]
        super().__init__("\n".join([what, *lines]))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.details)


def _rebuild(kind: type[LuthierError], what: str, details: dict[str, str]) -> LuthierError:
    return kind(what, **details)


class UsageError(LuthierError, ValueError):
    """An argument, name or file that cannot be used as given. Nothing was started."""

    exit_code = 2


class ObjectiveError(LuthierError):
    """An objective returned something that is not a result."""


class StoreError(LuthierError):
    """A store that cannot be read, is newer than this version, or is driven by somebody else."""


class TraceError(LuthierError):
    """A model whose graph cannot be captured."""


class CheckError(LuthierError):
    """A proof that failed: the files must not be used."""


class OutputError(LuthierError):
    """A file that cannot be written: a full disk, a folder without permission."""


class BudgetError(LuthierError):
    """A budget that no plan can meet."""


class MissingExtra(LuthierError, ImportError):
    """An optional dependency that is not installed."""

    exit_code = 2


def nearest(name: object, names: Iterable[object]) -> str | None:
    """A hint for a misspelt name: ``did you mean 'x'?``, or None; what is no text is passed over.

    Example:
        >>> nearest("momentun", ["lr", "momentum"])
        "did you mean 'momentum'?"
    """
    known = {other.casefold(): other for other in names if isinstance(other, str)}
    close = difflib.get_close_matches(name.casefold(), list(known), n=1) if isinstance(name, str) else []
    return f"did you mean {known[close[0]]!r}?" if close else None


def unknown(kind: str, name: str, names: Iterable[str]) -> UsageError:
    """The error for a name that is none of ``names``."""
    known = sorted(names)
    return UsageError(
        f"unknown {kind} {name!r}",
        expected="one of " + ", ".join(known) if known else f"no {kind} at all",
        got=repr(name),
        fix=nearest(name, known),
    )
