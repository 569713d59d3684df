"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from luthier.errors import OutputError


@contextmanager
def whole(path: str | Path, full: tuple[type[Exception], ...] = ()) -> Iterator[Path]:
    """A draft beside a file, which takes the file's name and permissions when the block ends well.

    What was there before stays until then, and stays where the block raises; nobody ever sees half a file, not even
    after a power cut. Folders are made. Several processes may write the same file: the last one counts.

    Args:
        path: the file.
        full: what else than OSError the block's writer raises where the disk is full.

    Yields:
        where to write.

    Raises:
        OutputError: it cannot be written.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "new" / "numbers.txt"
        >>> with whole(place) as draft:
        ...     _ = draft.write_text("1 2 3")
        >>> place.read_text()
        '1 2 3'
    """
    path = Path(path)
    failures: tuple[type[Exception], ...] = (OSError, *full)
    draft = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _settle(draft, path)
    except failures as error:
        raise OutputError(
            f"{path} cannot be written",
            expected="a folder that can be written to, and room on the disk",
            got=f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}",
            fix="make room, or choose another place; what was there before is unharmed",
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _settle(draft: Path, path: Path) -> None:
    """Has the disk hold the draft before the name is given to it."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    with suppress(FileNotFoundError):
        draft.chmod(path.stat().st_mode)
    os.replace(draft, path)


def write_text(path: str | Path, text: str) -> Path:
    """Writes a text, whole or not at all; see :func:`whole`. Returns where."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, content: Any, indent: int | None = 1) -> Path:
    """Writes plain values as JSON; what is no plain value as a float. See :func:`whole`."""
    return write_text(path, json.dumps(content, indent=indent, default=float) + "\n")
