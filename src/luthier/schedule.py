"""How fast to prune: schedules give the ratio to reach at each step."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.errors import UsageError, unknown

_POWERS = {"linear": 1, "cubic": 3}
_OTHERS = ("one-shot", "iterative")


@dataclass(frozen=True)
class Schedule:
    """The pruned ratio at each step, rising from ``initial`` to ``final``.

    s_t = s_f + (s_i - s_f) (1 - t / n)^p, with p = 3 for "cubic", 1 for "linear"; "one-shot" jumps at once; "iterative"
    removes the same share of what is left each time: 1 - s_t = (1 - s_i) ((1 - s_f) / (1 - s_i))^(t / n).

    Args:
        final: the ratio at the end, in [0, 1].
        steps: n, how many steps until then.
        kind: "one-shot", "linear", "cubic" or "iterative" (of which the final ratio is below 1).
        initial: the ratio at step 0 (of "one-shot" there is none).

    Example:
        >>> [round(Schedule(0.8, steps=4)(t), 3) for t in range(6)]
        [0.0, 0.463, 0.7, 0.788, 0.8, 0.8]

    Source:
        Zhu and Gupta, "To prune, or not to prune", 2017, equation 1; iterative: Han et al., "Learning both weights and
        connections for efficient neural networks", NeurIPS 2015; Frankle and Carbin, ICLR 2019.
    """

    final: float
    steps: int
    kind: str = "cubic"
    initial: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in (*_POWERS, *_OTHERS):
            raise unknown("schedule", self.kind, [*_POWERS, *_OTHERS])
        if self.kind == "iterative" and self.final == 1:
            raise UsageError("no share of what is left leaves nothing", expected="final < 1", got=f"final={self.final}")
        if not 0 <= self.initial <= self.final <= 1 or self.steps < 1:
            raise UsageError(
                "the schedule goes nowhere",
                expected="0 <= initial <= final <= 1 and steps >= 1",
                got=f"initial={self.initial}, final={self.final}, steps={self.steps}",
            )

    def __call__(self, step: int) -> float:
        """The ratio at a step, counted from 0."""
        if self.kind == "one-shot" or step >= self.steps:
            return self.final
        left = 1 - max(step, 0) / self.steps
        if self.kind == "iterative":
            return 1 - float((1 - self.initial) ** left * (1 - self.final) ** (1 - left))
        return self.final + (self.initial - self.final) * left ** _POWERS[self.kind]
