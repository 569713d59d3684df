"""Optional dependencies: imported where they are used, with one clear sentence where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from luthier.errors import MissingExtra


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports an optional module.

    Args:
        module: its import name.
        extra: the extra of this package that installs it.
        purpose: what it is needed for, in words.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(
            f"{purpose} needs the package {module.split('.')[0]!r}",
            expected=f"{module.split('.')[0]} installed",
            got="no such package in this environment",
            fix=f"pip install 'luthier[{extra}]'",
        ) from None
