"""What a cut gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from luthier.model import Coverage
from luthier.surgery.blueprint import Blueprint
from luthier.surgery.plan import Plan
from luthier.surgery.verify import Proof


@dataclass(frozen=True)
class Pruned:
    """A smaller network, what was cut, and the proof.

    Args:
        model: the new module; the original is untouched.
        plan: what stays of every tensor.
        coverage: how much of the original could be cut at all.
        check: the proofs.
        target: "module" (a copy of the user's class) or "graph" (rebuilt from the captured graph).
        why: why that target.
        blueprint: what a file must hold beside the weights, whichever target it is.
        part: the sub-module that was cut, "" if it was the whole model; names in the plan are the part's own.
    """

    model: nn.Module
    plan: Plan
    coverage: Coverage
    check: tuple[Proof, ...]
    target: str
    why: str
    blueprint: Blueprint = field(repr=False)
    part: str = ""

    @property
    def dynamic(self) -> tuple[str, ...]:
        """Which dimensions of the inputs may have other sizes than the example's, by the captured graph, in words."""
        return self.blueprint.program.dynamic

    def __str__(self) -> str:
        target, dynamic = f"target: {self.target} ({self.why})", f"inputs: {'; '.join(self.dynamic)}"
        return "\n".join([str(self.plan), target, dynamic, *map(str, self.check)])
