"""The command line: options, what goes to which stream and file, and exit codes. Simulation itself is replaced."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import attnsim
from simulator.progress import Progress
from simulator.request import SimulationRequest
from simulator.result import Refused, SimulationResult
from tests.simulator.examples import example_result, example_timeline
from traces.errors import InputError

OPTIONS = ["--model", "llama-3.1-8b", "--seq-len", "128k", "--gpus", "2", "--topology", "h200-nvlink-pair"]
COMPARE = ["compare", *OPTIONS]
SIMULATE = ["simulate", "--schedule", "ring", *OPTIONS]
ULYSSES = Refused("ulysses", "3 heads on 2 GPUs")


@dataclass
class Simulator:
    """Stands in for the simulator: remembers what was asked, answers what it is told to."""

    outcomes: list[Any] = field(default_factory=list)
    requests: list[SimulationRequest] = field(default_factory=list)

    def simulate(self, request: SimulationRequest, progress: Progress | None = None) -> SimulationResult:
        self.requests.append(request)
        if progress is not None:
            progress("ring", 1, 1)
        if isinstance(self.outcomes[0], Exception):
            raise self.outcomes[0]
        return self.outcomes[0] if request.timeline else replace(self.outcomes[0], timeline=None)

    def compare(self, request: SimulationRequest, progress: Progress | None = None) -> list[Any]:
        self.requests.append(request)
        if progress is not None:
            progress("ring", 1, 1)
        return self.outcomes


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Simulator:
    slow = example_result("burst:ring=flat", 0.02, timeline=example_timeline(), breakdown={"idle": 7})
    fake = Simulator([example_result(timeline=example_timeline(), breakdown={"idle": 7}), slow, ULYSSES])
    for name in ("simulate", "compare"):
        module = ModuleType(f"simulator.{name}")
        setattr(module, name, getattr(fake, name))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return fake


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            attnsim.main(arguments)
        out, err = capsys.readouterr()
        return int(exited.value.code or 0), out, err

    return run


Run = Callable[..., tuple[int, str, str]]


def test_every_option_reaches_the_request(simulator: Simulator, run: Run, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "schedule": "ring:grad=bf16", "heads": 8, "kv_heads": 4, "head_dim": 64, "seq_len": "1M", "gpus": 4, "nodes": 2,
        "hardware": "h100-sxm", "topology": "dgx-h100", "batch": 3, "dtype": "fp16", "mask": "full",
        "layers": "attention", "pass_": "backward", "kernel": "flash3", "engine": "des", "model": "m.json",
        "tp": 2, "dp": 4, "pp": 2, "placement": "cp-tp-dp-pp", "tp_version": 3, "zero": 1, "checkpoint": "full",
        "offload": "all", "allocator_slack": 1.2, "prune": "heads=0.5",
        "weight_bits": 4.5, "kv_block": 16, "kv_dtype": "fp8", "mla": "absorbed", "prefill_chunk": "2k",
        "cached_prefix": "1k", "new_tokens": 2, "stage_link": "5ms,1Gbit/s",
        "microbatches": 5, "loss_chunks": 6, "optimizer": "adamw-8bit", "method": "lora:rank=8", "ep": 2,
        "routing": "zipf:seed=1", "capacity": 1.5, "lost_rank": "1", "jitter": 0.1, "seed": 3, "draws": 7,
        "what_if": "net=2", "host_numa": "0", "virtual_stages": 2,
    }  # fmt: skip
    several = {"slow_rank": ("0:1.5", "2:1.1"), "slow_link": ("gpu:0->nvs:0:0.5",), "lost": ("nic:0.1",)}
    several |= {"nccl": ("NCCL_P2P_LEVEL=SYS", "NCCL_ALGO=Ring,Tree")}
    arguments = [text for name, value in values.items() for text in (_flag(name), str(value))]
    arguments += [text for name, texts in several.items() for each in texts for text in (_flag(name), each)]
    flags = ("cuda_graphs", "fp8", "overlap_microbatches")
    assert run("simulate", *arguments, "--no-interference", *map(_flag, flags))[0] == 0
    asked = {"interference": False, "timeline": False, **dict.fromkeys(flags, True)}
    assert simulator.requests == [SimulationRequest(**values, **several, **asked)]
    assert {*values, *several, *asked, "peers"} == set(SimulationRequest.__dataclass_fields__)


def _flag(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")


def test_defaults_are_those_of_python(simulator: Simulator, run: Run) -> None:
    run(*COMPARE)
    asked = {"model": "llama-3.1-8b", "seq_len": "128k", "gpus": 2, "topology": "h200-nvlink-pair"}
    assert simulator.requests == [SimulationRequest(**asked, timeline=False)]
    attnsim.compare(**asked, timeline=False)
    assert simulator.requests[1] == simulator.requests[0]


def test_peers_are_listed_on_demand(simulator: Simulator, run: Run) -> None:
    run(*COMPARE, "--peers")
    assert simulator.requests[0].peers


def test_simulate_prints_a_summary_and_warns_on_standard_error(simulator: Simulator, run: Run) -> None:
    status, out, err = run(*SIMULATE)
    assert status == 0
    assert "attention of llama-3.1-8b, 128k tokens, causal, bf16, batch 1 on 2 h200-sxm of h200-nvlink-pair" in out
    assert "12 ms  (90%: 11.4 ms to 12.6 ms)" in out
    assert err == "warning: links are not shared\n"


def test_compare_prints_groups_and_each_warning_once(simulator: Simulator, run: Run) -> None:
    status, out, err = run(*COMPARE)
    assert status == 0
    assert out.index("Exact") < out.index("ring:") < out.index("burst:") < out.index("Refused") < out.index("ulysses")
    assert err == "warning: links are not shared\n"


def test_json_on_standard_output_stands_alone(simulator: Simulator, run: Run) -> None:
    status, out, err = run(*SIMULATE, "--json", "-")
    assert status == 0
    assert SimulationResult.from_json(json.loads(out)) == simulator.outcomes[0]
    assert "12 ms" in err


def test_compare_writes_a_list(simulator: Simulator, run: Run) -> None:
    out = json.loads(run(*COMPARE, "--json", "-")[1])
    assert [entry["schedule"] for entry in out] == [each.schedule for each in simulator.outcomes]
    assert out[-1] == {"schedule": "ulysses", "reason": "3 heads on 2 GPUs"}


def test_files_of_one_schedule(simulator: Simulator, run: Run, tmp_path: Path) -> None:
    targets = ["--json", str(tmp_path / "r.json"), "--trace", str(tmp_path / "t"), "--html", str(tmp_path / "r.html")]
    assert run(*SIMULATE, *targets)[0] == 0
    assert simulator.requests[0].timeline
    assert json.loads((tmp_path / "r.json").read_text())["time_s"] == 0.012
    assert sorted(each.name for each in (tmp_path / "t").iterdir()) == ["rank0.json", "rank1.json"]
    html = (tmp_path / "r.html").read_text()
    assert "Plotly.newPlot" in html
    assert "links are not shared" in html


def test_files_of_a_comparison(simulator: Simulator, run: Run, tmp_path: Path) -> None:
    arguments = [*COMPARE, "--trace", str(tmp_path / "t"), "--html", str(tmp_path / "r.html")]
    assert run(*arguments)[0] == 0
    assert run(*arguments)[0] == 0  # its own earlier result is replaced
    found = sorted(str(each.relative_to(tmp_path)) for each in (tmp_path / "t").glob("*/*"))
    folders = ("t/burst-ring=flat", "t/ring-partition=zigzag-grad=fp32")
    assert found == [f"{folder}/rank{rank}.json" for folder in folders for rank in (0, 1)]
    assert "3 heads on 2 GPUs" in (tmp_path / "r.html").read_text()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["r.html", "t"]


@pytest.mark.parametrize("command", [SIMULATE, COMPARE], ids=["simulate", "compare"])
def test_a_folder_of_others_is_left_alone(simulator: Simulator, run: Run, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "thesis.tex").write_text("")
    status, out, err = run(*command, "--trace", str(tmp_path), "--json", "-")
    assert (status, out) == (2, "")
    assert "holds other files: got thesis.tex" in err
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("option", ["--json", "--html", "--trace"])
def test_where_nothing_can_be_written(simulator: Simulator, run: Run, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    status, out, err = run(*COMPARE, option, str(tmp_path / "file" / "below"))
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_failure_while_tracing_leaves_the_older_result(simulator: Simulator, run: Run, tmp_path: Path) -> None:
    run(*COMPARE, "--trace", str(tmp_path / "t"))
    simulator.outcomes[1] = replace(simulator.outcomes[1], timeline=None)
    status, _, err = run(*COMPARE, "--trace", str(tmp_path / "t"))
    assert status == 2
    assert "burst:ring=flat has too many operations to trace" in err
    assert len(list((tmp_path / "t").glob("*/*"))) == 4
    assert [each.name for each in tmp_path.iterdir()] == ["t"]


def test_nothing_can_run(simulator: Simulator, run: Run) -> None:
    simulator.outcomes = [ULYSSES, Refused("flash", "needs one GPU"), replace(ULYSSES, schedule="usp")]
    status, out, err = run(*COMPARE, "--json", "-")
    assert (status, out) == (2, "")
    assert err == "error: no schedule can run: ulysses, usp: 3 heads on 2 GPUs; flash: needs one GPU\n"


def test_bad_input_is_one_line(simulator: Simulator, run: Run) -> None:
    simulator.outcomes = [InputError("seq_len does not divide", got="a\nb", remedy="use 6")]
    assert run(*SIMULATE) == (2, "", "error: seq_len does not divide: got a b; use 6\n")


def test_our_own_mistakes_are_not_swallowed(simulator: Simulator, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator.outcomes = [ZeroDivisionError("ours")]
    status, _, err = run(*SIMULATE)
    assert status == 2
    assert "a defect of its own: got ZeroDivisionError: ours" in err
    monkeypatch.setenv("ATTNSIM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError, match="ours"):
        attnsim.main(SIMULATE)


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate", *OPTIONS],
        ["compare", "--gpus", "2"],
        ["compare", *OPTIONS, "--gpus", "two"],
        ["compare", *OPTIONS, "--colour", "red"],
        ["compare", *OPTIONS, "extra"],
        ["topology"],
        ["simulte"],
        ["trace"],
    ],
)
def test_usage_errors(simulator: Simulator, run: Run, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.endswith(" --help\n") and err.count("\n") == 1
    assert simulator.requests == []


@pytest.mark.parametrize("command", ["simulate", "compare", "topology"])
def test_help_of_a_command_lists_its_options(run: Run, command: str) -> None:
    status, out, _ = run(command, "--help")
    assert status == 0
    assert ("--kernel NAME" in out) == (command != "topology")
    assert "--json FILE|-" in out
    assert command in run("--help")[1]


def test_topology_prints_tables(run: Run) -> None:
    status, out, err = run("topology", "docs/examples/h200x2_topo.xml")
    assert status == 0
    assert "h200-sxm" in out
    assert all(line.startswith("warning: ") for line in err.splitlines())


def test_topology_as_json(run: Run) -> None:
    status, out, err = run("topology", "dgx-h100", "--gpus", "16", "--json", "-")
    assert status == 0
    assert (json.loads(out)["ranks"], json.loads(out)["nodes"]) == (16, 2)
    assert "h100-sxm" in err
    assert run("topology", "nope")[0] == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OverflowError("int too large"), "a number is too large: got int too large"),
        (MemoryError(), "too little memory"),
        (KeyError("lost\nkey"), "a defect of its own: got KeyError"),
    ],
)
def test_no_traceback_reaches_the_user_unless_asked_for(
    simulator: Simulator, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    simulator.outcomes = [error]
    monkeypatch.delenv("ATTNSIM_DEBUG", raising=False)
    status, out, err = run(*SIMULATE)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert said in err
    monkeypatch.setenv("ATTNSIM_DEBUG", "1")
    with pytest.raises(type(error)):
        attnsim.main(SIMULATE)
