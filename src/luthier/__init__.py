"""Luthier: tune, prune and distil models; a Pareto front of smaller, faster, proven files.

Names are bound on first use, so that ``import luthier`` loads neither torch nor SQLAlchemy nor plotly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "luthier.space": ("Space", "Float", "Int", "Choice", "Ordinal", "Permutation", "Subset"),
    "luthier.trial": ("Trial", "Status", "TrialStopped"),
    "luthier.errors": ("LuthierError", "UsageError"),
    "luthier.asktell": ("AskTell",),
    "luthier.run": ("Limits",),
    "luthier.study": ("tune", "Study", "load_study"),
    "luthier.task": ("Task",),
    "luthier.metrics": ("Metric",),
    "luthier.train": ("fit",),
    "luthier.measure": ("evaluate",),
    "luthier.measure.profile": ("profile",),
    "luthier.mask": ("prune_weights",),
    "luthier.gradual": ("GradualPruning", "Rewind"),
    "luthier.schedule": ("Schedule",),
    "luthier.surgery": ("prune_neurons",),
    "luthier.distillation": ("distill",),
    "luthier.export": ("save", "load", "export_onnx"),
    "luthier.compression": ("compress",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_PARTS = ("search", "stop", "pareto")

__all__ = [
    "__version__",
    *_HOME,
    *_PARTS,
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(_room(_HOME[name], name), name)
    elif name in _PARTS:
        value = importlib.import_module(f"luthier.{name}")
    else:
        raise AttributeError(f"module 'luthier' has no attribute {name!r}")
    globals()[name] = value
    return value


def _room(home: str, name: str) -> Any:
    """Imports what holds a public name; says what to install where PyTorch is missing."""
    try:
        return importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchmetrics", "safetensors"):
            raise
        from luthier.extras import need

        need(error.name, "torch", f"luthier.{name}")
        raise


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from luthier import pareto, search, stop
    from luthier.asktell import AskTell
    from luthier.errors import LuthierError, UsageError
    from luthier.space import Choice, Float, Int, Ordinal, Permutation, Space, Subset
    from luthier.trial import Status, Trial, TrialStopped
