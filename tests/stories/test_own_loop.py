"""The training loop of a user's own in the documentation runs as it stands: masks hold, both losses are in it."""

import re
from pathlib import Path

import torch
from torch import nn

import luthier as lt

PAGE = Path(__file__).parents[2] / "docs" / "compress.md"


def test_the_loop_in_the_documentation_runs():
    text = PAGE.read_text().split("## A training loop of your own")[1]
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    assert len(code.splitlines()) <= 30
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    loader = [(x[:32], teacher(x[:32]).argmax(1)), (x[32:], teacher(x[32:]).argmax(1))] * 20
    space = {"model": model, "teacher": teacher, "loader": loader, "lt": lt, "torch": torch}
    exec(code, space)
    masked = space["masked"]
    kept, plain = masked.masks["weight"], masked.finalize()
    assert 0 < int(kept.sum()) < 12
    assert torch.equal(plain.weight != 0, kept)
    assert not torch.equal(plain.weight[kept], model.weight[kept])  # it learned
