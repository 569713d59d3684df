"""Working on a part: a sub-module that can be captured, inside a model that cannot."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from luthier.errors import UsageError, unknown
from luthier.model.evaluating import evaluating
from luthier.model.trace import Inputs


def part_of(model: nn.Module, inputs: Any, name: str) -> tuple[nn.Module, Inputs]:
    """A sub-module, and what the model gives it on the example inputs (the first time it is called).

    Raises:
        UsageError: there is no such sub-module, or the model does not call it.
    """
    known = dict(model.named_modules())
    if name not in known or not name:
        raise unknown("part", name, [n for n in known if n])
    calls: list[Inputs] = []
    handle = known[name].register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(Inputs(args, kwargs)), with_kwargs=True
    )
    given = Inputs.of(inputs)
    try:
        with evaluating(model), torch.no_grad():
            model(*given.args, **given.kwargs)
    finally:
        handle.remove()
    if not calls:
        raise UsageError(f"the model does not call its part {name!r} on these inputs", fix="name another part")
    return known[name], calls[0].map(lambda t: t.detach().clone())


def inside(names: Sequence[str], part: str) -> list[str]:
    """The names that lie inside a part, as the part knows them."""
    listed = [names] if isinstance(names, str) else names
    return [n.removeprefix(part + ".") for n in listed if n.startswith(part + ".")]


def with_part(model: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """A copy of the model with one sub-module replaced."""
    whole = copy.deepcopy(model, {id(model.get_submodule(name)): new})
    return whole.train(model.training) if new.training != model.training else whole
