"""One BLAS thread while an algorithm thinks."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from threadpoolctl import ThreadpoolController


class OneThread:
    """Limits BLAS and OpenMP to one thread for a while.

    The matrices of a search are small, so that more threads only wait for each other (many times slower on a
    busy machine), and for the same results bit for bit the order of every sum must be the same.

    Example:
        >>> with OneThread()():
        ...     pass
    """

    def __init__(self) -> None:
        self._controller = ThreadpoolController()
        self._known = _loaded()

    def __call__(self) -> AbstractContextManager[Any]:
        """The limit, as a context; nothing is done where one thread is all there is."""
        if self._known != _loaded():
            self._controller, self._known = ThreadpoolController(), _loaded()
        if all(library.num_threads == 1 for library in self._controller.lib_controllers):
            return nullcontext()
        limit: AbstractContextManager[Any] = self._controller.limit(limits=1)
        return limit

    def __reduce__(self) -> tuple[type[OneThread], tuple[()]]:
        return OneThread, ()


def _loaded() -> bool:
    """Whether scipy's own BLAS is there, which algorithms load when they first need it."""
    return "scipy.linalg" in sys.modules
