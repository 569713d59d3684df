"""The command line as a user meets it: what it prints, and with which exit code it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luthier import run, search, stop
from luthier.cli import main
from luthier.errors import LuthierError
from luthier.study import load_study

ROOT = Path(__file__).parents[2]

GOOD = """
import luthier as lt

space = lt.Space(x=lt.Float(-1, 1), kind=lt.Choice(["a", None]))
minimize = "loss"
algorithm = "random"
trials = 6


def objective(trial):
    if trial.number == 2:
        raise ValueError("one bad trial")
    return trial["x"] ** 2
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "good.py").write_text(GOOD)


def called(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_tune_prints_the_best_the_others_and_what_failed(capsys):
    code, out, err = called(capsys, "tune", "good.py")
    assert (code, err) == (0, "")
    assert re.search(r"Best configuration: trial \d of 6", out)
    assert "The others, best first" in out
    assert "1 failed: ValueError: one bad trial (good.py:12)" in out
    assert "study 'good-random' in runs/good.db" in out
    column = [float(m) for m in re.findall(r"^ +\d+ +([\d.e-]+) +-?\d", out.split("The others")[1], re.MULTILINE)]
    assert len(column) == 4
    assert column == sorted(column)


def test_a_grid_knows_its_size(capsys):
    Path("grid.py").write_text(GOOD.replace("lt.Float(-1, 1)", "lt.Int(1, 4)"))
    _, out, _ = called(capsys, "tune", "grid.py", "--algorithm", "grid")
    assert "study grid-grid: 8 trials" in out
    assert "8 of 8 trials: 7 complete, 1 failed" in out


def test_the_same_command_goes_on_and_fresh_starts_over(capsys):
    called(capsys, "tune", "good.py", "--trials", "3")
    _, out, _ = called(capsys, "tune", "good.py")
    assert "6 trials, 3 done before" in out
    _, out, _ = called(capsys, "tune", "good.py", "--fresh", "--quiet")
    assert "done before" not in out
    _, out, _ = called(capsys, "studies", "runs/good.db")
    assert "5 complete, 1 failed" in out
    _, out, _ = called(capsys, "studies", "runs/good.db", "good-random")
    assert "Best configuration" in out


def test_options_win_over_the_file(capsys):
    code, out, _ = called(
        capsys,
        "tune",
        "good.py",
        "--algorithm=sobol",
        "--trials=4",
        "--seed=3",
        "--store=s.db",
        "--name=mine",
        "--workers=2",
    )
    assert code == 0
    assert "study 'mine' in s.db" in out
    _, out, _ = called(capsys, "studies", "s.db")
    assert "mine" in out


def test_several_objectives_print_the_front(capsys):
    Path("two.py").write_text(
        GOOD.replace('minimize = "loss"', 'objectives = {"loss": "min", "gain": "max"}').replace(
            'return trial["x"] ** 2', 'return {"loss": trial["x"] ** 2, "gain": trial["x"]}'
        )
    )
    code, out, _ = called(capsys, "tune", "two.py", "--trials", "12")
    assert code == 0
    assert re.search(r"The front: \d+ of 11 trials", out)


BAD_FILES = {
    "syntax": ("def objective(t):\n    return (1\n", "bad.py:2", "return (1"),
    "crash": ("x = 1\ny = x / 0\n", "bad.py:2", "ZeroDivisionError"),
    "exit": ("import sys\nsys.exit(4)\n", "bad.py:2", "SystemExit: 4"),
    "import": ("import nothing_of_that_name\n", "bad.py:1", "No module named"),
    "names": ("spaec = 1\ndef objective(t): return 1\n", "'space'", "did you mean 'spaec'"),
    "bounds": ("import luthier as lt\nspace = lt.Space(x=lt.Float(2, 1))\n", "bad.py:2", "low <= high"),
    "log": ("import luthier as lt\nspace = lt.Space(x=lt.Float(0, 1, log=True))\n", "bad.py:2", "low > 0"),
    "empty": ("import luthier as lt\nspace = lt.Space(x=lt.Choice([]))\n", "bad.py:2", "at least one option"),
    "direction": (GOOD.replace('minimize = "loss"', ""), "does not say what is wanted", "minimize ="),
    "both": (GOOD + 'maximize = "gain"\n', "exactly one way", "maximize"),
    "objective": (GOOD.split("def")[0] + "objective = 3\n", "the objective cannot be called", "3"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_gets_one_message_and_exit_code_2(capsys, name):
    text, *signs = BAD_FILES[name]
    Path("bad.py").write_text(text)
    code, out, err = called(capsys, "tune", "bad.py")
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert len(re.findall("^Error: ", err, re.MULTILINE)) == 1
    assert "Traceback" not in err
    for sign in signs:
        assert sign in err


@pytest.mark.parametrize(
    ("arguments", "code", "sign"),
    [
        ("tune gud.py", 2, "did you mean 'good.py'"),
        ("tune .", 2, "is a folder"),
        ("tune", 2, "Missing argument"),
        ("tune good.py --algorithm bayse", 2, "did you mean 'bayes'"),
        ("tune good.py --trials many", 2, "not a valid integer"),
        ("tune good.py --trials 0", 2, "trials >= 1"),
        ("tune good.py --workers 0", 2, "workers >= 1"),
        ("tune good.py --store .", 1, "is not a file"),
        ("tune good.py --store good.py", 1, "the file is something else"),
        ("studies none.db", 1, "there is no store"),
        ("frobnicate", 2, "No such command"),
    ],
)
def test_wrong_usage_is_told_in_words(capsys, arguments, code, sign):
    got, _, err = called(capsys, *arguments.split())
    assert got == code
    assert sign in err
    assert "Traceback" not in err


def test_a_study_without_a_result_is_a_failure(capsys):
    Path("none.py").write_text(GOOD.split("def")[0] + "def objective(trial):\n    trial['x']\n")
    code, _, err = called(capsys, "tune", "none.py")
    assert code == 1
    assert "a missing 'return'" in err


def test_debug_shows_the_traceback(capsys):
    Path("bad.py").write_text("x = 1 / 0\n")
    with pytest.raises(Exception, match="division by zero"):
        main(["tune", "bad.py", "--debug"])


def test_another_space_under_the_same_name_is_refused(capsys):
    called(capsys, "tune", "good.py")
    Path("good.py").write_text(GOOD.replace("Float(-1, 1)", "Float(-2, 1)"))
    code, _, err = called(capsys, "tune", "good.py")
    assert code == 2
    assert "parameter 'x' was" in err
    assert "choose another name" in err


def test_methods_lists_whatever_discovery_finds(capsys):
    code, out, _ = called(capsys, "methods")
    assert code == 0
    for name in [*search.names(), *stop.names(), *run.names()]:
        assert re.search(rf"^ +{name} +\w", out, re.MULTILINE), name


def test_every_command_has_help(capsys):
    _, out, _ = called(capsys, "--help")
    commands = re.findall(r"^  (\w+)  ", out.split("Commands:")[1], re.MULTILINE)
    assert {"tune", "studies", "methods"} <= set(commands)
    for command in commands:
        code, out, _ = called(capsys, command, "--help")
        assert code == 0
        assert "Usage: luthier" in out


def began() -> bool:
    try:
        return len(load_study("runs/slow.db").trials) >= 2
    except LuthierError:
        return False


def test_ctrl_c_says_how_to_go_on():
    Path("slow.py").write_text(
        GOOD.replace("def objective(trial):", "def objective(trial):\n    time.sleep(0.5)").replace(
            "import luthier", "import time\nimport luthier"
        )
    )
    command = [sys.executable, "-c", "from luthier.cli import main; main()", "tune", "slow.py", "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not began():
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "running trial" in out
    assert "the same command goes on" in err
    assert "Traceback" not in err
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "6 of 6 trials" in done.stdout


@pytest.mark.slow
def test_the_iris_example_runs_along_its_grid(capsys):
    code, out, _ = called(capsys, "tune", str(ROOT / "examples" / "iris_forest.py"), "--trials", "20")
    assert code == 0
    best, others = out.split("The others")
    accuracy = float(re.search(r"accuracy ([\d.]+) +│", best)[1])
    assert accuracy > 0.94
    rows = re.findall(r"^ +\d+ +(0\.\d+)", others, re.MULTILINE)
    assert len(rows) == 19
    assert max(map(float, rows)) <= accuracy


def test_python_m_is_the_same_command():
    version = subprocess.run([sys.executable, "-m", "luthier", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("luthier, version ")
    wrong = subprocess.run([sys.executable, "-m", "luthier", "no-such-command"], capture_output=True, check=False)
    assert wrong.returncode == 2
