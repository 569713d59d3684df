"""A teacher's outputs, computed once where the data allow it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset, default_collate

from luthier.answers import OF_NUMBERS, name_of_loss
from luthier.batch import Batch, Layout, device_of, read_batches
from luthier.distillation.disk import Answers, Cache, key_of, stored
from luthier.distillation.teachers import as_several, teach
from luthier.errors import UsageError
from luthier.task import Task

Batches = Callable[[], Iterator[Batch]]
Prepare = Callable[[Any], Any]


def is_fixed(loader: Any) -> bool:
    """Whether every pass shows each of the same examples once: tensors in memory, in plain or shuffled order.

    Whatever a loader does to examples of its own (a data set's or a loader's subclass, ``collate_fn``) may change them.
    """
    return (
        type(loader) is DataLoader
        and type(loader.dataset) is TensorDataset
        and loader.batch_size is not None
        and loader.collate_fn is default_collate
        and _shows_each_once(loader.sampler, len(loader.dataset))
    )


def _shows_each_once(sampler: Any, count: int) -> bool:
    plain = type(sampler) is SequentialSampler or (type(sampler) is RandomSampler and not sampler.replacement)
    return plain and len(sampler) == len(sampler.data_source) == count


def outputs_over(teacher: nn.Module, loader: DataLoader[Any], layout: Layout | None = None) -> Tensor:
    """The teacher's outputs for every example of a fixed loader, in the data set's order; on the CPU."""
    teacher.eval()
    return torch.cat([teach(teacher, b).cpu() for b in _in_order(loader, device_of(teacher), layout)])


def _in_order(loader: DataLoader[Any], device: torch.device, layout: Layout | None) -> Iterator[Batch]:
    plain = DataLoader(loader.dataset, batch_size=loader.batch_size)
    for batch in read_batches(plain, layout=layout):
        yield batch.to(device)


def answers_over(
    teacher: nn.Module, loader: DataLoader[Any], layout: Layout, cache: Cache, tell: Callable[[str], None] | None = None
) -> Answers:
    """The teacher's outputs over a fixed loader, from a cache on disk where they are in it.

    Args:
        teacher: in evaluation mode from here on.
        loader: see :func:`is_fixed`.
        layout: of its batches and of the outputs.
        cache: where.
        tell: given a sentence with the file's size in bytes, before anything is written.
    """
    teacher.eval()
    batch = next(_in_order(loader, device_of(teacher), layout))
    first, dataset = teach(teacher, batch).cpu(), loader.dataset
    inputs = dataset.tensors[: len(batch.inputs)]  # type: ignore[attr-defined]
    count = len(inputs[0])

    def compute() -> Tensor:
        if tell is not None:
            size = cache.bytes(count, layout.outputs(first).shape[1:], first.dtype)
            tell(f"the teacher's outputs for {count:,} examples take {size:,} bytes in {cache.folder}")
        return outputs_over(teacher, loader, layout)

    key = key_of(teacher, inputs, cache, layout.class_dim)
    return stored(cache, key, count, first, compute, layout.class_dim)


def with_teacher(
    teacher: nn.Module | Sequence[nn.Module],
    task: Task,
    known: Tensor | None = None,
    cache: Cache | None = None,
    prepare: Prepare | None = None,
    tell: Callable[[str], None] | None = None,
) -> Batches:
    """The training batches with the teachers' outputs beside them.

    Computed once where the loader holds fixed tensors; at each pass where it does not (augmentation, streams).

    Args:
        teacher: one or several; in evaluation mode from here on.
        task: whose training data.
        known: outputs that :func:`outputs_over` gave earlier, of a single teacher.
        cache: where outputs are kept between runs.
        prepare: makes the loader one for this process, where several work together.
        tell: told how much is written.

    Raises:
        UsageError: a cache, and data that differ from pass to pass; or the likeliest classes of outputs that are none.
    """
    loader: Any = task.loader("train")
    teachers, prepare = as_several(teacher), prepare or (lambda loader: loader)
    for network in teachers:
        network.eval()
    if not is_fixed(loader):
        if cache is not None:
            raise UsageError(
                "the teacher's outputs cannot be cached",
                expected="training data as tensors in memory, each example once a pass: Task(train=(x, y), ...)",
                got=type(loader).__name__,
                cause="a loader may augment or draw: the stored outputs would belong to other examples",
                fix="tensors, or no cache",
            )
        return _on_the_fly(teachers, task, prepare(loader))
    if cache is not None and cache.top_k is not None and name_of_loss(task.loss) in ("bce", *OF_NUMBERS):
        raise UsageError(
            "top_k stores the likeliest classes, and these outputs are no classes that compete",
            expected="a task whose loss is cross_entropy, ctc, or a function of your own",
            got=f"loss={name_of_loss(task.loss)!r}",
            fix="Cache(folder), which stores all",
        )
    layout = task.layout
    if known is not None:
        answers = [Answers((known,))]
    elif cache is not None:
        answers = [answers_over(t, loader, layout, cache, tell) for t in teachers]
    else:
        answers = [Answers((outputs_over(t, loader, layout),)) for t in teachers]
    return _beside(loader, answers, layout, prepare)


def as_cache(cache: Cache | str | Path | None) -> Cache | None:
    """A cache, or a folder as one.

    Raises:
        UsageError: neither.
    """
    if not isinstance(cache, Cache | str | Path | None):
        raise UsageError("this is no cache", expected="a folder, or Cache(folder, top_k=...)", got=repr(cache))
    return Cache(cache) if isinstance(cache, str | Path) else cache


def _on_the_fly(teachers: Sequence[nn.Module], task: Task, loader: Any) -> Batches:
    device = device_of(teachers[0])

    def batches() -> Iterator[Batch]:
        for raw in read_batches(loader, "train", task.layout):
            batch = raw.to(device)
            yield batch.taught(tuple(teach(t, batch) for t in teachers))

    return batches


def _beside(loader: Any, answers: Sequence[Answers], layout: Layout, prepare: Prepare) -> Batches:
    """The loader's examples, in its own order, with the rows of the answers that belong to them."""
    own = loader.dataset.tensors
    rows = TensorDataset(*own, *(part for a in answers for part in a.parts))
    same = {"sampler": loader.sampler, "drop_last": loader.drop_last, "generator": loader.generator}
    beside = prepare(DataLoader(rows, loader.batch_size, **same))

    def batches() -> Iterator[Batch]:
        for item in beside:
            parts = iter(item[len(own) :])
            taught = tuple(a.dense([next(parts) for _ in a.parts]) for a in answers)
            yield layout.read(item[: len(own)], "train").taught(taught)

    return batches
