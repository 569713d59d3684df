"""Makes the objective ready for the journey to another process."""

from __future__ import annotations

import functools
import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

import cloudpickle

from luthier.errors import UsageError
from luthier.run import Work


def pack(work: Work) -> bytes:
    """The objective and what it must return, as bytes for a worker.

    A module that a fresh interpreter could not import travels by value.

    Raises:
        UsageError: something in the objective cannot be sent.
    """
    home = _home(work.objective)
    by_value = (
        home is not None and not _importable(home) and home.__name__ not in cloudpickle.list_registry_pickle_by_value()
    )
    if home is not None and by_value:
        cloudpickle.register_pickle_by_value(home)
    try:
        return bytes(cloudpickle.dumps((work.objective, work.objectives)))
    except Exception as error:
        raise UsageError(
            "the objective cannot be sent to worker processes",
            expected="an objective whose data can be pickled",
            got=f"{type(error).__name__}: {str(error)[:300]}",
            cause="it holds an open file, a lock, a connection, a generator ...",
            fix='open such things inside the objective, or use executor="inline"',
        ) from error
    finally:
        if home is not None and by_value:
            cloudpickle.unregister_pickle_by_value(home)


def _home(objective: Any) -> ModuleType | None:
    """The module that an objective was written in."""
    while isinstance(objective, functools.partial):
        objective = objective.func
    name = getattr(objective, "__module__", None) or type(objective).__module__
    return None if name == "__main__" else sys.modules.get(name)


def _importable(module: ModuleType) -> bool:
    """Whether a fresh interpreter with the same path would find this very file under this name."""
    path: Any = None
    spec = None
    prefix = ""
    for part in module.__name__.split("."):
        prefix += part
        spec = PathFinder.find_spec(prefix, path)
        if spec is None:
            return module.__name__ in sys.builtin_module_names
        path = spec.submodule_search_locations
        prefix += "."
    return spec is not None and (spec.origin == getattr(module, "__file__", None))
