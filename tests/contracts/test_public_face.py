"""The public names: there, documented, and bound without loading what is heavy."""

import inspect
import subprocess
import sys

import pytest

import luthier as lt

CONTRACT = [
    *("Space", "Float", "Int", "Choice", "Ordinal", "tune", "AskTell", "TrialStopped", "Limits", "load_study"),
    *("search", "stop", "Task", "fit", "profile", "prune_weights", "prune_neurons", "distill", "evaluate"),
    *("save", "load", "export_onnx", "compress"),
]


@pytest.mark.parametrize("name", CONTRACT)
def test_the_contract_is_there(name):
    assert hasattr(lt, name)


@pytest.mark.parametrize("name", [n for n in dir(lt) if not n.startswith("__")])
def test_every_public_name_says_what_it_is(name):
    documented = inspect.getdoc(getattr(lt, name)) or ""
    assert len(documented.split("\n")[0]) > 15
    if inspect.isfunction(getattr(lt, name)):
        assert "Args:" in documented


def test_verbs_stay_functions_whatever_is_imported_first():
    script = (
        "import luthier.compression.verb, luthier.distillation.student, luthier.search.auto, luthier as lt\n"
        "assert callable(lt.distill) and callable(lt.compress) and callable(lt.profile) and lt.search.Bayes"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_import_loads_nothing_heavy():
    script = "import sys, luthier; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "sqlalchemy", "plotly", "pandas", "scipy", "sklearn", "rich"} & set(loaded)


def test_tuning_loads_no_torch():
    script = (
        "import sys, luthier as lt\n"
        "lt.tune(lambda t: t['x'], lt.Space(x=lt.Float(0, 1)), minimize='x', trials=3, progress=False)\n"
        "assert not {'torch', 'plotly', 'pandas', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="tun"):
        lt.tun  # noqa: B018
