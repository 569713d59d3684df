"""Taps: what modules inside a network give, caught while it runs; and learned maps between widths."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from luthier.errors import UsageError, unknown
from luthier.measure.quality import outputs_of

Pairs = tuple[tuple[str, str], ...]
Tap = str | tuple[str, str]


class Taps:
    """Catches the outputs of modules, by name, while it is open.

    Args:
        model: the network.
        names: dotted names of its modules.

    Raises:
        UsageError: there is no such module.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with Taps(net, ["0"]) as taps:
        ...     _ = net(torch.zeros(1, 2))
        >>> taps["0"].shape
        torch.Size([1, 3])
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        known = dict(model.named_modules())
        for name in names:
            if name not in known:
                raise unknown("module", name, [n for n in known if n])
        self._modules = {name: known[name] for name in names}
        self._caught: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Taps:
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._catch(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _catch(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._caught[name] = outputs_of(output)

        return hook

    def __getitem__(self, name: str) -> Tensor:
        """The newest output of a module.

        Raises:
            UsageError: it has not run.
        """
        if name not in self._caught:
            raise UsageError(f"the tapped module {name!r} did not run", cause="forward() does not call it")
        return self._caught[name]


def read_taps(student: nn.Module, teacher: nn.Module, taps: Sequence[Tap] | None) -> Pairs:
    """Which module of the student learns from which of the teacher.

    Args:
        student: the network that learns.
        teacher: the one that teaches.
        taps: names that both have, or pairs (student's, teacher's). None: the outermost modules that both have by
            name and that hold parameters, without the last, whose outputs are compared anyway; after a cut these
            are the layers that belong together.

    Raises:
        UsageError: an unknown name, or nothing to pair.
    """
    pairs = tuple((t, t) if isinstance(t, str) else (t[0], t[1]) for t in taps) if taps else _shared(student, teacher)
    if not pairs:
        raise UsageError(
            "student and teacher have no modules of the same name",
            expected='taps=[("student.layer", "teacher.layer"), ...]',
            got="no taps",
        )
    Taps(student, [s for s, _ in pairs])
    Taps(teacher, [t for _, t in pairs])
    return pairs


def _shared(student: nn.Module, teacher: nn.Module) -> Pairs:
    theirs = dict(teacher.named_children())
    both = [n for n, m in student.named_children() if n in theirs and next(m.parameters(), None) is not None]
    return tuple((name, name) for name in both[:-1])


class Maps(nn.Module):
    """Linear maps over channels, one for each pair whose widths differ; learned with the student, then dropped.

    Args:
        widths: for each pair (student's channels, teacher's channels).
    """

    def __init__(self, widths: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(s, t, bias=False) if s != t else nn.Identity() for s, t in widths)

    def forward(self, index: int, features: Tensor) -> Tensor:
        """(n, student's channels, ...) -> (n, teacher's channels, ...), for pair ``index``."""
        mapped: Tensor = self.maps[index](features.movedim(1, -1)).movedim(-1, 1)
        return mapped
