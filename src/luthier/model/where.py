"""Where in the user's code something comes from."""

from __future__ import annotations

import os
import re

from torch import fx


def user_line(error: BaseException) -> str | None:
    """The innermost frame of the traceback that is not PyTorch's own code."""
    lines, frame = [], error.__traceback__
    here = os.path.dirname(__file__)
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if not _is_torch(name) and not name.startswith((here, "<")) and "contextlib" not in name:
            lines.append(f"{name}:{frame.tb_lineno} in {frame.tb_frame.f_code.co_name}")
        frame = frame.tb_next
    return lines[-1] if lines else None


def _is_torch(path: str) -> bool:
    return f"{os.sep}torch{os.sep}" in path


def source(node: fx.Node) -> str:
    """Where in the user's code a node comes from: "file:line", or the node's name.

    Lines of PyTorch's own modules count only where no line of the user's is known.
    """
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    mine = [f for f in frames if not _is_torch(f[0]) and not f[0].startswith("<")] or frames
    return f"{mine[-1][0]}:{mine[-1][1]}" if mine else node.name
