"""One file that holds a network: safetensors with the graph, the plan and digests as JSON. No pickle, no class."""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from luthier.errors import CheckError, LuthierError, UsageError
from luthier.extras import need
from luthier.files import whole
from luthier.model import Rebuilt
from luthier.model.compare import SAME, difference, flat
from luthier.model.keras import network_of
from luthier.model.trace import Inputs, trace
from luthier.surgery import Plan, Pruned
from luthier.surgery.blueprint import Blueprint
from luthier.surgery.module import place

VERSION = 1
_KIND = "luthier"
_BITS, _FEW = "bits of indices", 8


def save(model: nn.Module | Pruned, path: str | os.PathLike[str], inputs: Any = None) -> Path:
    """Writes a network to one file, whole or not at all.

    Args:
        model: a pruned result; or any module, with example inputs unless it came from :func:`load`.
        path: where to.
        inputs: example inputs of a module that was not cut: a tensor, a tuple or a dict.

    Returns:
        the path.

    Raises:
        UsageError: a plain module without inputs, or a folder that cannot be written.
        TraceError: the module cannot be captured as a graph.

    Example:
        >>> import tempfile
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> file = save(net, tempfile.mkdtemp() + "/net.luthier", inputs=torch.zeros(2, 2))
        >>> torch.equal(load(file)(torch.ones(5, 2)), net(torch.ones(5, 2)))
        True
    """
    module, blueprint, plan = _described(model, inputs)
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in blueprint.tensors(module).items()}
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    body = {
        "version": VERSION,
        "blueprint": blueprint.to_json(),
        "plan": _packed(plan.to_json()) if plan is not None else None,
        "trained": trained,
        "tensors": {name: _digest(t) for name, t in tensors.items()},
    }
    text = json.dumps(body, sort_keys=True)
    metadata = {_KIND: text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return _write(tensors, metadata, Path(path))


def load(path: str | os.PathLike[str], into: nn.Module | None = None) -> nn.Module:
    """Reads a network from a file.

    Args:
        path: a file that :func:`save` wrote.
        into: None for a module that needs no class; or a freshly built network of the user's class, whose
            layers are resized and filled.

    Returns:
        the network in evaluation mode; with ``into``, that very object.

    Raises:
        UsageError: no such file, not a file of Luthier's, damaged, or written by a newer version.
        CheckError: ``into`` computes something else than what was saved.
    """
    body, tensors = _read(Path(path))
    try:
        blueprint = Blueprint.from_json(body["blueprint"], tensors)
        rebuilt = blueprint.build(tensors).eval()
        trained = set(body["trained"])
    except LuthierError:
        raise
    except Exception as error:
        raise _damaged(Path(path), f"{type(error).__name__}: {error}") from error
    for name, parameter in rebuilt.named_parameters():
        parameter.requires_grad_(name in trained)
    return rebuilt if into is None else _filled(network_of(into), blueprint, rebuilt, tensors)


def load_plan(path: str | os.PathLike[str]) -> Plan | None:
    """The plan that a file's network was cut by; None where it was not cut."""
    body, _ = _read(Path(path))
    return Plan.from_json(_unpacked(body["plan"])) if body["plan"] is not None else None


def _packed(value: Any) -> Any:
    """Plain data with long rising lists of indices as bits, so that a plan takes little room beside the weights."""
    if isinstance(value, dict):
        return {name: _packed(v) for name, v in value.items()}
    if not isinstance(value, list):
        return value
    rising = len(value) > _FEW and all(type(v) is int for v in value) and value[0] >= 0
    if rising and all(a < b for a, b in itertools.pairwise(value)):
        bits = np.zeros(value[-1] + 1, dtype=bool)
        bits[value] = True
        return {_BITS: base64.b64encode(np.packbits(bits).tobytes()).decode()}
    return [_packed(v) for v in value]


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(v) for v in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {_BITS}:
        found = np.frombuffer(base64.b64decode(value[_BITS]), dtype=np.uint8)
        return np.flatnonzero(np.unpackbits(found)).tolist()
    return {name: _unpacked(v) for name, v in value.items()}


def _described(model: nn.Module | Pruned, inputs: Any) -> tuple[nn.Module, Blueprint, Plan | None]:
    if isinstance(model, Pruned) and model.part:
        raise UsageError(
            f"only the part {model.part!r} of this model was captured, so the whole has no stored form",
            fix=f"save(pruned.model.get_submodule({model.part!r}), path, inputs=...), and keep the rest yourself",
        )
    if isinstance(model, Pruned):
        return model.model, model.blueprint, model.plan
    model = network_of(model)
    if not isinstance(model, nn.Module):
        raise UsageError("only networks can be saved", expected="a module or a pruned result", got=type(model).__name__)
    if isinstance(model, Rebuilt) and inputs is None:
        return model, Blueprint.of_rebuilt(model), None
    if inputs is None:
        raise UsageError(
            f"a {type(model).__name__} needs example inputs to be saved without its class",
            expected="save(model, path, inputs=example)",
            got="inputs=None",
        )
    traced = trace(model, inputs)
    return model, Blueprint.of(traced, traced.program, traced.state, {}, "module"), None


def _digest(tensor: torch.Tensor) -> str:
    raw = tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor.reshape(-1)
    return hashlib.sha256(raw.numpy().tobytes() if tensor.numel() else b"").hexdigest()


def _write(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str], path: Path) -> Path:
    save_file = need("safetensors.torch", "torch", "saving networks").save_file
    full = need("safetensors", "torch", "saving networks").SafetensorError
    with whole(path, full=(full,)) as draft:
        save_file(dict(tensors), draft, metadata=metadata)
    return path


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The JSON and the tensors of a file, every digest checked."""
    opening = need("safetensors", "torch", "loading networks")
    if not path.is_file():
        raise UsageError(f"there is no file {path}", got="nothing" if not path.exists() else "a folder")
    try:
        with opening.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise _damaged(path, str(error)) from error
    text = metadata.get(_KIND)
    if text is None:
        raise UsageError(f"{path} is no file of Luthier's", expected="a file written by luthier.save")
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get("sha256"):
        raise _damaged(path, "its description does not match its digest")
    body: dict[str, Any] = json.loads(text)
    if body.get("version") != VERSION:
        raise UsageError(
            f"{path} was written in another format",
            expected=f"version {VERSION} or older",
            got=f"version {body.get('version')}",
            fix="update Luthier: pip install --upgrade luthier",
        )
    wrong = [n for n, digest in body["tensors"].items() if n not in tensors or _digest(tensors[n]) != digest]
    if wrong or set(tensors) != set(body["tensors"]):
        raise _damaged(path, "these tensors do not match their digests: " + ", ".join(wrong[:4]))
    return body, tensors


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is damaged and was not loaded",
        expected="a file as luthier.save wrote it",
        got=why[:300],
        cause="an interrupted copy or download, or an edited file",
        fix="fetch or save the file again",
    )


def _filled(into: nn.Module, blueprint: Blueprint, rebuilt: Rebuilt, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """Fills a network of the user's class, and checks it against the stored graph."""
    if blueprint.target != "module":
        raise UsageError(
            f"this network was cut in ways that {type(into).__name__} cannot hold",
            cause="its code has sizes written into it",
            fix="load(path) without into= gives a module that runs the stored graph",
        )
    place(into, tensors, blueprint.ties, blueprint.constants, blueprint.attributes)
    into.eval()
    inputs = blueprint.inputs()
    with torch.no_grad():
        expected = flat(rebuilt(*inputs.args))
        got = flat(copy.deepcopy(into)(*inputs.args))
    error = difference(got, expected)
    if not error <= SAME:
        raise CheckError(
            f"{type(into).__name__} computes something else than the network that was saved",
            expected=f"a relative difference of at most {SAME:.0e}",
            got=f"{error:.2e}",
            cause="another class, or other settings of it",
        )
    return into


__all__ = ["Inputs", "load", "load_plan", "save"]
