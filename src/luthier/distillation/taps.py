"""Taps: what modules inside a network give, caught while it runs; and learned maps between widths."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from luthier.batch import Batch, device_of, dtype_of, outputs_of
from luthier.errors import UsageError, unknown
from luthier.model.evaluating import evaluating
from luthier.model.program import Program, Rebuilt
from luthier.surgery.plan import Plan

Tap = str | tuple[str, str]
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm)


class Pair(NamedTuple):
    """A layer of the student and the one of the teacher that it learns from.

    Attributes:
        student: dotted name of its module.
        teacher: dotted name of its module.
        kept: which of the teacher's channels the student still has; None: unknown, or all.
        last: whether channels are the last dimension; None: as in the task's outputs.
    """

    student: str
    teacher: str
    kept: tuple[int, ...] | None = None
    last: bool | None = None

    def of_teacher(self, features: Tensor) -> Tensor:
        """The teacher's features (n, channels, ...) at the channels that the student still has."""
        if self.kept is None:
            return features
        return features.index_select(1, torch.tensor(self.kept, device=features.device))


class Taps:
    """Catches the outputs of modules, by name, while it is open.

    In a network that was rebuilt from its graph there are no modules that run; there a name stands for the operation
    that reads the parameters of that name.

    Args:
        model: the network.
        names: dotted names of its modules.

    Raises:
        UsageError: there is no such module, or in a graph no operation of that name.

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
        self.model, self.names = model, tuple(names)
        self._modules = {name: known[name] for name in names}
        self._caught: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._graph = _Tapped(model.program, names, self._caught) if isinstance(model, Rebuilt) and names else None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return device_of(self.model)

    def __enter__(self) -> Taps:
        if self._graph is not None:
            self._plain: Any = self.model._program
            self.model._program = self._graph  # type: ignore[assignment]
            return self
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._catch(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._graph is not None:
            self.model._program = self._plain
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _catch(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._caught[name] = outputs_of(output).clone()  # what comes next may work in place

        return hook

    def __getitem__(self, name: str) -> Tensor:
        """The newest output of a module.

        Raises:
            UsageError: it has not run.
        """
        if name not in self._caught:
            raise UsageError(f"the tapped module {name!r} did not run", cause="forward() does not call it")
        return self._caught[name]


class _Tapped:
    """A rebuilt network's program that also gives what is tapped; in its place while taps are open."""

    def __init__(self, program: Program, names: Sequence[str], caught: dict[str, Tensor]) -> None:
        self.value = program
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        outputs = list(graph.graph_copy(program.graph, copies))  # type: ignore[arg-type]
        tapped = [_copied(graph, copies[_reader(program.graph, name)]) for name in names]
        graph.output((*outputs, *tapped))
        self._run = Program(graph, program.arguments, program.leaves, program.output).compile()
        self._names, self._caught = tuple(names), caught

    @property
    def function(self) -> Callable[..., Any]:
        """The program's function, which catches on the way."""

        def run(module: nn.Module, *flat: Any) -> Any:
            values = self._run(module, *flat)
            plain = len(values) - len(self._names)
            self._caught.update(zip(self._names, values[plain:], strict=True))
            return values[:plain]

        return run

    def __deepcopy__(self, memo: dict[int, Any]) -> _Tapped:
        return self


def _copied(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """What an operation gives, before what comes next works on it in place."""
    with graph.inserting_after(node):
        return graph.call_function(torch.ops.aten.clone.default, (node,))


def _reader(graph: fx.Graph, name: str) -> fx.Node:
    """The operation that reads a module's own parameters."""
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target).rpartition(".")[0] == name:
            readers: list[fx.Node] = list(node.users)
            return readers[0]
    raise UsageError(
        f"the graph has no operation of the module {name!r} alone",
        expected="a layer with parameters of its own, such as a convolution",
        fix="taps=[('layer', 'layer'), ...] of such layers",
    )


def running(model: nn.Module, batch: Batch) -> set[str]:
    """Names of the modules that give something on a batch; of a rebuilt network those whose parameters it reads."""
    if isinstance(model, Rebuilt):
        return {str(n.target).rpartition(".")[0] for n in model.program.graph.nodes if n.op == "get_attr" and n.users}
    ran: set[str] = set()
    handles = [m.register_forward_hook(lambda *_, name=n: ran.add(name)) for n, m in model.named_modules()]
    try:
        with torch.no_grad(), evaluating(model):
            batch.floating(dtype_of(model)).run(model)
    finally:
        for handle in handles:
            handle.remove()
    return ran


def read_taps(
    student: nn.Module,
    teacher: nn.Module,
    taps: Sequence[Tap] | None,
    plan: Plan | None = None,
    batch: Batch | None = None,
) -> tuple[Pair, ...]:
    """Which module of the student learns from which of the teacher.

    Args:
        student: the network that learns.
        teacher: the one that teaches.
        taps: names that both have, or pairs (student's, teacher's). None: what the plan says; without one the
            outermost modules that both have by name, that hold parameters and run, without the last, whose outputs are
            compared anyway.
        plan: of the cut that made the student out of this teacher: of each outermost module, without the last, the
            last layer whose channels the plan knows; the student's are compared with just those of the teacher's
            that were kept, so that no map has to be learned.
        batch: a small one: without taps, only modules that run on it are paired. None: all are taken to run.

    Raises:
        UsageError: an unknown name, or nothing to pair.
    """
    if taps:
        pairs = tuple(map(_read_tap, [taps] if isinstance(taps, str) else taps))
    else:
        ran = _named(student) if batch is None else running(student, batch) & running(teacher, batch)
        pairs = (_of_plan(student, teacher, plan, ran) if plan is not None else ()) or _shared(student, teacher, ran)
    if not pairs:
        raise UsageError(
            "student and teacher have no modules of the same name",
            expected='taps=[("student.layer", "teacher.layer"), ...]',
            got="no taps",
        )
    Taps(student, [p.student for p in pairs])
    Taps(teacher, [p.teacher for p in pairs])
    return pairs


def _read_tap(tap: Any) -> Pair:
    names = (tap, tap) if isinstance(tap, str) else tap
    if isinstance(names, tuple | list) and len(names) == 2 and all(isinstance(n, str) for n in names):
        return Pair(*names)
    raise UsageError(
        "a tap is no name of a module, nor a pair of them",
        expected='"layer", or ("student.layer", "teacher.layer")',
        got=repr(tap),
    )


def _named(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_modules()}


def _shared(student: nn.Module, teacher: nn.Module, ran: Container[str]) -> tuple[Pair, ...]:
    theirs = dict(teacher.named_children())
    mine = [n for n, m in student.named_children() if n in ran and next(m.parameters(), None) is not None]
    both = [name for name in mine if name in theirs]
    return tuple(Pair(name, name) for name in both[:-1])


def _of_plan(student: nn.Module, teacher: nn.Module, plan: Plan, ran: Container[str]) -> tuple[Pair, ...]:
    """Empty where the plan is not of this teacher."""
    own = {name: list(p.shape) for name, p in teacher.named_parameters(remove_duplicate=False)}
    if any(own.get(name) != list(shape) for name, shape in plan.shapes.items()):
        return ()
    stages: dict[str, Pair] = {}
    there = {name.rpartition(".")[0] for name, _ in student.named_parameters(remove_duplicate=False)} & _known(plan)
    layers = [(n, m) for n, m in teacher.named_modules() if isinstance(m, _LAYERS) and n in there and n in ran]
    depth = _telling_depth([name for name, _ in layers])
    for name, module in layers:
        kept = plan.kept[f"{name}.weight"][-1 if isinstance(module, nn.LayerNorm) else 0]
        stage = ".".join(name.split(".")[:depth])
        indices = None if kept is None else tuple(kept)
        stages[stage] = Pair(name, name, indices, isinstance(module, _CHANNELS_LAST))
    return tuple(list(stages.values())[:-1])


def _known(plan: Plan) -> set[str]:
    return {name.removesuffix(".weight") for name in plan.kept if name.endswith(".weight")}


def _telling_depth(names: Sequence[str]) -> int:
    """How many parts of the names it takes to tell at least three stages apart, or all there are."""
    deepest = max((name.count(".") + 1 for name in names), default=1)
    for depth in range(1, deepest):
        if len({".".join(n.split(".")[:depth]) for n in names}) >= 3:
            return depth
    return deepest


class Maps(nn.Module):
    """Linear maps over channels, one for each pair; learned with the student, then dropped.

    Args:
        widths: for each pair (student's channels, teacher's channels).
        always: whether pairs of the same width are mapped as well.
    """

    def __init__(self, widths: Sequence[tuple[int, int]], always: bool = False) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(s, t, bias=False) if s != t or always else nn.Identity() for s, t in widths)

    def forward(self, index: int, features: Tensor) -> Tensor:
        """(n, student's channels, ...) -> (n, teacher's channels, ...), for pair ``index``."""
        mapped: Tensor = self.maps[index](features.movedim(1, -1)).movedim(-1, 1)
        return mapped
