"""One BLAS thread while an algorithm thinks."""

from __future__ import annotations

from contextlib import AbstractContextManager
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

    def __call__(self) -> AbstractContextManager[Any]:
        """The limit, as a context."""
        limit: AbstractContextManager[Any] = self._controller.limit(limits=1)
        return limit
