"""One file that holds a network: it loads without the class, or into it, or not at all."""

import json
import shutil
import struct
import subprocess
import sys

import pytest
import torch
from torch import nn

from luthier.errors import CheckError, LuthierError, OutputError, UsageError
from luthier.export.bundle import load, load_plan, save
from luthier.model.stored import _function
from luthier.surgery import prune_neurons


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(width, 3)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x):
        y = self.norm(self.conv(x)).relu().mean((2, 3)) * self.scale
        return {"logits": self.head(self.drop(y)) + torch.tensor([0.5]), "parts": (y.sum(), None)}


class Written(Net):
    def forward(self, x):
        a, b = torch.split(self.norm(self.conv(x)), [4, 4], 1)
        return self.head(torch.cat([b, a], 1).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def pruned():
    torch.manual_seed(0)
    net = Net()
    net.conv.bias.requires_grad_(False)
    return prune_neurons(net, torch.randn(2, 1, 6, 6), ratio=0.5)


@pytest.fixture
def file(pruned, tmp_path):
    return save(pruned, tmp_path / "a name with spaces.luthier")


def same(a, b, x):
    with torch.no_grad():
        return torch.equal(a.eval()(x)["logits"], b.eval()(x)["logits"])


def test_it_loads_without_its_class_and_for_any_batch(pruned, file):
    model = load(file)
    assert isinstance(model, nn.Module)
    assert not model.training
    for batch in (1, 2, 7):
        assert same(model, pruned.model, torch.randn(batch, 1, 6, 6))
    assert set(model.state_dict()) == set(pruned.model.state_dict())
    assert not model.get_parameter("conv.bias").requires_grad
    assert model.get_parameter("head.bias").requires_grad
    out = model(torch.randn(2, 1, 6, 6))
    assert out["parts"][1] is None


def test_it_loads_in_a_process_that_has_never_seen_the_class(pruned, file, tmp_path):
    x = torch.randn(3, 1, 6, 6)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch; from luthier.export.bundle import load;"
        "m = load(sys.argv[1]); torch.save(m(torch.load(sys.argv[2]))['logits'], sys.argv[3])"
    )
    subprocess.run([sys.executable, "-c", code, file, tmp_path / "x.pt", tmp_path / "y.pt"], check=True)
    with torch.no_grad():
        assert torch.allclose(torch.load(tmp_path / "y.pt"), pruned.model.eval()(x)["logits"], atol=1e-6)


def test_it_loads_into_its_class(pruned, file):
    mine = Net()
    assert load(file, into=mine) is mine
    assert mine.conv.out_channels == mine.norm.num_features == mine.head.in_features == 4
    assert same(mine, pruned.model, torch.randn(2, 1, 6, 6))


def test_another_class_is_refused(file):
    with pytest.raises(LuthierError):
        load(file, into=nn.Linear(2, 2))

    class Other(Net):
        def forward(self, x):
            out = super().forward(x)
            return {**out, "logits": out["logits"] * 2}

    with pytest.raises(CheckError, match="computes something else"):
        load(file, into=Other())


def test_weights_trained_after_the_cut_are_the_ones_saved(pruned, tmp_path):
    with torch.no_grad():
        for p in pruned.model.parameters():
            p.add_(0.1)
    x = torch.randn(2, 1, 6, 6)
    assert same(load(save(pruned, tmp_path / "t.luthier")), pruned.model, x)


def test_a_loaded_network_trains_saves_and_is_cut_again(file, tmp_path):
    model = load(file).train()
    x = torch.randn(4, 1, 6, 6)
    model(x)["logits"].square().mean().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    again = load(save(model, tmp_path / "again.luthier"))
    assert same(again, model, x)
    smaller = prune_neurons(again, x, ratio=0.5)
    assert same(load(save(smaller, tmp_path / "smaller.luthier")), smaller.model, x)
    assert smaller.model.get_parameter("conv.weight").shape[0] == 2


def test_a_dense_module_needs_inputs_and_then_saves(tmp_path):
    net = Net()
    with pytest.raises(UsageError, match="needs example inputs"):
        save(net, tmp_path / "dense.luthier")
    x = torch.randn(1, 1, 6, 6)
    path = save(net, tmp_path / "dense.luthier", inputs=x)
    assert same(load(path), net, torch.randn(3, 1, 6, 6))
    assert same(load(path, into=Net()), net, x)
    assert load_plan(path) is None


def test_the_graph_target_says_that_the_class_cannot_hold_it(tmp_path):
    pruned = prune_neurons(Written(), torch.randn(2, 1, 6, 6), ratio=0.5)
    path = save(pruned, tmp_path / "g.luthier")
    assert torch.equal(load(path)(torch.ones(1, 1, 6, 6)), pruned.model.eval()(torch.ones(1, 1, 6, 6)))
    with pytest.raises(UsageError, match="cannot hold"):
        load(path, into=Written())


def test_the_plan_is_in_the_file(pruned, file):
    assert load_plan(file) == pruned.plan


def test_there_is_no_pickle_in_the_file(file):
    raw = file.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    assert json.loads(header["__metadata__"]["luthier"])["version"] == 1


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(file, keep):
    raw = file.read_bytes()
    file.write_bytes(raw[: keep if isinstance(keep, int) else int(len(raw) * keep)])
    with pytest.raises(LuthierError, match="damaged"):
        load(file)


def test_every_flipped_byte_is_refused_or_harmless(pruned, file):
    raw = file.read_bytes()
    x = torch.randn(2, 1, 6, 6)
    for at in range(0, len(raw), max(1, len(raw) // 60)):
        changed = bytearray(raw)
        changed[at] ^= 0x55
        file.write_bytes(bytes(changed))
        try:
            model = load(file)
        except LuthierError:
            continue
        assert same(model, pruned.model, x)


def rewritten(file, change):
    """The same file with its description changed and its digest set right again."""
    import hashlib

    from safetensors.torch import load_file, save_file

    raw = file.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    body = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["luthier"])
    change(body)
    text = json.dumps(body)
    save_file(load_file(file), file, metadata={"luthier": text, "sha256": hashlib.sha256(text.encode()).hexdigest()})


def test_a_newer_version_is_refused(file):
    rewritten(file, lambda body: body.update(version=2))
    with pytest.raises(UsageError, match="another format"):
        load(file)


def test_a_file_that_names_a_foreign_operation_is_refused(file):
    def change(body):
        for node in body["blueprint"]["program"]["nodes"]:
            if node["op"] == "call_function":
                node["target"] = "os.system"
                return

    rewritten(file, change)
    with pytest.raises(LuthierError, match=r"os\.system"):
        load(file)


def test_a_file_that_misses_parts_is_refused(file):
    rewritten(file, lambda body: body["blueprint"].pop("program"))
    with pytest.raises(LuthierError, match="damaged"):
        load(file)


def test_other_files_are_told_apart(tmp_path):
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(UsageError, match="no file of Luthier"):
        load(other)
    with pytest.raises(UsageError, match="there is no file"):
        load(tmp_path / "missing.luthier")
    with pytest.raises(UsageError, match="there is no file"):
        load(tmp_path)


def test_a_failed_write_leaves_the_old_file(pruned, file, monkeypatch):
    before = file.read_bytes()
    import safetensors.torch

    def broken(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", broken)
    with pytest.raises(OutputError, match="disk full"):
        save(pruned, file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_folder_is_made_where_there_is_none(pruned, tmp_path):
    path = save(pruned, tmp_path / "new" / "deep" / "x.luthier")
    shutil.copy(path, tmp_path / "copy.luthier")
    assert same(load(tmp_path / "copy.luthier"), pruned.model, torch.randn(2, 1, 6, 6))


def test_only_operations_from_tensors_to_tensors_of_other_libraries_are_read():
    library = torch.library.Library("luthier_test", "DEF")
    try:
        library.define("fine(Tensor x, int n) -> Tensor")
        library.define("read(Tensor x, str path) -> Tensor")
        library.define("maybe(Tensor x, str? path=None) -> Tensor")
        library.define("number(int n) -> Tensor")
        library.define("change(Tensor(a!) x) -> Tensor")
        assert _function("luthier_test.fine.default") is torch.ops.luthier_test.fine.default
        for name in ("read", "maybe", "number", "change"):
            with pytest.raises(UsageError, match="the stored graph names the operation"):
                _function(f"luthier_test.{name}.default")
    finally:
        library._destroy()
