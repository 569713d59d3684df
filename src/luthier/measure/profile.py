"""The profile of a network: what it costs, where, and how much of it can be cut."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from rich.tree import Tree
from torch import Tensor, nn

from luthier.errors import LuthierError, UsageError
from luthier.export.onnx import read_inputs
from luthier.measure.latency import Latency, measure
from luthier.measure.onnx_file import two_of, write_onnx
from luthier.measure.table import Predictor, Table
from luthier.model import Analysis, analyse
from luthier.model.cost import counting
from luthier.model.evaluating import evaluating
from luthier.model.keras import network_of
from luthier.words import number, printed


@dataclass(frozen=True)
class Layer:
    """A module's own cost, its children's included.

    Attributes:
        name: dotted; "" for the whole network.
        kind: its class.
        parameters: how many numbers it holds.
        macs: multiply-accumulates per example.
        ms: of its operations, each timed alone in ONNX Runtime on one thread with the given batch; None where the
            network could not be captured.
    """

    name: str
    kind: str
    parameters: int
    macs: int
    ms: float | None = None


@dataclass(frozen=True)
class Profile:
    """What a network costs and how much of it can be cut. Print it with rich for a tree.

    Attributes:
        parameters: how many numbers.
        macs: multiply-accumulates per example.
        bytes: of the ONNX file; of the parameters where it cannot be exported.
        latency: ONNX Runtime, 1 thread, on the given batch; None where it cannot be exported.
        batch_size: of the latency.
        layers: every module, outermost first.
        analysis: the axes that can be cut; None where the graph cannot be captured.
        remarks: what could not be measured, and why.
    """

    parameters: int
    macs: int
    bytes: int
    latency: Latency | None
    batch_size: int
    layers: tuple[Layer, ...]
    analysis: Analysis | None
    remarks: tuple[str, ...] = ()

    @property
    def coverage(self) -> Any:
        """Share of parameters and MACs that can be cut, and what blocks the rest."""
        return self.analysis.coverage if self.analysis else None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "parameters": self.parameters,
            "macs": self.macs,
            "bytes": self.bytes,
            "latency": asdict(self.latency) if self.latency else None,
            "batch_size": self.batch_size,
            "layers": [asdict(layer) for layer in self.layers],
            "coverage": asdict(self.analysis.coverage) if self.analysis else None,
            "remarks": list(self.remarks),
        }

    def __str__(self) -> str:
        return printed(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        speed = "not measured"
        if self.latency:
            speed = f"{self.latency.ms:.3f} ms [{self.latency.low:.3f}, {self.latency.high:.3f}]"
        yield Text(
            f"{number(self.parameters)} parameters, {number(self.macs)} MACs per example, {number(self.bytes)}B, "
            f"latency {speed} (ONNX Runtime, 1 thread, batch {self.batch_size})"
        )
        yield _tree(self.layers, self.macs, self.parameters)
        if self.analysis:
            yield Text(str(self.analysis.coverage))
        for remark in self.remarks:
            yield Text(remark, style="yellow")


def _tree(layers: Sequence[Layer], macs: int, parameters: int) -> Tree:
    """Modules that cost something, as they are nested."""
    nodes: dict[str, Tree] = {}
    whole = (layers[0].ms or 0.0) if layers else 0.0
    for layer in layers:
        if layer.name and not layer.parameters and not layer.macs:
            continue
        outer, _, own = layer.name.rpartition(".")
        label = Text.assemble((own or layer.kind, "bold"), (f"  {layer.kind}" if own else "", "dim"))
        for count, total, unit in ((layer.parameters, parameters, "parameters"), (layer.macs, macs, "MACs")):
            label.append(f"   {number(count)} {unit} ", style="" if count else "dim")
            label.append(f"{count / max(total, 1):.0%}", style="bold cyan" if count > total / 5 else "dim")
        if layer.ms is not None and whole:
            label.append(f"   {layer.ms:.3f} ms ", style="" if layer.ms else "dim")
            label.append(f"{layer.ms / whole:.0%}", style="bold cyan" if layer.ms > whole / 5 else "dim")
        nodes[layer.name] = nodes[outer].add(label) if layer.name else Tree(label)
    return nodes[""]


def profile(model: Any, inputs: Tensor | Sequence[Tensor], rounds: int = 25) -> Profile:
    """Measures a network: parameters, MACs, bytes, latency, and how much of it can be cut.

    Args:
        model: a torch module, or a result with ``.model``; not changed.
        inputs: one batch; its size is the latency's.
        rounds: samples of the latency.

    Returns:
        the profile; what cannot be exported is not timed, and says why.

    Raises:
        UsageError: no module.
    """
    module = network_of(model)
    if not isinstance(module, nn.Module):
        raise UsageError("only models can be profiled", expected="a torch.nn.Module", got=type(model).__name__)
    batch = read_inputs(inputs)
    remarks: list[str] = []
    with evaluating(module):
        layers = count_layers(module, tuple(x[:1] for x in batch))
        latency, size = _timed(module, batch, rounds, remarks)
        analysis = _analysed(module, batch, remarks)
    layers = _with_times(layers, analysis) if analysis and latency else layers
    whole = layers[0]
    size = size or sum(t.numel() * t.element_size() for t in module.state_dict().values())
    return Profile(whole.parameters, whole.macs, size, latency, len(batch[0]), layers, analysis, tuple(remarks))


def count_layers(module: nn.Module, one: tuple[Tensor, ...]) -> tuple[Layer, ...]:
    """Every module's parameters and MACs for one example, counted by torch's own counter."""
    with torch.no_grad(), counting() as counter:
        module(*one)
    flops: Mapping[str, Mapping[Any, int]] = counter.get_flop_counts()
    by_name = {key.partition(".")[2]: sum(ops.values()) for key, ops in flops.items() if key != "Global"}
    by_name[""] = counter.get_total_flops()
    return tuple(
        Layer(name, type(part).__name__, sum(p.numel() for p in part.parameters()), by_name.get(name, 0) // 2)
        for name, part in module.named_modules()
    )


def _with_times(layers: tuple[Layer, ...], analysis: Analysis) -> tuple[Layer, ...]:
    """The layers with the time of the operations that run inside each."""
    table = Table.here()
    times: dict[str, float] = defaultdict(float)
    for node, ms in Predictor(analysis, table).by_operation().items():
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = str(stack[-1][0]).split("@")[0] if stack else ""
        while path:
            times[path] += ms
            path = path.rpartition(".")[0]
        times[""] += ms
    table.save()
    return tuple(replace(layer, ms=times[layer.name]) for layer in layers)


def _timed(module: nn.Module, batch: tuple[Tensor, ...], rounds: int, remarks: list[str]) -> tuple[Latency | None, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            write_onnx(module, path, batch)
        except LuthierError as error:
            remarks.append(f"Not timed. {error}")
            return None, 0
        return measure({"model": path}, batch, rounds)["model"], path.stat().st_size


def _analysed(module: nn.Module, batch: tuple[Tensor, ...], remarks: list[str]) -> Analysis | None:
    try:
        return analyse(module, tuple(two_of(x) for x in batch))
    except LuthierError as error:
        remarks.append(f"What can be cut is unknown. {error}")
        return None
