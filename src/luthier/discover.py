"""Finds methods by their files: one file is one method, its name is the file's, its object is ``METHOD``.

Nothing is registered by importing: a method's file is imported when its name is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import Any

from luthier.errors import unknown


def names(package: str) -> list[str]:
    """The methods in a package, sorted, without importing them.

    Example:
        >>> "random" in names("luthier.search")
        True
    """
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return sorted(m.name for m in pkgutil.iter_modules(places) if not m.name.startswith("_"))


def load(package: str, name: str, kind: str) -> Any:
    """The ``METHOD`` of ``package.name``.

    Args:
        package: dotted name of the folder.
        name: the method's name.
        kind: what a user calls such a method, for the error ("algorithm", "criterion").

    Raises:
        UsageError: there is no such method; the message lists those there are.
    """
    known = names(package)
    if name not in known:
        raise unknown(kind, name, known)
    return importlib.import_module(f"{package}.{name}").METHOD


def summary(package: str, name: str) -> str:
    """The first line of a method's documentation."""
    method = importlib.import_module(f"{package}.{name}").METHOD
    return (method.__doc__ or "").strip().split("\n")[0]


def attribute(package: str, name: str) -> Any:
    """Finds ``package.ClassName`` for a package's ``__getattr__``: the class is the METHOD of its lower-case file.

    Raises:
        AttributeError: there is no such method.
    """
    if not name.startswith("_") and name.lower() in names(package):
        method = importlib.import_module(f"{package}.{name.lower()}").METHOD
        if method.__name__ == name:
            return method
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
