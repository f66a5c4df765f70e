"""Committed measurements through fit and comparison: the errors are those of the committed report.

Change a model term and these figures change: the test then says by how much, and the report is made anew with
``attnsim validate docs/validation/h100-gloo-14 --backend gloo --json docs/validation/h100-gloo-14/agreement.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cost_models.hardware import load_hardware
from cost_models.hardware.load import parse_hardware
from cost_models.processes import fit_processes, load_processes
from traces.errors import InputError
from validators.validation.agreement import summarise
from validators.validation.call_fit import fit_calls
from validators.validation.compare import compare_folder, compare_folders
from validators.validation.forecast import GpuPredictor, HostPredictor
from validators.validation.pair_fit import fit_pair
from validators.validation.process_fit import calibration_samples, program_of
from validators.validation.report import by_limit, by_link
from validators.validation.runs import FILE, RunFolder, open_folders

ROOT = Path(__file__).parents[3] / "docs" / "validation"
RECORDS = ROOT.parents[1] / "validators" / "records"
GLOO, SINGLE = ROOT / "h100-gloo-14", ROOT / "h100-single"


@pytest.fixture(scope="module")
def committed() -> dict[str, object]:
    found: dict[str, object] = json.loads((GLOO / "agreement.json").read_text())
    return found


def test_gloo_errors_are_the_reports(committed: dict[str, dict[str, dict[str, object]]]) -> None:
    """Fresh draws, which no model term has seen."""
    folder = RunFolder(GLOO / "runs")
    folder.runs = {key: run for key, run in folder.runs.items() if run.configuration.ranks == 4}
    agreements = compare_folder(folder, HostPredictor(load_processes(GLOO / "profile.json")))
    summary, golden = summarise(agreements), committed["by_ranks"]["4"]
    assert summary["runs"] == golden["runs"] == 70
    for name in ("error", "exposed_communication_error", "measured_spread"):
        assert summary[name] == pytest.approx(golden[name], abs=1e-6), name
    assert summary["ordered_right"] == pytest.approx(golden["ordered_right"])
    assert summary["error"]["median_size"] < 0.10 and summary["error"]["p95_size"] < 0.25


def test_the_fit_of_the_calibration_is_the_profile() -> None:
    folder = RunFolder(GLOO / "calibration")
    runs = [run for run in folder.runs.values() if run.configuration.ranks == 4]
    fitted = fit_processes(calibration_samples(folder, runs, [program_of(run) for run in runs]))
    table = load_processes(GLOO / "profile.json").tables[4]
    assert fitted.keys() == table.keys()
    for term, values in table.items():
        assert fitted[term] == pytest.approx(values, rel=1e-3), term


@pytest.mark.parametrize("name", ["runs", "runs-32"])
def test_single_gpu_errors_are_the_reports(name: str) -> None:
    """Runs of other seeds than those that isolated calls and intervals were fitted to; every result is right.

    Made anew with ``attnsim validate docs/validation/h100-single/NAME --hardware h100-sxm --topology dgx-h100 --json``.
    """
    golden = json.loads((SINGLE / name / "agreement.json").read_text())["by_limit"]
    folder = RunFolder(SINGLE / name)
    agreements = compare_folder(folder, GpuPredictor("h100-sxm", "dgx-h100"))
    assert all(max(each.run.errors.values()) < 1e-2 for each in agreements)
    for limit, some in by_limit(agreements).items():
        summary = summarise(some)
        assert summary["runs"] == golden[limit]["runs"] >= 8, limit
        assert summary["error"] == pytest.approx(golden[limit]["error"], abs=1e-4), limit
        assert summary["in_90_percent_interval"] == golden[limit]["in_90_percent_interval"], limit
        assert golden[limit]["probability_of_so_few"] > 0.01, limit


def test_terms_of_isolated_calls_are_the_profiles() -> None:
    profile = load_hardware("h100-sxm")
    fitted = fit_calls([RunFolder(SINGLE / name) for name in ("calls", "calls-31")], profile, "dgx-h100")
    assert fitted.runs == 78
    assert (fitted.isolated, fitted.isolated_error, fitted.call_error) == pytest.approx(
        (profile.host.isolated, profile.host.isolated_error, profile.call_error), rel=2e-3
    )


@pytest.mark.parametrize("name", ["h100-steps", "h100-steps-heldout", "h100-steps-207"])
def test_errors_of_training_steps_are_the_reports(name: str) -> None:
    """Made anew with ``attnsim validate docs/validation/NAME --hardware h100-sxm --topology dgx-h100 --json ...``."""
    golden = json.loads((ROOT / name / "agreement.json").read_text())["summary"]
    summary = summarise(compare_folder(RunFolder(ROOT / name), GpuPredictor("h100-sxm", "dgx-h100")))
    assert summary["runs"] == golden["runs"] >= 17
    for figures in ("error", "peak_memory_error"):
        assert summary[figures] == pytest.approx(golden[figures], abs=1e-4), figures
    assert summary["error"]["median_size"] < 0.05
    assert summary["peak_memory_error"]["p95_size"] < 0.05


def test_runs_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    good = (GLOO / "runs" / FILE).read_bytes().split(b"\n")[0]
    for bad in (b"{}", b"[" * 2000, good.replace(b'"outcome": "measured"', b'"outcome": "fast"'),
                good.replace(b'"seq_len": ', b'"seq_len": "x", "was": ')):  # fmt: skip
        (tmp_path / FILE).write_bytes(bad + b"\n")
        with pytest.raises(InputError, match="no measured run"):
            RunFolder(tmp_path)


def test_a_half_written_line_is_measured_again(tmp_path: Path) -> None:
    lines = (GLOO / "runs" / FILE).read_bytes().split(b"\n")
    (tmp_path / FILE).write_bytes(lines[0] + b"\n" + lines[1][:50])
    assert len(RunFolder(tmp_path).runs) == 1
    assert (tmp_path / FILE).read_bytes() == lines[0] + b"\n"


def test_the_fit_of_two_gpus_is_the_profile() -> None:
    """Made anew with ``attnsim calibrate --hardware h100-sxm --network FOLDER --runs ...``, as its source says."""
    folder = ROOT / "h100-pair" / "fit"
    runs = [folder / f"runs-{link}" for link in ("nvlink", "channels-1", "channels-2", "channels-4", "shm", "socket")]
    text, report = fit_pair(RECORDS / "h100-nvlink-pair", runs, "h100-sxm", None)
    fitted, committed = parse_hardware(text, "h100-nvlink-pair"), load_hardware("h100-nvlink-pair")
    assert fitted.pairs == committed.pairs and "## channels-2, two ranks" in report
    assert fitted.interference.communication_share == pytest.approx(
        committed.interference.communication_share, rel=2e-2
    )
    assert fitted.host.isolated == pytest.approx(committed.host.isolated, rel=2e-2)
    left_out = [line for line in report.splitlines() if line.startswith("| exchange | 21 |")]
    assert len(left_out) == 5
    assert all(float(line.split("|")[3].strip(" %")) < 8 for line in left_out)


REACHED = {"nvlink, peers, device": (0.03, 0.08), "shm, ours, device": (0.04, 0.1), "shm, peers, device": (0.05, 0.12)}
"""Targets of the cross-check that are reached on two GPUs: median and 95th percentile of errors."""


@pytest.mark.parametrize("name", ["h100-pair/judge", "h100-pair/executor", "h100-pair-steps"])
def test_errors_on_two_gpus_are_the_reports(name: str) -> None:
    """Runs that nothing was fitted to; every result is right.

    Made anew with ``attnsim validate docs/validation/NAME --hardware h100-nvlink-pair --json ...``.
    """
    golden = json.loads((ROOT / name / "agreement.json").read_text())
    agreements, predictor = [], GpuPredictor("h100-nvlink-pair", None)
    for folder in open_folders(ROOT / name):
        assert not [run for run in folder.runs.values() if run.outcome == "wrong"]
        agreements += compare_folder(folder, predictor)
    for link, some in by_link(agreements).items():
        summary = summarise(some)
        assert summary["runs"] == golden["by_link"][link]["runs"], link
        assert summary["error"] == pytest.approx(golden["by_link"][link]["error"], abs=1e-4), link
    assert golden["summary"]["probability_of_so_few"] > 0.01
    reached = {link: target for link, target in REACHED.items() if link in golden["by_link"]}
    assert reached or name == "h100-pair-steps"
    for link, (median, p95) in reached.items():
        error = golden["by_link"][link]["error"]
        assert error["median_size"] <= median and error["p95_size"] <= p95, link


def test_errors_on_the_runs_of_the_fit_are_the_reports() -> None:
    """Each run by its link type; made anew by ``attnsim validate FOLDER --hardware h100-nvlink-pair --json``."""
    folder = ROOT / "h100-pair" / "fit"
    golden = json.loads((folder / "agreement.json").read_text())["by_link"]
    agreements = compare_folders(open_folders(folder), GpuPredictor("h100-nvlink-pair", None))
    found = by_link(agreements)
    assert found.keys() == golden.keys()
    for name, some in found.items():
        summary = summarise(some)
        assert summary["runs"] == golden[name]["runs"], name
        for figures in ("error", "exposed_communication_error"):
            assert summary[figures] == pytest.approx(golden[name][figures], abs=1e-4), (name, figures)
        assert summary["ordered_right"] == golden[name]["ordered_right"], name
