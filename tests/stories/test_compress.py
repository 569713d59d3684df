"""The main job on a small network and real data, run as users run it: whole, resumed, refused, killed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

EXAMPLE = """
import torch
from sklearn.datasets import load_digits
from torch import nn

import luthier as lt

recipe = {"epochs": 3, "lr": 3e-3}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32))
        self.head = nn.Linear(32 * 4, 10)

    def forward(self, x):
        y = self.first(x)
        y = torch.relu(y + self.second(y))
        return self.head(torch.nn.functional.adaptive_avg_pool2d(y, 2).flatten(1))


def model():
    torch.manual_seed(0)
    return Small()


def task():
    images, digits = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(digits)
    parts = {"train": slice(0, 600), "valid": slice(600, 900), "test": slice(900, 1200)}
    data = {part: (x[rows], y[rows]) for part, rows in parts.items()}
    return lt.Task(**data, metrics=["accuracy", "f1_macro"])
"""

CHECK = """
import json, sys
import numpy as np, onnxruntime
from sklearn.datasets import load_digits
images, digits = load_digits(return_X_y=True)
x = (images[900:1200] / 16).astype("float32").reshape(-1, 1, 8, 8)
session = onnxruntime.InferenceSession(sys.argv[1])
scores = session.run(None, {session.get_inputs()[0].name: x})[0]
assert not {"torch", "luthier"} & set(sys.modules)
print(json.dumps(float((scores.argmax(1) == digits[900:1200]).mean())))
"""


def _compress(folder: Path, *arguments: str, out: str = "a run", **how) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "luthier.cli", "compress", "small net.py", "--out", out, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, **how)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a folder")
    (folder / "small net.py").write_text(EXAMPLE)
    done = _compress(folder, "--budget", "latency=0.8", "--trials", "4", "--workers", "2", "--batch-size", "64")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def _points(folder: Path) -> list[Path]:
    return sorted((folder / "a run").glob("point-*"))


@pytest.mark.slow
class TestAWholeRun:
    def test_prints_the_front_and_the_proofs(self, run):
        for text in ("Pareto front", "cut == masked", "ONNX Runtime == torch", "metric through ONNX", "batch 64"):
            assert text in run[1]

    def test_every_point_has_its_files(self, run):
        assert _points(run[0])
        for point in _points(run[0]):
            files = {f.name for f in point.iterdir()}
            assert files == {"model.onnx", "model.luthier", "plan.json", "metrics.json"}
        page = (run[0] / "a run" / "report.html").read_text()
        assert "What was cut where" in page

    def test_the_file_gives_the_printed_accuracy_without_luthier_or_torch(self, run):
        for point in _points(run[0]):
            done = subprocess.run([sys.executable, "-c", CHECK, point / "model.onnx"], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            metrics = json.loads((point / "metrics.json").read_text())
            assert json.loads(done.stdout) == pytest.approx(metrics["test"]["accuracy"], abs=1e-6)
            assert f"{metrics['test']['accuracy']:.4f}" in run[1]

    def test_points_are_within_the_budget_as_searched_and_proven(self, run):
        for point in _points(run[0]):
            metrics = json.loads((point / "metrics.json").read_text())
            assert all(check["passed"] for check in metrics["checks"])
            assert metrics["ratio"]["macs"] < 1
            assert metrics["cost"]["bytes"] == (point / "model.onnx").stat().st_size

    def test_the_bundle_loads_without_the_class_and_agrees(self, run):
        script = textwrap.dedent("""
            import sys, torch, onnxruntime, luthier as lt
            model = lt.load(sys.argv[1] + "/model.luthier").eval()
            session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx")
            x = torch.rand(5, 1, 8, 8)
            wanted = torch.tensor(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
            assert torch.allclose(model(x), wanted, atol=1e-4), (model(x) - wanted).abs().max()
        """)
        for point in _points(run[0]):
            done = subprocess.run([sys.executable, "-c", script, point], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

    def test_the_same_command_again_has_nothing_to_do(self, run):
        again = _compress(run[0], "--budget", "latency=0.8", "--trials", "4", "--batch-size", "64")
        assert again.returncode == 0
        assert "nothing left to do" in again.stdout
        assert (
            run[1].split("Pareto front")[1].splitlines()[4:8] == again.stdout.split("Pareto front")[1].splitlines()[4:8]
        )

    def test_another_run_is_refused_the_folder(self, run):
        other = _compress(run[0], "--budget", "latency=0.5", "--trials", "4", "--batch-size", "64")
        assert other.returncode == 2
        assert "holds another run" in other.stderr
        assert "Traceback" not in other.stderr
        assert _points(run[0])

    def test_the_report_can_be_drawn_again(self, run):
        page = run[0] / "again.html"
        command = [sys.executable, "-m", "luthier.cli", "report", "a run", "--out", page]
        assert subprocess.run(command, cwd=run[0], capture_output=True).returncode == 0
        assert page.read_text() == (run[0] / "a run" / "report.html").read_text()


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_loses_no_finished_trial(tmp_path):
    (tmp_path / "small net.py").write_text(EXAMPLE)
    budget = ["--budget", "latency=0.8", "--trials", "5", "--batch-size", "64"]
    command = [sys.executable, "-m", "luthier.cli", "compress", "small net.py", "--out", "a run", *budget]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as one:
        deadline = time.time() + 200
        while time.time() < deadline and not list((tmp_path / "a run" / "trials").glob("trial-*.luthier")):
            time.sleep(0.1)
        one.send_signal(signal.SIGKILL)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "a run" / "trials").glob("trial-*.luthier")}
    assert before
    done = _compress(tmp_path, *budget)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "a run" / "run.json").read_text())
    ended = [t for t in content["trials"] if "driver" not in (t["cause"] or "")]
    assert len(ended) == 5
    finished = {f"trial-{t['number']:04d}.luthier" for t in content["trials"] if t["status"] == "complete"}
    kept = {
        name for name, stamp in before.items() if (tmp_path / "a run" / "trials" / name).stat().st_mtime_ns == stamp
    }
    assert len(kept & finished) >= len(before) - 1  # the one that was being written may have been cut short


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_is_said_before_anything_is_searched(tmp_path):
    (tmp_path / "small net.py").write_text(EXAMPLE)
    done = _compress(tmp_path, "--budget", "latency=0.01", "--trials", "4")
    assert done.returncode == 1
    assert "cannot be met" in done.stderr
    assert "--budget latency=" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "arguments", "code", "word"),
    [
        (EXAMPLE + "\ndef (", ["--budget", "latency=0.5"], 2, "syntax"),
        (EXAMPLE, ["--budget", "latncy=0.5"], 2, "latency"),
        (EXAMPLE, ["--budget", "latency"], 2, "NAME=NUMBER"),
        (EXAMPLE, ["--budget", "latency=2"], 2, "(0, 1]"),
        (EXAMPLE, ["--budget", "latency=0.5", "--budget", "latency=0.6"], 2, "twice"),
        (EXAMPLE.replace("def task", "def tusk"), ["--budget", "latency=0.5"], 2, "task"),
        (EXAMPLE.replace("slice(0, 600)", "slice(0, 0)"), ["--budget", "latency=0.5"], 2, "empty"),
        (EXAMPLE.replace("recipe = {", "recipe = {'epoch': 1, "), ["--budget", "latency=0.5"], 2, "epochs"),
        (EXAMPLE.replace("return Small()", "return None"), ["--budget", "latency=0.5"], 2, "Module"),
        (EXAMPLE.replace("y = self.first(x)", "y = self.first(x) if x.sum() > 0 else x"),
         ["--budget", "latency=0.5"], 1, "cannot be"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_message(tmp_path, text, arguments, code, word):
    (tmp_path / "small net.py").write_text(text)
    done = _compress(tmp_path, *arguments, "--trials", "2")
    assert done.returncode == code, done.stdout + done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "small net.py").write_text(EXAMPLE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = _compress(tmp_path, "--budget", "latency=0.5", out="mine")
    assert done.returncode == 2
    assert "no run of Luthier" in done.stderr
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
