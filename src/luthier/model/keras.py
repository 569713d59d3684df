"""Keras 3 models as torch modules: their variables become parameters and buffers, their layers run as they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from luthier.errors import UsageError

_WIDTHS = {
    "units": (("recurrent_kernel", 0), ("kernel", -1)),
    "filters": (("pointwise_kernel", -1), ("kernel", -1), ("kernel", -2)),
    "output_dim": (("embeddings", -1),),
    "num_heads": (("query/kernel", 1),),
    "key_dim": (("query/kernel", 2),),
    "value_dim": (("value/kernel", 2),),
}
"""What a layer's configuration calls a width -> the variables, and their dimensions, that have it."""


def network_of(model: Any) -> Any:
    """What a verb works on: a result's ``.model``, a Keras model as a torch module; anything else as it is.

    Raises:
        UsageError: a Keras model that runs on another backend, or has no weights yet.
    """
    inner = inner_of(model)
    return KerasModule(inner) if is_keras(inner) else inner


def inner_of(model: Any) -> Any:
    """A result's ``.model``; a network as it is, which may well have a part of that name."""
    return model if isinstance(model, nn.Module) or is_keras(model) else getattr(model, "model", model)


def give_back(network: Any, model: Any) -> None:
    """Puts what a network has learnt into the Keras model that it was made of; of others nothing is to be done."""
    inner = inner_of(model)
    if is_keras(inner):
        network.write(inner)


def is_keras(model: Any) -> bool:
    """Whether it is a Keras layer or model; Keras is not loaded for that."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Layer)


def no_keras(model: Any, what: str) -> None:
    """Refuses a Keras model where the same tensors are looked at again and again.

    Raises:
        UsageError: it is one.
    """
    if is_keras(model):
        raise UsageError(
            f"{what} needs the torch module of a Keras model",
            got=type(model).__name__,
            fix="from luthier.model.keras import KerasModule; net = KerasModule(model) ... net.to_keras()",
        )


class KerasLayer(nn.Module):
    """The tensors of one layer."""


class KerasModule(nn.Module):
    """A Keras 3 model as a torch module, with weights of its own.

    Parameters and buffers are named as Keras names its variables: ``dense.kernel``, ``conv2d.bias``. Dropout and batch
    norms follow ``train()`` and ``eval()``. Where the tensors are cut, the layers get the widths that fit.

    Args:
        model: a built Keras model on the torch backend; not changed.

    Raises:
        UsageError: it runs on another backend, or has no weights yet.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        _check(model)
        self._held = _Held(model)
        learnt = {id(v) for layer in model._flatten_layers() for v in layer._trainable_variables}
        self._paths = [self._take(v.path.removeprefix(f"{model.name}/"), v, id(v) in learnt) for v in model.variables]
        self._moving = {name for name, _ in self.named_buffers()}
        self.train(False)

    def _take(self, path: str, variable: Any, learnt: bool) -> str:
        """Registers a variable's value under the variable's name, and says which that is."""
        *places, leaf = path.replace(".", "_").split("/")
        owner: nn.Module = self
        for part in places:
            name = part + "_" * (hasattr(owner, part) and part not in owner._modules)
            if name not in owner._modules:
                owner.add_module(name, KerasLayer())
            owner = owner.get_submodule(name)
        while hasattr(owner, leaf):
            leaf += "_"
        value = variable.value.detach().clone()
        if learnt:
            owner.register_parameter(leaf, nn.Parameter(value, requires_grad=variable.trainable))
        else:
            owner.register_buffer(leaf, value)
        home = next(name for name, module in self.named_modules() if module is owner)
        return f"{home}.{leaf}".removeprefix(".")

    def _tensors(self) -> list[Tensor]:
        """The values of Keras' variables, in Keras' order."""
        split = [path.rpartition(".") for path in self._paths]
        return [getattr(self.get_submodule(owner), leaf) for owner, _, leaf in split]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Runs the Keras layers on this module's tensors."""
        keras, values = sys.modules["keras"], self._tensors()
        variables = self._fitted(values).variables
        given = named or (inputs[0] if len(inputs) == 1 else list(inputs))
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            result = self._held.model(given, training=self.training)
        if self.training:
            with torch.no_grad():
                for path, variable, old in zip(self._paths, variables, values, strict=True):
                    if path in self._moving:
                        old.copy_(scope.get_current_value(variable))
        return result

    def _fitted(self, values: Sequence[Tensor]) -> Any:
        """The Keras model of these widths."""
        shapes = [tuple(v.shape) for v in values]
        if shapes != [tuple(v.shape) for v in self._held.model.variables]:
            self._held = _Held(_resized(self._held.model, shapes))
        return self._held.model

    def write(self, model: Any) -> None:
        """Puts this module's tensors into a Keras model of the same widths."""
        for variable, value in zip(model.variables, self._tensors(), strict=True):
            variable.assign(value.detach())

    def to_keras(self) -> Any:
        """A new Keras model with this module's widths and weights; ``.save("small.keras")`` keeps it.

        Raises:
            UsageError: a model that Keras itself cannot copy, such as one of a class of your own.
        """
        values = self._tensors()
        made = _resized(self._fitted(values), [tuple(v.shape) for v in values])
        self.write(made)
        return made


class _Held:
    """A Keras model that modules and their copies share: its layers count, not its weights."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __deepcopy__(self, memo: dict[int, Any]) -> _Held:
        return self


def _check(model: Any) -> None:
    backend = sys.modules["keras"].backend.backend()
    if backend != "torch":
        raise UsageError(
            "this Keras model does not run on PyTorch",
            expected="KERAS_BACKEND=torch, set before Keras is imported",
            got=f"the backend {backend}",
            fix='model.save("model.keras") there, keras.saving.load_model("model.keras") on the torch backend',
        )
    if not model.built or not model.variables:
        raise UsageError("this Keras model has no weights yet", fix="start it with keras.Input(...), or call it once")


def _resized(model: Any, shapes: Sequence[tuple[int, ...]]) -> Any:
    """A copy of a Keras model whose variables have these shapes."""
    after = {v.path: shape for v, shape in zip(model.variables, shapes, strict=True)}

    def copied(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), **_widths(layer, after)})

    try:
        made = sys.modules["keras"].models.clone_model(model, clone_function=copied)
    except Exception as error:
        raise UsageError(
            f"{type(model).__name__} cannot be made anew by Keras",
            expected="a Sequential or functional model of layers whose configuration says their width",
            cause=" ".join(str(error).split())[:200],
        ) from error
    got = [tuple(v.shape) for v in made.variables]
    if got != list(shapes):
        wrong = next((v.path for v, a, b in zip(made.variables, got, shapes, strict=False) if a != b), "a variable")
        raise UsageError(f"no Keras layer of the new widths is known: {wrong} has others")
    return made


def _widths(layer: Any, after: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The entries of a layer's configuration that its variables' new shapes change."""
    config, changed = layer.get_config(), {}
    for name in _WIDTHS.keys() & config.keys():
        for leaf, dim in _WIDTHS[name]:
            found = next((v for v in layer.variables if f"/{v.path}".endswith(f"/{leaf}")), None)
            if found is not None and found.shape[dim] == config[name]:
                changed[name] = after[found.path][dim]
                break
    return changed
