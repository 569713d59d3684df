"""What goes on beside the loop: the sign of life, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from luthier.errors import StoreError

_BEAT = 5.0  # seconds between two signs of life


class Heart(threading.Thread):
    """Shows that the driver lives, every few seconds, while an objective may keep it busy."""

    def __init__(self, beat: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="luthier-heart")
        self._beat = beat
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(_BEAT):
            quietly(self._beat)  # a lost lease shows at the next write

    def stop(self) -> None:
        """Ends the thread."""
        self._over.set()
        if self.is_alive():
            self.join()


class Interrupts:
    """Ctrl-C once: count it; twice: KeyboardInterrupt. Leaves other handlers and other threads alone."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self.count = 0
        self._heard = heard
        self._old: Any = None

    def __enter__(self) -> Interrupts:
        mine = threading.current_thread() is threading.main_thread()
        if mine and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._old = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)

    def _take(self, _signal: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        self._heard()


def quietly(act: Callable[[], None]) -> None:
    """Does it, and lets errors of the store pass."""
    with contextlib.suppress(StoreError):
        act()
