"""Proofs, always on: the cut network against the masked one, operation by operation, in double precision."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from luthier.errors import CheckError
from luthier.keys import Key
from luthier.model import Analysis, Program, axes, cost
from luthier.model.compare import SAME, difference, flat, repeatable
from luthier.model.evaluating import evaluating
from luthier.model.lengths import resized
from luthier.model.op import Dim
from luthier.model.refusals import does_not_run
from luthier.model.run import call, run
from luthier.model.trace import Inputs
from luthier.surgery.countable import countable
from luthier.surgery.cut import kept_of, sliced
from luthier.surgery.plan import Plan

EXACT = 1e-9
"""Largest relative difference of two computations in double precision that are the same in exact arithmetic."""


@dataclass(frozen=True)
class Proof:
    """One property that was measured.

    Args:
        name: such as "cut == masked".
        error: the largest relative difference found.
        limit: what it must stay below.
        words: what was compared, and how.
    """

    name: str
    error: float
    limit: float
    words: str

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit; a NaN is not."""
        return self.error <= self.limit

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name}: {self.error:.1e} <= {self.limit:.0e} ({self.words})"


def demand(proofs: Sequence[Proof]) -> tuple[Proof, ...]:
    """The proofs, if all of them hold.

    Raises:
        CheckError: one does not.
    """
    for proof in proofs:
        if not proof.passed:
            raise CheckError(
                f"the proof {proof.name!r} failed: {proof.words}",
                expected=f"an error of at most {proof.limit:.0e}",
                got=f"{proof.error:.3e}",
                cause="an operation of this network does more to its dimensions than its rule says",
                fix="report the network; until then protect the modules around the cut",
            )
    return tuple(proofs)


def verify(
    analysis: Analysis,
    plan: Plan,
    program: Program,
    copies: Mapping[fx.Node, fx.Node],
    state: Mapping[str, torch.Tensor],
) -> list[Proof]:
    """Compares a cut graph with the masked original on the example inputs.

    Masked means: the original with the removed elements of every parameter zeroed, biases and shifts too, so
    that a removed channel emits nothing; a normalisation over cut features takes its statistics over what is
    left. Both run in float64, and the cut one's operations are counted.

    Args:
        analysis: of the original.
        plan: what stays.
        program: the cut graph.
        copies: from each original node to its copy in the cut graph.
        state: the cut tensors, as they will be used.
    """
    pair = _Pair(analysis, plan, program, copies)
    inputs = doubled(analysis.traced.inputs)
    with torch.no_grad():
        with cost.counting() as after, _running():
            got = pair.cut(inputs)
        with cost.counting() as before:
            error = difference(got, pair.masked(inputs))
        others = doubled(resized(analysis.traced.inputs, program.lengths))
        if any(x.tried for x in program.lengths):
            with _running():
                got = pair.cut(others)
            error = max(error, difference(got, pair.masked(others)))
    saved = (before.get_total_flops() - after.get_total_flops()) // 2
    predicted = plan.macs[0] - plan.macs[1]
    lengths = ", two lengths" if any(x.tried for x in program.lengths) else ""
    return [
        _are_slices(analysis.traced.state, state, plan),
        Proof("cut == masked", error, EXACT, f"float64, weights shaken, removed elements zeroed, biases too{lengths}"),
        Proof(
            "predicted cost == counted cost",
            abs(saved - predicted) / max(plan.macs[0], 1),
            0.0,
            f"{predicted:,} MACs saved by prediction, {saved:,} by PyTorch's counter",
        ),
    ]


class _Pair:
    """The cut graph and the masked original, both in double precision with shaken weights."""

    def __init__(self, analysis: Analysis, plan: Plan, program: Program, copies: Mapping[fx.Node, fx.Node]) -> None:
        self.traced, self.plan = analysis.traced, plan
        self.wide, self.small = _in_double(self.traced.program), _in_double(program, copies)
        keep = cost.keep_axes(analysis, plan.groups)
        self.survivors = _Survivors(analysis, keep, self.wide, self.small, copies)

    def cut(self, inputs: Inputs) -> list[Any]:
        """What the cut graph gives."""
        state = Lazy(self.traced.state, lambda n, t: sliced(_shaken(n, t), kept_of(self.plan, n)))
        with repeatable():
            return run(self.traced, state, inputs, program=self.small.program)

    def masked(self, inputs: Inputs) -> list[Any]:
        """What the masked original gives."""
        state = Lazy(self.traced.state, lambda n, t: masked(_shaken(n, t), self.plan.kept.get(n)))
        with repeatable():
            return run(self.traced, state, inputs, program=self.wide.program, step=self.survivors)


def faithful(analysis: Analysis) -> Proof:
    """Whether the captured graph computes what the model does."""
    traced = analysis.traced
    try:
        model = module_outputs(analysis.model, _copied(traced.inputs))
    except Exception as error:
        raise does_not_run(analysis.model, error) from error
    with torch.no_grad(), repeatable():
        graph = run(traced, Lazy(traced.state, lambda _, t: t.detach().clone()), _copied(traced.inputs))
    return Proof("graph == model", difference(graph, model), SAME, "the captured graph on the example inputs")


def module_outputs(model: nn.Module, inputs: Inputs) -> list[Any]:
    """A module's outputs in evaluation mode, flat; its mode is put back."""
    with evaluating(model), torch.no_grad(), repeatable():
        return flat(model(*inputs.args, **inputs.kwargs))


@contextlib.contextmanager
def _running() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise CheckError(
            "the cut network does not run",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            cause="an operation that takes these widths for something else, or a rule that misses one of its sizes",
            fix="cut to other widths (multiple=, minimum=), or protect the modules around that operation",
        ) from error


def _are_slices(whole: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], plan: Plan) -> Proof:
    """Whether the tensors that will be used are, bit for bit, what the plan keeps of the original's."""
    wrong = [n for n, t in whole.items() if n not in state or not _identical(sliced(t, kept_of(plan, n)), state[n])]
    words = "every tensor, bit for bit" if not wrong else "not so: " + ", ".join(wrong[:3])
    return Proof("tensors == slices", float(len(wrong)), 0.0, words)


def _identical(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())


class Lazy(Mapping[str, torch.Tensor]):
    """Tensors by name, each made when it is asked for, so that no second copy of a network has to fit in memory."""

    def __init__(self, state: Mapping[str, torch.Tensor], change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
        self._state, self._change = state, change

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._change(name, self._state[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def shaken(state: Mapping[str, torch.Tensor]) -> Lazy:
    """The tensors in float64 with a little noise, so that nothing hides behind zeros, ones and equal values.

    A freshly initialised network has shifts of zero, scales of one and branches that begin at zero: a wrong cut
    would not show on them.
    """
    return Lazy(state, _shaken)


def _shaken(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return _noisy(name, tensor) if tensor.is_floating_point() else tensor.detach().cpu().clone()


def _noisy(name: str, tensor: torch.Tensor) -> torch.Tensor:
    out = tensor.detach().to("cpu", torch.float64, copy=True)
    if not out.numel() or not (isinstance(tensor, nn.Parameter) or name.endswith(("running_mean", "running_var"))):
        return out
    spread = out.square().mean().sqrt().clamp_min(0.2 if out.dim() <= 1 else 0.02)
    generator = torch.Generator().manual_seed(Key(0).integer(name))
    noise = torch.randn(out.shape, generator=generator, dtype=torch.float32)
    if name.endswith("running_var"):
        noise.abs_()
    return out.add_(noise, alpha=0.2 * float(spread)) if torch.isfinite(spread) else out


def masked(tensor: torch.Tensor, dims: Sequence[Sequence[int] | None] | None) -> torch.Tensor:
    """Zeroes, in place, what is removed of a parameter. Buffers and constants have no entry, and stay."""
    for i, index in enumerate(dims or []):
        if index is not None:
            gone = torch.ones(tensor.shape[i], dtype=torch.bool)
            gone[list(index)] = False
            tensor.index_fill_(i, gone.nonzero().flatten(), 0)
    return tensor


def same_module(module: nn.Module, graph: nn.Module, analysis: Analysis, plan: Plan) -> Proof:
    """Whether the sliced class computes what the cut graph does: as they are, and with shaken weights."""
    inputs = analysis.traced.inputs
    error = difference(module_outputs(module, inputs), module_outputs(graph, inputs))
    state = Lazy(analysis.traced.state, lambda n, t: sliced(_shaken(n, t), kept_of(plan, n)))
    twins = [_with(copy.deepcopy(m), state) for m in (module, graph)]
    error = max(error, difference(*(module_outputs(m, inputs) for m in twins)))
    return Proof("module == graph", error, SAME, "the sliced class and the cut graph, as they are and shaken")


def _with(module: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(state[name])
    return module


def doubled(inputs: Inputs) -> Inputs:
    """The inputs in float64."""
    return inputs.map(lambda t: t.detach().double() if t.is_floating_point() else t.detach().clone())


def _copied(inputs: Inputs) -> Inputs:
    return inputs.map(lambda t: t.detach().clone())


@dataclass(frozen=True)
class _Wide:
    """A program whose fixed floating types are all float64, and where each node went."""

    program: Program
    node: Mapping[fx.Node, fx.Node]


def _in_double(program: Program, origin: Mapping[fx.Node, fx.Node] | None = None) -> _Wide:
    graph, made = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in program.graph.nodes:
        new = graph.node_copy(node, lambda n: made[n])
        new.target = countable(node)
        new.args, new.kwargs = pytree.tree_map_only(torch.dtype, _widest, (new.args, new.kwargs))
        made[node] = new
    return _Wide(replace(program, graph=graph), made)


def _widest(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype.is_floating_point else dtype


class _Survivors:
    """Computes normalisations of the masked network over what is left: slice, compute as the cut one does, put back."""

    def __init__(
        self, analysis: Analysis, keep: axes.Keep, wide: _Wide, cut: _Wide, copies: Mapping[fx.Node, fx.Node]
    ) -> None:
        self.keep, self.dims = keep, analysis.facts.dims
        self.pairs = {
            wide.node[n]: (n, cut.node[copies[n]])
            for n in analysis.facts.statistics
            if any(self._cut(d) for source in n.all_input_nodes for d in self._of(source))
        }
        self.back = {new: old for old, new in wide.node.items()}

    def _of(self, node: fx.Node) -> list[Dim]:
        return [d for d in self.dims.get(node) or [] if isinstance(d, Dim)]

    def _cut(self, d: Dim) -> bool:
        return axes.touches(d.expr, self.keep)

    def __call__(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        if node not in self.pairs:
            return NotImplemented
        original, twin = self.pairs[node]
        sliced = {}
        for mine, its in zip(node.all_input_nodes, twin.all_input_nodes, strict=True):
            sliced[its] = self._slice(values[mine], self._of(self.back[mine]))
        return self._put_back(call(twin, sliced), self.dims[original])

    def _slice(self, value: Any, dims: list[Dim]) -> Any:
        for i, d in enumerate(dims):
            if self._cut(d):
                value = value.index_select(i, torch.from_numpy(axes.kept(d.expr, self.keep)))
        return value

    def _put_back(self, value: Any, dims: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._put_back(v, d) for v, d in zip(value, dims, strict=True)]
        for i, d in enumerate(dims):
            if self._cut(d):
                shape = [*value.shape[:i], d.size, *value.shape[i + 1 :]]
                full = value.new_zeros(shape)
                value = full.index_copy_(i, torch.from_numpy(axes.kept(d.expr, self.keep)), value)
        return value
