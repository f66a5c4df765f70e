"""Who may import whom: the rules hold, and they bite; nothing shadows our packages; the root imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import attnsim

ROOT = Path(attnsim.__file__).parent
HEAVY = ("dash", "numpy", "rich", "scipy", "networkx", "plotly", "simpy", "torch")


def run_python(code: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *flags, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return run_python("from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])", folder)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The rules with packages that are empty but for what is allowed."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    inner = ("simulator/engines", "simulator/engines/des", "traces/figures", "cost_models/topology")
    for package in (*attnsim.PACKAGES, *inner):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "traces/figures/bars.py").write_text("import plotly.graph_objects\n")
    (tmp_path / "traces/report.py").write_text("import traces.figures.bars\n")
    (tmp_path / "simulator/engines/des/engine.py").write_text("import simpy\n")
    (tmp_path / "simulator/run.py").write_text(
        "import simulator.engines.des.engine, traces.report, cost_models.topology.graph\n"
    )
    (tmp_path / "cost_models/topology/graph.py").write_text("import networkx as nx\n")
    (tmp_path / "validators/gpu.py").write_text("import torch, simulator.run\n")
    return tmp_path


def test_rules_allow_what_the_architecture_says(project: Path) -> None:
    done = lint_imports(project)
    assert done.returncode == 0, done.stdout
    assert "6 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "imported", "rule"),
    [
        ("traces/bad.py", "cost_models", "reality, machines, laws, data"),
        ("cost_models/bad.py", "simulator.run", "reality, machines, laws, data"),
        ("simulator/bad.py", "validators", "reality, machines, laws, data"),
        ("simulator/bad.py", "torch", "torch only in validators"),
        ("traces/figures/bad.py", "torch.cuda", "torch only in validators"),
        ("simulator/engines/maxplus.py", "simpy", "simpy only in the DES engine"),
        ("validators/bad.py", "simpy", "simpy only in the DES engine"),
        ("traces/bad.py", "plotly.io", "plotly only in figures"),
        ("simulator/bad.py", "networkx", "networkx only in topology"),
        ("simulator/bad.py", "dash", "dash only in the dashboard"),
    ],
)
def test_rules_refuse(project: Path, module: str, imported: str, rule: str) -> None:
    (project / module).write_text(f"import {imported}\n")
    done = lint_imports(project)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    assert len(broken) == 1
    assert broken[0].startswith(rule)


def test_no_other_distribution_brings_our_names() -> None:
    providers = importlib.metadata.packages_distributions()
    for name in ("attnsim", *attnsim.PACKAGES):
        assert set(providers.get(name, ())) <= {"attnsim"}


@pytest.mark.parametrize("name", attnsim.PACKAGES)
def test_a_package_that_hides_ours_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    done = run_python(f"import sys; sys.path.insert(1, {str(ROOT)!r}); import attnsim", tmp_path)
    assert done.returncode == 1
    assert f"ImportError: attnsim needs its own package '{name}' in {ROOT}, but Python finds {tmp_path}" in done.stderr


def test_a_folder_of_traces_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    code = f"import sys; sys.path.insert(1, {str(ROOT)!r}); import attnsim; print(attnsim.InputError('x').message)"
    assert run_python(code, tmp_path).stdout == "x\n"


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [(None, (*HEAVY, "typer", "pydantic")), (["--help"], (*HEAVY, "pydantic")), (["compare", "--help"], HEAVY)],
    ids=["import", "help", "help-of-a-command"],
)
def test_the_root_imports_nothing_heavy(arguments: list[str] | None, heavy: tuple[str, ...]) -> None:
    call = "" if arguments is None else f"attnsim.main({arguments!r})"
    code = f"import atexit, sys, attnsim; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {call}"
    done = run_python(code, ROOT)
    assert done.returncode == 0
    assert not set(heavy) & set(done.stderr.split())


@pytest.mark.parametrize("module", ["validation.worker", "bench.__main__", "record_trace"])
def test_measuring_needs_no_more_than_a_gpu_node_has(module: str) -> None:
    """PyTorch and NumPy: no other of our dependencies (networkx is PyTorch's, too)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    absent = {re.split("[>=]", each)[0] for each in project["dependencies"]} - {"numpy", "networkx"}
    code = f"import sys; sys.modules.update(dict.fromkeys({sorted(absent)!r})); import validators.{module}"
    done = run_python(code, ROOT)
    assert done.returncode == 0, done.stderr


def test_public_names_that_are_there() -> None:
    assert set(attnsim.__all__) <= set(dir(attnsim))
    assert attnsim.load_model("yi-34b").heads == 56
    assert attnsim.SimulationRequest(seq_len=1, gpus=1).gpus == 1
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = attnsim.simulat


def test_every_public_name_resolves() -> None:
    for name in attnsim.__all__:
        assert getattr(attnsim, name).__name__ == name


def test_a_request_or_options_but_not_both() -> None:
    request = attnsim.SimulationRequest(seq_len=1, gpus=1)
    with pytest.raises(TypeError, match="not both: gpus"):
        attnsim.simulate(request, gpus=2)
