"""What every command shares: exit codes, and errors as one clear message."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click
from rich.console import Console
from rich.text import Text

from luthier.errors import LuthierError

INTERRUPTED = 130


class Interrupted(Exception):
    """A command that ended early by Ctrl-C, in good order. Its text says how to go on."""


def guarded(act: Callable[[], object], debug: bool) -> int:
    """Runs a command and tells errors in words.

    Args:
        act: the command; an int that it returns is the exit code.
        debug: whether to let errors through with their traceback.

    Returns:
        the exit code.
    """
    try:
        code = act()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, click.Abort):
        _tell("Interrupted", "stopped by Ctrl-C; whatever had finished is stored. The same command goes on from there.")
        return INTERRUPTED
    except Interrupted as end:
        _tell("Interrupted", str(end))
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; that is no news to anybody
        return 1
    except Exception as error:
        if debug:
            raise
        return _told(error)


def _told(error: Exception) -> int:
    """Prints an error and gives its exit code."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, LuthierError):
        _tell("Error", str(error))
        return error.exit_code
    _tell("Error", f"{type(error).__name__}: {error}\n  fix:      run again with --debug to see where")
    return 1


def _tell(head: str, text: str) -> None:
    console = Console(stderr=True, soft_wrap=True)
    console.print(Text(f"{head}: ", style="bold red") + Text(text))


def shown(store: object) -> str:
    """A store's place as it may be printed: a database's URL may hold a password."""
    text = str(store)
    return text.split("://")[0] + "://..." if "://" in text else text
