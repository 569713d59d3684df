"""Batches: what goes into a model and what should come out, read from whatever a loader gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from luthier.errors import UsageError

Target = Tensor | tuple[Tensor, ...]
IGNORED = -100  # a target that counts neither in a loss nor in a metric, as in torch
_LABELS = ("labels", "label", "target", "targets")
_LENGTHS = ("frame_lengths", "label_lengths")


@dataclass(frozen=True)
class Batch:
    """One batch: what goes into the model, and what should come out.

    Attributes:
        inputs: positional arguments of the model.
        target: what the loss takes: a tensor, or several.
        teacher: outputs of each teacher for these inputs, where they are known.
        named: arguments by name, of batches that are dicts.
    """

    inputs: tuple[Tensor, ...]
    target: Target
    teacher: tuple[Tensor, ...] | None = None
    named: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many examples it holds."""
        return len(self.target if isinstance(self.target, Tensor) else self.target[0])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            tuple(x.to(device) for x in self.inputs),
            self.target.to(device) if isinstance(self.target, Tensor) else _moved(self.target, device),
            None if self.teacher is None else _moved(self.teacher, device),
            {name: x.to(device) for name, x in self.named.items()},
        )

    def floating(self, dtype: torch.dtype | None) -> Batch:
        """The same batch with floating-point inputs of that type; None: as they are."""

        def cast(x: Tensor) -> Tensor:
            return x.to(dtype) if dtype is not None and x.is_floating_point() else x

        return replace(self, inputs=tuple(map(cast, self.inputs)), named={n: cast(x) for n, x in self.named.items()})

    def run(self, model: Any) -> Any:
        """What a model gives for the inputs."""
        return model(*self.inputs, **self.named)

    def taught(self, teacher: tuple[Tensor, ...]) -> Batch:
        """The same batch with the teachers' outputs beside it."""
        return replace(self, teacher=teacher)


def _moved(tensors: Iterable[Tensor], device: torch.device | str) -> tuple[Tensor, ...]:
    return tuple(x.to(device) for x in tensors)


def outputs_of(result: Any) -> Tensor:
    """The tensor that metrics look at: the model's result, or its first part (``logits`` where it has them).

    Raises:
        UsageError: the result holds no tensor.
    """
    if isinstance(result, Tensor):
        return result
    logits = result.get("logits") if isinstance(result, dict) else getattr(result, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    first = next(iter(result.values()), None) if isinstance(result, dict) else None
    first = result[0] if isinstance(result, tuple | list) and result else first
    if isinstance(first, Tensor):
        return first
    raise UsageError("the model's result holds no tensor", expected="a tensor, or one first", got=type(result).__name__)


@dataclass(frozen=True)
class Layout:
    """How batches and outputs are laid out.

    Args:
        targets: how many tensors at the end of a batch are its target.
        class_dim: the dimension of the outputs that holds the classes.

    Raises:
        UsageError: no whole numbers, or no target at all.
    """

    targets: int = 1
    class_dim: int = 1

    def __post_init__(self) -> None:
        if type(self.targets) is not int or self.targets < 1:
            raise UsageError("'targets' is out of range", expected="a whole number >= 1", got=repr(self.targets))
        if type(self.class_dim) is not int or self.class_dim == 0:
            raise UsageError(
                "'class_dim' is no dimension of classes", expected="1, or -1 for the last", got=repr(self.class_dim)
            )

    def outputs(self, result: Any) -> Tensor:
        """What a model gave, as (n, classes, ...)."""
        outputs = outputs_of(result)
        return outputs if self.class_dim == 1 or outputs.ndim < 3 else outputs.movedim(self.class_dim, 1)

    def read(self, item: Any, part: str = "data") -> Batch:
        """One item of a loader as a :class:`Batch`.

        Raises:
            UsageError: it is neither (input, ..., target) nor a dict with labels.
        """
        if isinstance(item, Batch):
            return item
        if isinstance(item, Mapping):
            return _from_dict(item, part)
        if not isinstance(item, tuple | list) or len(item) <= self.targets or not _are_tensors(item):
            raise UsageError(
                f"a batch of the {part} loader cannot be read",
                expected=f"(input, ..., {', '.join(['target'] * self.targets)}), all tensors, or a dict with 'labels'",
                got=f"{type(item).__name__}" + (_listed(item) if isinstance(item, tuple | list) else ""),
            )
        if not all(t.ndim for t in item[-self.targets :] if isinstance(t, Tensor)):
            raise UsageError(
                f"the {part} loader gives single examples",
                expected="batches, examples in their first dimension",
                got="a target without dimensions",
                fix="a DataLoader with batch_size=..., which puts examples together",
            )
        rest, last = tuple(item[: -self.targets]), tuple(item[-self.targets :])
        if len(last) > 1:
            return Batch(rest, last)
        return Batch(rest, last[0] if isinstance(last[0], Tensor) else tuple(last[0]))


def _are_tensors(item: tuple[Any, ...] | list[Any]) -> bool:
    """Whether these are all tensors; the last may be several, as a target."""
    *rest, last = item
    several = last if isinstance(last, tuple | list) and last else (last,)
    return all(isinstance(x, Tensor) for x in (*rest, *several))


def _listed(item: tuple[Any, ...] | list[Any]) -> str:
    kinds = ", ".join(type(x).__name__ for x in item[:4])
    return f" of {len(item)}: {kinds}{', ...' if len(item) > 4 else ''}"


def holds_labels(item: Any) -> bool:
    """Whether a batch is a dict that holds its target."""
    return isinstance(item, Mapping) and bool(_labels_of(item))


def _labels_of(item: Mapping[str, Any]) -> list[str]:
    return [name for name in _LABELS if isinstance(item.get(name), Tensor)]


def _from_dict(item: Mapping[str, Any], part: str) -> Batch:
    """Labels by their usual names, with their lengths where given; every other tensor is an argument.

    Whole-numbered labels of the attention mask's shape do not count outside it; an encoder's mask says nothing about
    a decoder's labels.
    """
    found = _labels_of(item)
    if not found:
        raise UsageError(
            f"a batch of the {part} loader has no labels",
            expected="a dict with one of " + ", ".join(map(repr, _LABELS)),
            got=sorted(map(str, item)),
        )
    lengths = [item[name] for name in _LENGTHS if isinstance(item.get(name), Tensor)]
    known = {found[0], *_LENGTHS}
    named = {str(k): v for k, v in item.items() if k not in known and isinstance(v, Tensor)}
    labels, mask = item[found[0]], named.get("attention_mask")
    if any(name.startswith("decoder_") for name in named) or lengths or labels.is_floating_point():
        mask = None
    if mask is not None and mask.shape == labels.shape:
        labels = labels.long().masked_fill(mask == 0, IGNORED)
    return Batch((), (labels, *lengths) if lengths else labels, named=named)


def read_batches(loader: Iterable[Any], part: str = "data", layout: Layout | None = None) -> Iterator[Batch]:
    """Reads a loader's batches as :class:`Batch`.

    Raises:
        UsageError: there are none, or one cannot be read.
    """
    layout, empty = layout or Layout(), True
    for item in loader:
        empty = False
        yield layout.read(item, part)
    if empty:
        raise UsageError(
            f"the {part} loader is empty",
            expected="at least one batch",
            got="none",
            cause="an empty split, drop_last=True with few examples, or a generator that was used up",
        )


def as_loader(data: Any, part: str = "data", batch_size: int = 64, shuffle: bool = False) -> Iterable[Any]:
    """Reads what a user gave as data: a loader stays one, a pair of tensors or arrays becomes one.

    Raises:
        UsageError: neither, or tensors of different lengths.
    """
    if isinstance(data, tuple | list) and len(data) >= 2 and all(_is_array(d) for d in data):
        tensors = [torch.as_tensor(d) for d in data]
        lengths = [len(d) for d in tensors]
        if len(set(lengths)) > 1:
            raise UsageError(f"the tensors of {part!r} differ in length", expected="equal lengths", got=lengths)
        if not lengths[0]:
            return []
        return DataLoader(TensorDataset(*tensors), batch_size=batch_size, shuffle=shuffle)
    if iter_once(data) or isinstance(data, str) or not hasattr(data, "__iter__"):
        raise UsageError(
            f"the {part + ' ' if part != 'data' else ''}data is not a loader",
            expected="a DataLoader, a list of batches, or a pair of tensors",
            got=type(data).__name__,
            cause="a generator can be gone through only once" if iter_once(data) else None,
            fix="DataLoader(dataset, batch_size=...)"
            if hasattr(data, "__getitem__") and not isinstance(data, str)
            else None,
        )
    loader: Iterable[Any] = data
    return loader


def _is_array(data: Any) -> bool:
    return isinstance(data, Tensor) or (hasattr(data, "__array__") and hasattr(data, "dtype") and data.ndim > 0)


def iter_once(data: Any) -> bool:
    """Whether it is an iterator, which is used up by the first pass."""
    return isinstance(data, Iterator)


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter or buffer; the CPU where it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """The floating-point type of a model's first parameter; None where it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def check_precision(model: nn.Module, batch: Batch) -> None:
    """Refuses a batch that is not of the model's precision.

    Raises:
        UsageError: inputs of another floating-point type than the parameters, outside autocast.
    """
    own = dtype_of(model)
    for x in (*batch.inputs, *batch.named.values()):
        if own is not None and x.is_floating_point() and x.dtype != own and not torch.is_autocast_enabled():
            raise UsageError(
                "model and data differ in precision",
                expected=f"inputs of {own}, as the model's parameters",
                got=x.dtype,
                fix="model.to(x.dtype), or convert the data",
            )
