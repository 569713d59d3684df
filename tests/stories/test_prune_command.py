"""`luthier prune FILE`: by ratio and by budget, with the picture of what removal costs."""

import pytest
import torch
from click.testing import CliRunner

import luthier as lt
from luthier.cli import compress
from luthier.cli._network import MULTIPLE
from luthier.cli.prune import COMMAND
from luthier.errors import UsageError

FILE = """
import torch
from torch import nn
import luthier as lt

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))

def task():
    x = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
    y = x[:, :3].argmax(1)
    return lt.Task(train=(x, y), valid=(x[:32], y[:32]), batch_size=32)

recipe = {"epochs": 2, "lr": 0.01, "progress": False}
"""


@pytest.mark.slow
def test_by_budget_with_the_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FILE)
    done = CliRunner().invoke(
        COMMAND, ["net.py", "--budget", "macs=0.5", "--multiple", "1", "--out", "out"], catch_exceptions=False
    )
    assert "Removal of each width alone" in done.output
    assert "90%" in done.output
    assert "MACs" in done.output
    small = lt.load(tmp_path / "out" / "model.luthier")
    assert small(torch.randn(4, 6)).shape == (4, 3)
    left = sum(p.numel() for n, p in small.named_parameters() if n.endswith("weight"))
    assert 0.45 * 1312 <= left <= 0.5 * 1312  # of linear layers alone: MACs are the weights
    assert (tmp_path / "out" / "model.onnx").is_file()


def test_ratio_or_budget(tmp_path):
    with pytest.raises(UsageError, match="one way"):
        CliRunner().invoke(COMMAND, ["net.py"], catch_exceptions=False)
    with pytest.raises(UsageError, match="one way"):
        CliRunner().invoke(COMMAND, ["net.py", "--ratio", "0.5", "--budget", "macs=0.5"], catch_exceptions=False)


def test_a_multiple_is_a_number_or_auto():
    assert [MULTIPLE.convert(v, None, None) for v in ("8", 8, "auto")] == [8, 8, "auto"]
    for command in (COMMAND, compress.COMMAND):
        for wrong in ("0", "some"):
            done = CliRunner().invoke(command, ["net.py", "--multiple", wrong])
            assert done.exit_code == 2
            assert "--multiple" in done.output
