"""A budget: how small, how fast, and how much of the metric may go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from luthier.errors import UsageError, nearest
from luthier.metrics import Metric

COSTS = ("latency", "macs", "parameters", "bytes")
_SHORT = {"params": "parameters"}


@dataclass(frozen=True)
class Budget:
    """What a compressed network may cost, as shares of the dense one's, and what the metric may lose.

    Attributes:
        costs: "latency", "macs", "parameters" (or "params"), "bytes" -> largest ratio to dense, in (0, 1].
        loss: how much the main metric may get worse, >= 0; None for any.
        metric: the main metric's name.

    Example:
        >>> from luthier.metrics import metric
        >>> Budget.of({"latency": 0.5, "accuracy": -0.01}, metric("accuracy"))
        Budget(costs={'latency': 0.5}, loss=0.01, metric='accuracy')
    """

    costs: Mapping[str, float]
    loss: float | None = None
    metric: str = ""

    @classmethod
    def of(cls, wanted: Mapping[str, float], main: Metric) -> Budget:
        """Reads ``{"latency": 0.5, "accuracy": -0.01}``.

        Args:
            wanted: costs as ratios; the main metric as its allowed change.
            main: the task's main metric.

        Raises:
            UsageError: an unknown name, or a value out of range.
        """
        if not isinstance(wanted, Mapping):
            raise UsageError("the budget is no dict", expected='{"latency": 0.5}', got=repr(wanted))
        costs, loss = {}, None
        for given, value in wanted.items():
            name = _SHORT.get(given, given)
            if name in costs:
                raise UsageError(f"the budget for {name!r} is given twice", got=", ".join(wanted))
            if name in COSTS:
                costs[name] = _in_range(name, value, 0.0, 1.0, "a share of the dense network's, in (0, 1]")
            elif name == main.name:
                loss = abs(_in_range(name, value, -1e9, 0.0, "the allowed change, such as -0.01 (0 for none)", True))
            else:
                known = [*COSTS, main.name]
                raise UsageError(
                    f"unknown budget {name!r}", expected=", ".join(known), got=repr(name), fix=nearest(name, known)
                )
        return cls(costs, loss, main.name)

    def meets(self, ratios: Mapping[str, float]) -> bool:
        """Whether costs, as ratios to dense, are within the budget."""
        return all(ratios[name] <= limit for name, limit in self.costs.items())

    def to_json(self) -> dict[str, float]:
        """As given."""
        return {**self.costs, **({} if self.loss is None else {self.metric: -self.loss})}

    def __str__(self) -> str:
        parts = [f"{name} <= {limit:g} x dense" for name, limit in self.costs.items()]
        return ", ".join(parts + ([] if self.loss is None else [f"{self.metric} within {self.loss:g} of dense"]))


def _in_range(name: str, value: float, low: float, high: float, expected: str, low_too: bool = False) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low <= value <= high if low_too else low < value <= high):
        raise UsageError(f"the budget for {name!r} is out of range", expected=expected, got=repr(value))
    return float(value)
