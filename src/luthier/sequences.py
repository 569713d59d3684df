"""Sequences: positions that count, and transcripts read from a frame-wise classifier (CTC)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from luthier.batch import IGNORED, Batch, Target
from luthier.errors import UsageError

BLANK = 0


class Transcripts(NamedTuple):
    """Targets without alignment.

    Attributes:
        labels: class numbers, shape (n, longest); what is beyond a transcript's end does not count.
        frames: how many frames of the outputs count, shape (n,).
        lengths: how many labels count, shape (n,).
    """

    labels: Tensor
    frames: Tensor
    lengths: Tensor


def read_transcripts(outputs: Tensor, target: Target) -> Transcripts:
    """Transcripts for outputs of shape (n, classes, frames).

    Args:
        outputs: what the model gives.
        target: labels padded with negative numbers; or (labels, label lengths); or (labels, frame lengths, label
            lengths).

    Raises:
        UsageError: shapes or lengths that do not fit.
    """
    parts = (target,) if isinstance(target, Tensor) else tuple(target)
    labels = parts[0]
    if outputs.ndim != 3 or labels.ndim != 2 or len(labels) != len(outputs) or labels.is_floating_point():
        raise UsageError(
            "outputs and transcripts do not fit",
            expected="outputs of shape (n, classes, frames) and whole numbers of shape (n, longest)",
            got=f"{tuple(outputs.shape)} and {tuple(labels.shape)}",
            cause="outputs of shape (n, frames, classes): Task(..., class_dim=-1)",
        )
    whole = torch.full((len(labels),), outputs.shape[2], device=labels.device)
    frames = parts[1].reshape(-1).long() if len(parts) == 3 else whole
    lengths = parts[-1].reshape(-1).long() if len(parts) > 1 else (labels >= 0).sum(1)
    for name, value, most in (("frame", frames, outputs.shape[2]), ("label", lengths, labels.shape[1])):
        if len(value) != len(labels) or int(value.min()) < 0 or int(value.max()) > most:
            raise UsageError(
                f"the {name} lengths do not fit", expected=f"{len(labels)} numbers from 0 to {most}", got=value.tolist()
            )
    used = labels[torch.arange(labels.shape[1], device=labels.device) < lengths[:, None]]
    if used.numel() and (int(used.min()) < 0 or int(used.max()) >= outputs.shape[1] or bool((used == BLANK).any())):
        raise UsageError(
            "the labels are not classes of this model",
            expected=f"whole numbers from 1 to {outputs.shape[1] - 1}; {BLANK} is the blank",
            got=f"{int(used.min())} to {int(used.max())}",
        )
    return Transcripts(labels.long(), frames, lengths)


def ctc(outputs: Tensor, target: Target) -> Tensor:
    """Connectionist temporal classification: -log of the probability of all alignments, over the label's length.

    Args:
        outputs: shape (n, classes, frames); class 0 is the blank.
        target: see :func:`read_transcripts`. A transcript too long for its frames counts as 0.

    Source:
        Graves et al., "Connectionist temporal classification", ICML 2006, equation 12.
    """
    labels, frames, lengths = read_transcripts(outputs, target)
    logs = F.log_softmax(outputs, 1).permute(2, 0, 1)
    return F.ctc_loss(logs, labels.clamp_min(0), frames, lengths, blank=BLANK, zero_infinity=True)


def read_greedily(outputs: Tensor, frames: Tensor) -> list[list[int]]:
    """The likeliest class of each frame, repeats merged, blanks dropped.

    Example:
        >>> frames = torch.tensor([[0, 1, 1, 0, 1, 2, 2, 0]])
        >>> read_greedily(F.one_hot(frames, 3).movedim(-1, 1).float(), torch.tensor([7]))
        [[1, 1, 2]]
    """
    best = outputs.argmax(1)
    changed = torch.ones_like(best, dtype=torch.bool)
    changed[:, 1:] = best[:, 1:] != best[:, :-1]
    within = torch.arange(best.shape[1], device=best.device) < frames[:, None]
    keep = changed & (best != BLANK) & within
    return [row[kept].tolist() for row, kept in zip(best, keep, strict=True)]


def positions(batch: Batch, outputs: Tensor) -> Tensor | None:
    """Which positions, or examples, of outputs (n, classes, ...) count, as booleans (n, ...); None for all.

    Those within a transcript's frame lengths; those whose class is not -100; those of the attention mask.
    """
    shape = (outputs.shape[0], *outputs.shape[2:])
    numbers = isinstance(batch.target, Tensor) and batch.target.is_floating_point()
    if outputs.ndim < 2 or (outputs.ndim == 2 and numbers):
        return None
    found = [_of_target(batch.target, shape)]
    attended = batch.named.get("attention_mask")
    if attended is not None and tuple(attended.shape) == shape:
        found.append(attended.bool())
    masks = [mask for mask in found if mask is not None]
    return torch.stack(masks).all(0) if masks else None


def _of_target(target: Target, shape: tuple[int, ...]) -> Tensor | None:
    if isinstance(target, Tensor):
        ignored = target == IGNORED
        return ~ignored if tuple(target.shape) == shape and bool(ignored.any()) else None
    if len(target) == 3 and len(shape) == 2:
        return torch.arange(shape[1], device=target[1].device) < target[1].reshape(-1)[:, None]
    return None


def at(values: Tensor, mask: Tensor | None) -> Tensor:
    """Outputs at the positions that count: (n, classes, ...) -> (positions, classes); targets (n, ...) -> (positions,).

    Example:
        >>> at(torch.zeros(2, 5, 3), torch.tensor([[True, True, False], [True, False, False]])).shape
        torch.Size([3, 5])
    """
    if mask is None:
        return values
    return values[mask] if values.ndim == mask.ndim else values.movedim(1, -1)[mask]


def nothing(outputs: Tensor) -> Tensor:
    """The loss of outputs of which nothing counts: 0, as is its gradient; a mean over none would be NaN.

    Example:
        >>> nothing(torch.full((2, 5), float("nan")))
        tensor(0.)
    """
    return outputs[:0].sum()


def joined(outputs: Sequence[Tensor], targets: Sequence[Target]) -> tuple[Tensor, Target]:
    """Batches put together. Where they differ in positions, no score sees what was put in to make them fit.

    Outputs and targets that go position by position are then laid out flat: (positions, classes) and (positions,), or
    with a number for each class (positions, classes) and (positions, classes), or number by number (numbers,) and
    (numbers,). Transcripts are padded, their lengths said beside them.

    Raises:
        UsageError: batches of different lengths whose targets are neither.
    """
    if _alike(outputs) and all(_alike(part) for part in _parts(targets)):
        return torch.cat(list(outputs)), _as_given(targets, [torch.cat(list(part)) for part in _parts(targets)])
    for flat in (_by_position, _by_share, _by_number):
        pairs = [flat(x, t) for x, t in zip(outputs, targets, strict=True)]
        whole = [pair for pair in pairs if pair is not None]
        if len(whole) == len(pairs) and _alike([x for x, _ in whole]):
            return torch.cat([x for x, _ in whole]), torch.cat([t for _, t in whole])
    if not all(_are_transcripts(x, t) for x, t in zip(outputs, targets, strict=True)):
        raise UsageError(
            "batches of different lengths cannot be scored together",
            expected="a target for each position, or transcripts",
            got=f"outputs of shapes {sorted({tuple(x.shape[1:]) for x in outputs})}",
            fix="batches of one length",
        )
    if not _alike(outputs):
        targets = [_with_frames(x, t) for x, t in zip(outputs, targets, strict=True)]
    return _padded(outputs, 0.0), _as_given(targets, [_padded(part, IGNORED) for part in _parts(targets)])


def _alike(parts: Sequence[Tensor]) -> bool:
    return len({p.shape[1:] for p in parts}) <= 1


def _parts(targets: Sequence[Target]) -> list[tuple[Tensor, ...]]:
    """Each of a target's tensors, over all batches."""
    return list(zip(*((t,) if isinstance(t, Tensor) else t for t in targets), strict=True))


def _as_given(targets: Sequence[Target], parts: Sequence[Tensor]) -> Target:
    return parts[0] if isinstance(targets[0], Tensor) else tuple(parts)


def _by_position(outputs: Tensor, target: Target) -> tuple[Tensor, Tensor] | None:
    """Classes (positions, classes) and their numbers (positions,); None where the target is something else."""
    if not isinstance(target, Tensor) or target.is_floating_point() or outputs.ndim < 3:
        return None
    index = target.squeeze(1) if target.ndim == outputs.ndim and target.shape[1] == 1 else target
    if outputs.shape[1] == 1 or index.shape != (outputs.shape[0], *outputs.shape[2:]):
        return None
    return outputs.movedim(1, -1).flatten(0, -2), index.flatten()


def _by_share(outputs: Tensor, target: Target) -> tuple[Tensor, Tensor] | None:
    """Classes (positions, classes) and a number for each of them; None where there is not one for one."""
    if not isinstance(target, Tensor) or outputs.ndim < 3 or outputs.shape[1] == 1 or target.shape != outputs.shape:
        return None
    return outputs.movedim(1, -1).flatten(0, -2), target.movedim(1, -1).flatten(0, -2)


def _by_number(outputs: Tensor, target: Target) -> tuple[Tensor, Tensor] | None:
    """Numbers (numbers,) and (numbers,); None where there is not one for one."""
    if not isinstance(target, Tensor):
        return None
    mine, theirs = ([s for s in x.shape if s != 1] for x in (outputs, target))
    return (outputs.flatten(), target.flatten()) if mine == theirs else None


def _are_transcripts(outputs: Tensor, target: Target) -> bool:
    """Whether these are outputs (n, classes, frames) and labels with lengths beside them, see read_transcripts."""
    labels, *lengths = (target,) if isinstance(target, Tensor) else target
    whole = all(not part.is_floating_point() for part in (labels, *lengths))
    each = all(part.numel() == len(labels) for part in lengths)
    return outputs.ndim == 3 and labels.ndim == 2 and whole and each and len(lengths) <= 2


def _with_frames(outputs: Tensor, target: Target) -> Target:
    """(labels, frame lengths, label lengths), so that what is put in after a batch's frames is not read."""
    labels, *lengths = (target,) if isinstance(target, Tensor) else target
    if len(lengths) == 2:
        return target
    return labels, torch.full((len(outputs),), outputs.shape[2]), lengths[0] if lengths else (labels >= 0).sum(1)


def _padded(parts: Sequence[Tensor], value: float) -> Tensor:
    """(n, ...) after (m, ...), each padded at the end of its dimensions to the largest."""
    if _alike(parts):
        return torch.cat(list(parts))
    most = [max(sizes) for sizes in zip(*(p.shape[1:] for p in parts), strict=True)]
    grown = [F.pad(p, [n for s, m in zip(reversed(p.shape[1:]), reversed(most), strict=True) for n in (0, m - s)],
                   value=value) for p in parts]  # fmt: skip
    return torch.cat(grown)
