"""Parameters: what one setting of a search can be. Values only; a space puts them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.errors import unknown
from luthier.parameters._kind import Parameter, apart, label, plain_value
from luthier.parameters.listed import Choice, Listed, Ordinal
from luthier.parameters.numeric import Float, Int
from luthier.parameters.structures import Permutation, Structure, Subset

__all__ = [
    "KINDS",
    "Choice",
    "Float",
    "Int",
    "Listed",
    "Ordinal",
    "Parameter",
    "Permutation",
    "Structure",
    "Subset",
    "apart",
    "label",
    "parameter_from_json",
    "plain_value",
]

KINDS: Mapping[str, type[Any]] = {
    "float": Float,
    "int": Int,
    "choice": Choice,
    "ordinal": Ordinal,
    "permutation": Permutation,
    "subset": Subset,
}


def parameter_from_json(row: Mapping[str, Any]) -> Parameter:
    """The parameter that ``to_json`` described.

    Raises:
        UsageError: a kind that this version does not know.
    """
    if row["kind"] not in KINDS:
        raise unknown("kind of parameter", str(row["kind"]), KINDS)
    settings = {n: v for n, v in row.items() if n not in ("kind", "when")}
    made: Parameter = KINDS[row["kind"]](**settings)
    condition = {p: tuple(v) for p, v in row.get("when", {}).items()}
    return made.when(**condition) if condition else made
