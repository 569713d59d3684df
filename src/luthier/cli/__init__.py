"""The command line. One file is one command, loaded when it is called; its object is ``COMMAND``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from luthier import discover
from luthier.cli._shell import guarded

_HELP = """Tune, prune and distil models: a Pareto front of smaller, faster, proven files.

Every command takes --debug, which shows the traceback of an error.
"""


class Commands(click.Group):
    """The commands that this folder holds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return discover.names(__name__)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in discover.names(__name__):
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").COMMAND
        return command


@click.command(
    cls=Commands, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="luthier")
def group() -> None:
    """The root of all commands."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line and exits: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C.

    Args:
        arguments: what follows the program's name; None: those of this process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    rest = [a for a in given if a != "--debug"]
    sys.exit(guarded(lambda: group.main(rest, prog_name="luthier", standalone_mode=False), debug))
