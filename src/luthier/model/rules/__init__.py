"""What each tensor operation does to axes. One file is one family of operations.

A file lists its operations in ``RULES``: name -> :class:`Rule`. Nothing else has to be told of a new file.
A rule reads the dimensions of an operation's inputs, ties or freezes them, and returns those of its output;
where the operation's arguments hold sizes, it also rewrites them for a cut; where it multiplies and adds, it
counts. An operation without a rule freezes what it touches.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from luthier import discover
from luthier.model.op import Dims, Op, Result

Infer = Callable[[Op], Result]
Rewrite = Callable[[Op, fx.Node, Callable[[Any], int]], None]
Count = Callable[[Op, Callable[[Any], int]], int]

__all__ = ["Count", "Dims", "Infer", "Op", "Result", "Rewrite", "Rule", "all_rules", "names"]


@dataclass(frozen=True)
class Rule:
    """What an operation does.

    Args:
        infer: ties the dimensions of the inputs and returns those of the output, or of each output.
        rewrite: given the operation, the node of the cut graph and a function from a dimension to its new size,
            changes the arguments that hold sizes.
        macs: multiply-adds, from a function that gives a dimension's size.
    """

    infer: Infer
    rewrite: Rewrite | None = None
    macs: Count | None = None


def names() -> list[str]:
    """The families of operations that there are rules for."""
    return discover.names(__name__)


@functools.cache
def all_rules() -> Mapping[str, Rule]:
    """Every rule by the name of its operation."""
    found: dict[str, Rule] = {}
    for family in names():
        found.update(importlib.import_module(f"{__name__}.{family}").RULES)
    return found
