"""Reads a user's FILE: a Python file that defines the names a command needs."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

import cloudpickle

from luthier.errors import LuthierError, UsageError, nearest


class FileError(LuthierError):
    """A FILE that could not be run. Nothing was started."""

    exit_code = 2


def load_file(path: str | os.PathLike[str], needs: tuple[str, ...]) -> ModuleType:
    """Imports a Python file by its path.

    Its folder comes first on the search path, as when Python runs it; its ``__name__`` is not
    ``"__main__"``, so that a main guard does not run.

    Args:
        path: the file.
        needs: names that it must define.

    Raises:
        UsageError: no such file, or a name is missing.
        FileError: a syntax error, or an error while it ran; tells the line.
    """
    file = Path(path)
    _check_there(file)
    name = f"luthier_file_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"{file} is not a Python file", expected="a name that ends in .py", got=file.name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    cloudpickle.register_pickle_by_value(module)  # no worker could import it by this name
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise _bad_syntax(file, error) from error
    except LuthierError as error:
        raise FileError(f"{file}:{_line(error, file)}: {error.what}", **error.details) from error
    except (Exception, SystemExit) as error:
        raise _stumbled(file, error) from error
    _check_names(file, module, needs)
    return module


def _check_there(file: Path) -> None:
    if file.is_file():
        return
    folder = file.parent
    others = [p.name for p in folder.glob("*.py")] if folder.is_dir() else []
    raise UsageError(
        f"there is no file {file}" if not file.is_dir() else f"{file} is a folder",
        expected="a Python file",
        got=f"nothing of that name in {folder.resolve()}" if not file.is_dir() else "a folder",
        fix=nearest(file.name, others) if not file.is_dir() else f"name a file in it, such as {file / 'task.py'}",
    )


def _check_names(file: Path, module: ModuleType, needs: tuple[str, ...]) -> None:
    missing = [name for name in needs if not hasattr(module, name)]
    if missing:
        there = [n for n in vars(module) if not n.startswith("_")]
        raise UsageError(
            f"{file} does not define {' and '.join(map(repr, missing))}",
            expected=" and ".join(map(repr, needs)) + " at the top level of the file",
            got="it defines " + (", ".join(there) or "nothing"),
            fix=nearest(missing[0], there),
        )


def _bad_syntax(file: Path, error: SyntaxError) -> FileError:
    place = Path(error.filename).name if error.filename else file.name
    line = (error.text or "").rstrip("\n")
    mark = " " * max((error.offset or 1) - 1, 0) + "^"
    return FileError(
        f"{place}:{error.lineno}: {error.msg}\n    {line}\n    {mark}",
        expected="valid Python",
        got="a syntax error",
        fix=f"correct line {error.lineno}",
    )


def _stumbled(file: Path, error: BaseException) -> FileError:
    number = _line(error, file)
    lines = file.read_text(errors="replace").splitlines()
    shown = f"\n    {lines[number - 1].strip()}" if 0 < number <= len(lines) else ""
    return FileError(
        f"{file}:{number}: running the file failed{shown}",
        got=f"{type(error).__name__}: {error}",
        fix=f"try: python {file}",
    )


def _line(error: BaseException, file: Path) -> int:
    """The last line of the file itself that led to the error."""
    here = [f.lineno or 0 for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == file.resolve()]
    return here[-1] if here else 0
