"""Two processes on the CPU through Lightning Fabric: they end with the same weights, near those of one process."""

import subprocess
import sys

import pytest

pytest.importorskip("lightning_fabric", reason="several devices need Lightning Fabric: pip install 'luthier[devices]'")

SCRIPT = """
import sys, torch
from torch import nn
from lightning_fabric import Fabric
import luthier as lt

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
x = torch.randn(64, 4, generator=generator)
y = (x[:, 0] + x[:, 1] > 0).long()

def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
how = dict(epochs=2, lr=1e-2, optimizer="sgd", clip=0.1, progress=False, fabric=fabric)
task = lt.Task(train=(x, y), valid=(x, y), batch_size=32)
model = lt.fit(net(), task, **how)
student = lt.distill(net(), [model, net()], task, losses={"kl": 0.5, "task": 0.5}, **how)
narrow = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
hinted = lt.distill(narrow, net(), task, losses={"hint": 1.0, "task": 0.5}, taps=["0"], **how)
large = lt.Task(train=(x, y), valid=(x, y), batch_size=64)
alone = lt.fit(net(), large, **{**how, "fabric": None})
for trained in (model, student, hinted):
    flat = torch.cat([p.detach().flatten() for p in trained.parameters()])
    both = fabric.all_gather(flat)
    assert torch.equal(both[0], both[1])
gap = max(float((a - b).abs().max()) for a, b in zip(model.parameters(), alone.parameters()))
assert gap < 1e-5, gap
if fabric.global_rank == 0:
    print("same")
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert "same" in done.stdout, done.stderr[-3000:]
