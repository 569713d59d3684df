"""``lt.compress`` called from Python on trained networks of other kinds than the demo's."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import onnxruntime
import pytest
import torch
from filelock import FileLock
from torch import nn

import luthier as lt
from luthier.compression.line import Line

pytestmark = pytest.mark.slow


def _regression(n: int = 256):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=generator)
    return x, (x[:, :2].sum(1) + x[:, 2] ** 2)[:, None]


def _batches(data, size=64):
    return [(data[0][i : i + size], data[1][i : i + size]) for i in range(0, len(data[0]), size)]


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """A fully connected network for numbers, data as lists of batches, a budget in MACs, no test data."""
    data = _regression()
    task = lt.Task(train=_batches(data), valid=_batches(_regression(128)), loss="mse", metrics=["mse", "mae"])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
    lt.fit(model, task, epochs=30, lr=3e-3, progress=False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    out = tmp_path_factory.mktemp("out") / "run"
    result = lt.compress(model, task, budget={"macs": 0.4}, trials=3, out=out, epochs=(2, 3), progress=False)
    return model, before, task, result


def test_the_model_is_left_as_it_was(regression):
    model, before, _, _ = regression
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_every_point_is_smaller_and_within_the_budget(regression):
    result = regression[3]
    assert result.best is not None
    assert result.front
    for point in result.front:
        assert point.ratio["macs"] <= 0.4
        assert all(check.passed for check in point.checks)


def test_the_file_has_the_metric_that_is_told(regression):
    result = regression[3]
    for point in result.front:
        session = onnxruntime.InferenceSession(str(point.path / "model.onnx"))
        x, y = _regression(128)
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        assert ((torch.tensor(got) - y) ** 2).mean().item() == pytest.approx(point.metrics["mse"], rel=1e-3)


def test_the_result_is_that_of_the_files(regression):
    result = regression[3]
    row = json.loads((result.best.path / "metrics.json").read_text())
    assert row["valid"]["mse"] == result.best.valid["mse"]
    assert result.report.is_file()


@pytest.fixture
def again(regression, tmp_path):
    """The same call on a copy of the run's folder."""
    model, _, task, result = regression
    out = shutil.copytree(result.report.parent, tmp_path / "copy")

    def call():
        return lt.compress(model, task, budget={"macs": 0.4}, trials=3, out=out, epochs=(2, 3), progress=False)

    return out, call


def test_a_finished_run_is_read_again(again, regression):
    out, call = again
    stamp = (out / "run.json").stat().st_mtime_ns
    assert [p.valid for p in call().front] == [p.valid for p in regression[3].front]
    assert (out / "run.json").stat().st_mtime_ns == stamp


def test_a_damaged_outcome_is_made_again_and_what_is_gone_is_named(again):
    out, call = again
    gone = json.loads((out / "run.json").read_text())["front"][0]["trial"]
    (out / "run.json").write_text("{half")
    (out / "trials" / f"trial-{gone:04d}.luthier").unlink()
    result = call()
    assert gone not in [p.trial for p in result.front]
    assert f"Trial {gone} is left out" in result.note


def test_points_that_were_deleted_are_made_again(again):
    out, call = again
    for point in out.glob("point-*"):
        shutil.rmtree(point)
    assert all((p.path / "model.onnx").is_file() for p in call().front)


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("settings.json", "{half", "cannot be read"),
        ("run.json", '{"version": 99}', "newer"),
        ("settings.json", "{}", "another run"),
    ],
)
def test_files_that_are_not_ours_to_read_are_refused(again, name, text, word):
    out, call = again
    (out / name).write_text(text)
    with pytest.raises(lt.UsageError, match=word):
        call()


def test_a_folder_in_use_is_refused_at_once(again):
    out, call = again
    with FileLock(out / ".lock"), pytest.raises(lt.LuthierError, match="in use"):
        call()


def test_other_data_are_another_run(again, regression):
    out, _ = again
    x, y = _regression(128)
    task = lt.Task(train=(x, y + 1), valid=(x, y), loss="mse", metrics=["mse", "mae"])
    with pytest.raises(lt.UsageError, match="another run"):
        lt.compress(regression[0], task, budget={"macs": 0.4}, trials=3, out=out, epochs=(2, 3), progress=False)


def test_what_is_frozen_stays_frozen(regression):
    model = copy.deepcopy(regression[0])
    model[0].requires_grad_(False)
    line = Line(model, regression[2])
    pruned = line.cut(line.widths(dict.fromkeys(line.families, 0.5)))
    assert {n: p.requires_grad for n, p in pruned.model.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ({"budget": "latency=0.5"}, "dict"),
        ({"trials": 0}, "trials"),
        ({"workers": 0}, "workers"),
        ({"epochs": 3}, "epochs"),
        ({"max_ratio": "0.5"}, "max_ratio"),
        ({"algorithm": "bays"}, "bayes"),
        ({"multiple_of": 8}, "multiple"),
    ],
)
def test_bad_arguments_leave_no_folder(regression, tmp_path, how, word):
    with pytest.raises(lt.UsageError, match=word):
        lt.compress(regression[0], regression[2], **{"budget": {"macs": 0.4}, "out": tmp_path / "run", **how})
    assert not (tmp_path / "run").exists()


def test_a_network_with_nothing_to_cut_is_told_so(tmp_path):
    data = _regression(64)
    task = lt.Task(train=data, valid=data, loss="mse", metrics=["mse"])
    with pytest.raises(lt.LuthierError, match="nothing in this network can be cut"):
        lt.compress(nn.Linear(6, 1), task, budget={"macs": 0.5}, trials=2, out=tmp_path / "run", progress=False)


SLOW = """
import torch, luthier as lt
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2))

def task():
    torch.manual_seed(0)
    x = torch.randn(1500, 6)
    data = (x, (x.sum(1) > 0).long())
    return lt.Task(train=data, valid=data, batch_size=8)
"""


def test_ctrl_c_ends_in_good_order_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "net.py").write_text(SLOW)
    command = [sys.executable, "-m", "luthier.cli", "compress", "net.py", "--budget", "macs=0.7", "--trials", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    how = {"cwd": tmp_path, "env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, start_new_session=True, **how) as one:
        deadline = time.time() + 120
        while time.time() < deadline and not (tmp_path / "runs" / "net" / "study.db").exists():
            time.sleep(0.1)
        time.sleep(2)
        os.killpg(one.pid, signal.SIGINT)
        _, errors = one.communicate(timeout=120)
    assert one.returncode == 130, errors
    assert "goes on from there" in errors
    assert "Traceback" not in errors
    again = subprocess.run(command, timeout=250, check=False, **how)
    assert again.returncode == 0, again.stdout + again.stderr
    content = json.loads((tmp_path / "runs" / "net" / "run.json").read_text())
    assert len([t for t in content["trials"] if t["status"] != "failed"]) == 3
