"""Evaluation mode for as long as something looks at a network; everything as it was afterwards."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_CAUSAL = "_detect_is_causal_mask"  # private to PyTorch: where a version lacks it, there is nothing to replace


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and plain attention instead of PyTorch's fused fast path; all put back afterwards.

    PyTorch's transformer layers look at a mask's values to see whether it is causal, which no capture can follow; the
    answer changes only which kernel they take.
    """
    modes = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        with _PLAIN:
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _as_said(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    return is_causal is True


class _PlainAttention:
    """PyTorch's switches are the whole process's: the first to come in turns them, the last to leave puts them back."""

    def __init__(self) -> None:
        self.lock, self.depth = threading.Lock(), 0
        self.before: tuple[bool, Any] = (True, None)

    def __enter__(self) -> None:
        with self.lock:
            if not self.depth:
                self.before = torch.backends.mha.get_fastpath_enabled(), getattr(nn.modules.transformer, _CAUSAL, None)
                self._set(False, _as_said)
            self.depth += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.depth -= 1
            if not self.depth:
                self._set(*self.before)

    def _set(self, fast: bool, causal: Any) -> None:
        torch.backends.mha.set_fastpath_enabled(fast)
        if self.before[1] is not None:
            setattr(nn.modules.transformer, _CAUSAL, causal)


_PLAIN = _PlainAttention()
