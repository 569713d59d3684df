"""The model as data: its graph, the algebra of its axes, the groups that can be cut, what they cost."""

from luthier.model.analysis import Analysis, analyse
from luthier.model.axes import Axis, Product, Sum
from luthier.model.coverage import Blocker, Coverage
from luthier.model.groups import Group, Occurrence
from luthier.model.op import Frozen
from luthier.model.program import Program, Rebuilt
from luthier.model.trace import Inputs

__all__ = [
    "Analysis",
    "Axis",
    "Blocker",
    "Coverage",
    "Frozen",
    "Group",
    "Inputs",
    "Occurrence",
    "Product",
    "Program",
    "Rebuilt",
    "Sum",
    "analyse",
]
