"""What a model's state holds, as bytes: the one way to tell two of them apart."""

from __future__ import annotations

import io
import re
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def printed(value: Any) -> str:
    """How an object is printed, the same in every process: without the places in memory that are in it.

    Example:
        >>> printed([len, object()])
        '[<built-in function len>, <object object>]'
    """
    return _ADDRESS.sub("", repr(value))


def as_bytes(value: Any) -> bytes:
    """Bytes that stand for an entry of a ``state_dict()``, or for a text.

    Args:
        value: a tensor, of which it is the numbers; or anything else, which a module's ``get_extra_state`` may put in.
            Tensors within containers count by their numbers, objects by how they are printed, without addresses.

    Example:
        >>> as_bytes(torch.zeros(2, dtype=torch.uint8))
        b'\\x00\\x00'
        >>> as_bytes({"scale": 2}) == as_bytes({"scale": 3})
        False
    """
    if isinstance(value, Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1)
        return raw.view(torch.uint8).numpy().tobytes() if raw.numel() else b""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, io.BytesIO):
        return value.getvalue()
    if isinstance(value, str):
        return value.encode()
    leaves, form = pytree.tree_flatten(value)
    if len(leaves) == 1 and leaves[0] is value:
        return printed(value).encode()
    return str(form).encode() + b"".join(b"\0" + as_bytes(leaf) for leaf in leaves)
