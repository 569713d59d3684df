"""``luthier methods``."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import luthier

_OPERATIONS = "luthier.model.rules: operations that cuts are carried through"
_FREEZE = "By the names of PyTorch's aten library. Any other operation keeps whole what it touches."


@click.command(name="methods", short_help="List every method there is.")
@click.option("--markdown", is_flag=True, help="As the page docs/methods.md, with each method's whole documentation.")
def command(markdown: bool) -> None:
    """List every method there is: search algorithms, stop rules, executors, criteria, losses, ..."""
    if markdown:
        click.echo(as_markdown(), nl=False)
        return
    console = Console()
    for package, rows in found().items():
        table = Table(title=package, title_justify="left", title_style="bold", box=box.SIMPLE, show_header=False)
        for name, line in rows:
            table.add_row(Text(name, style="green"), Text(line))
        console.print(table)
    table = Table(title=_OPERATIONS, title_justify="left", title_style="bold", box=box.SIMPLE, show_header=False)
    for family, names in operations().items():
        table.add_row(Text(family, style="green"), Text(", ".join(names)))
    if table.row_count:
        console.print(table)


def as_markdown() -> str:
    """The methods page, which lists the operations where PyTorch is installed."""
    lines = ["# Methods", "", "Made from the code by `luthier methods --markdown > docs/methods.md`.", ""]
    for package, rows in found(whole=True).items():
        lines += [f"## {package}", ""]
        for name, text in rows:
            first, _, rest = text.partition("\n")
            lines += [f"### {name}", "", first, ""]
            if rest.strip():
                lines += ["```text", rest.strip("\n"), "```", ""]
    lines += [f"## {_OPERATIONS}", "", _FREEZE, ""]
    for family, names in operations().items():
        lines += [f"- {family}: " + ", ".join(f"`{name}`" for name in names)]
    return "\n".join(lines) + "\n"


def found(whole: bool = False) -> dict[str, list[tuple[str, str]]]:
    """Every file with a ``METHOD``, by package: (name, first line of its documentation, or the whole of it).

    Files are read, not imported, so that the list needs none of the optional packages.
    """
    root = Path(luthier.__file__).parent
    out: dict[str, list[tuple[str, str]]] = {}
    for file in sorted(root.rglob("*.py")):
        place = file.parent if file.name == "__init__.py" else file.with_suffix("")
        if not place.name.startswith("_") and (text := _documentation(file)) is not None:
            package = ".".join(("luthier", *place.parent.relative_to(root).parts))
            out.setdefault(package, []).append((place.name.rstrip("_"), text if whole else text.split("\n")[0]))
    return {package: sorted(rows) for package, rows in sorted(out.items())}


def operations() -> dict[str, list[str]]:
    """Family -> the tensor operations that there are rules for; none where PyTorch is not installed."""
    try:
        from luthier.model import rules
    except ImportError:
        return {}
    families = {name: importlib.import_module(f"{rules.__name__}.{name}").RULES for name in rules.names()}
    return {name: sorted(found) for name, found in families.items()}


def _documentation(file: Path) -> str | None:
    """What a file says of its METHOD; None where it has none."""
    tree = ast.parse(file.read_text())
    wanted = None
    for node in tree.body:
        named = isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "METHOD" for t in node.targets)
        if named and isinstance(node, ast.Assign):
            wanted = node.value.id if isinstance(node.value, ast.Name) else ""
    if wanted is None:
        return None
    return _docstring(tree, wanted) or _docstring(_origin(tree, wanted), wanted) or ast.get_docstring(tree) or ""


def _docstring(tree: ast.Module, name: str) -> str | None:
    homes = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name]
    return ast.get_docstring(homes[0]) if homes else None


def _origin(tree: ast.Module, name: str) -> ast.Module:
    """The file of this package that a name is imported from; where it is not, the file itself."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and name in [alias.name for alias in node.names]:
            file = Path(luthier.__file__).parent.joinpath(*node.module.split(".")[1:]).with_suffix(".py")
            return ast.parse(file.read_text()) if file.is_file() else tree
    return tree


COMMAND = command
