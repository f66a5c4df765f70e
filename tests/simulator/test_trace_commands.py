"""Commands ``trace ...``: from files to tables, JSON and pages; bad input is one line and exit 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import attnsim
from tests.traces.kineto.places import RECORDED

RING, LAYER = str(RECORDED / "gloo-ring"), str(RECORDED / "h100-kernels.json.gz")


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        attnsim.main(["trace", *arguments])
    assert caught.value.code == 0


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    run(*arguments, "--json", "-")
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        attnsim.main(["trace", *arguments])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_summary(capsys, tmp_path):
    data = run_json(capsys, "summary", RING, "--html", str(tmp_path / "s.html"))
    assert data["n_ranks"] == 2
    assert len(data["steps"]) == 4
    assert "Critical path across ranks" in (tmp_path / "s.html").read_text()
    run("summary", RING)
    shown = capsys.readouterr().out
    assert "Critical path across ranks" in shown and "attention forward" in shown


def test_files_may_be_named(capsys):
    data = run_json(capsys, "summary", f"{RING}/rank0.json.gz", f"{RING}/rank1.json.gz")
    assert data["n_ranks"] == 2


def test_diff_of_a_run_with_itself_and_steps(capsys, tmp_path):
    page = tmp_path / "d.html"
    assert run_json(capsys, "diff", RING, RING, "--html", str(page))["error"] == 0
    assert 'aria-label="Measured"' in page.read_text()
    data = run_json(capsys, "diff", LAYER, LAYER, "--step", "2")
    assert data["error"] < 0, "the fastest step is 3"
    assert sum(part["cost_s"] for part in data["parts"]) == pytest.approx(data["measured_s"] - data["simulated_s"])


def test_diff_of_a_simulation_and_a_recording(capsys, tmp_path):
    folder = tmp_path / "t"
    with pytest.raises(SystemExit):
        attnsim.main(
            f"simulate --schedule ring --heads 4 --head-dim 64 --seq-len 2048 --gpus 2 --pass forward "
            f"--topology h200-nvlink-pair --trace {folder}".split()
        )
    capsys.readouterr()
    data = run_json(capsys, "diff", str(folder), RING)
    assert data["error"] < -0.9, "an H200 against two CPU processes"
    assert data["parts"][0]["name"] == "compute/attention_forward/forward"
    assert data["kinds"]["compute/attention_forward/forward"] == {"simulated": 2, "measured": 2}


def test_convert_and_back(capsys, tmp_path):
    source = RING
    for name in ("a.parquet", "b.jsonl.gz", "c.npz", "d.jsonl", "e"):
        run("convert", source, str(tmp_path / name))
        source = str(tmp_path / name)
    assert "stay behind" in capsys.readouterr().err
    written = run_json(capsys, "convert", RING, str(tmp_path / "f.npz"))
    assert (written["n_ranks"], written["rows"]) == (2, 60)
    data = run_json(capsys, "diff", str(tmp_path / "a.parquet"), str(tmp_path / "e"))
    assert data["error"] == 0


def test_what_if(capsys, tmp_path):
    data = run_json(capsys, "what-if", RING, "--slow-rank", "1=3", "--trace", str(tmp_path / "t"))
    assert abs(data["reproduction_error"]) < 0.03
    assert data["speedup"] < 0.6
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["rank0.json", "rank1.json"]
    faster = run_json(capsys, "what-if", LAYER, "--gpu", "b200", "--recorded-on", "h100-sxm", "--host", "3")
    assert faster["speedup"] > 1.5
    run("what-if", LAYER)
    assert "simulated, unchanged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("summary", "/nowhere.json"), "trace /nowhere.json does not exist"),
        (("diff", RING, LAYER), "different numbers of ranks: got 2 and 1"),
        (("diff", RING, RING, "--step", "9"), "no such step: got 9"),
        (("what-if", RING, "--slow-rank", "one"), "slow rank: got one, expected RANK=FACTOR"),
        (("what-if", RING, "--slow-rank", "5=2"), "no such rank: got 5"),
        (("what-if", RING, "--gpu", "a100-80"), "--recorded-on"),
        (("what-if", RING, "--link", "0"), "factor of link: got 0"),
        (("what-if", RING, "--overlap", "some"), "unknown overlap"),
        (("convert", RING, "x.csv"), "suffix of x.csv is unknown"),
    ],
)
def test_bad_input(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_a_truncated_file_is_one_line(capsys, tmp_path):
    data = Path(LAYER).read_bytes()
    (tmp_path / "t.json.gz").write_bytes(data[: len(data) // 2])
    assert "gzip data is truncated" in refused(capsys, "summary", str(tmp_path / "t.json.gz"))


def simulate(*arguments: str) -> None:
    what = "simulate --schedule ring --heads 8 --head-dim 64 --seq-len 16k --gpus 4 --topology dgx-h100"
    with pytest.raises(SystemExit) as caught:
        attnsim.main([*what.split(), *arguments])
    assert caught.value.code == 0


def test_a_simulated_trace_has_launches_peers_waits_and_memory(capsys, tmp_path):
    simulate("--trace", str(tmp_path / "t"))
    events = json.loads((tmp_path / "t" / "rank1.json").read_text())["traceEvents"]
    kernels = [event for event in events if event.get("cat") == "kernel"]
    calls = {event["args"]["correlation"]: event for event in events if event.get("cat") == "cuda_runtime"}
    assert {event["args"]["correlation"] for event in kernels} == set(calls)
    assert all(calls[k["args"]["correlation"]]["ts"] <= k["ts"] for k in kernels)
    for phase in "sf":
        assert {event["id"] for event in events if event["ph"] == phase and event["cat"] == "ac2g"} == set(calls)
    hops = [event["args"] for event in kernels if event["name"].startswith("ncclDevKernel_SendRecv")]
    assert hops
    assert {(hop["Dst Rank"], hop["Src Rank"], hop["Group size"], hop["Process Group Ranks"]) for hop in hops} == {
        (2, 0, 4, "[0, 1, 2, 3]")
    }
    assert all(hop["In msg nelems"] == hop["bytes"] > 0 for hop in hops)
    assert any(event.get("cat") == "cuda_sync" for event in events)
    capsys.readouterr()
    memory = [event["args"]["bytes"] for event in events if event["ph"] == "C"]
    assert max(memory) > 4096 * 8 * 64 * 2 * 3
    data = run_json(capsys, "what-if", str(tmp_path / "t"))
    assert abs(data["reproduction_error"]) < 0.03
    assert not data["warnings"]


def test_simulated_chakra_traces_can_be_asked(capsys, tmp_path):
    folder = tmp_path / "et"
    simulate("--chakra", str(folder))
    assert sorted(p.name for p in folder.iterdir()) == [*(f"attnsim.{r}.et" for r in range(4)), "comm_groups.json"]
    capsys.readouterr()
    assert run_json(capsys, "what-if", str(folder), "--link", "0.01")["speedup"] < 0.5
    assert "overlap of Chakra traces cannot change" in refused(capsys, "what-if", str(folder), "--overlap", "none")


def test_a_comparison_writes_a_folder_for_each_schedule(tmp_path, capsys):
    what = "compare --heads 8 --head-dim 64 --seq-len 16k --gpus 4 --topology dgx-h100 --pass forward --chakra"
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            attnsim.main([*what.split(), str(tmp_path / "all")])
        assert caught.value.code == 0
    ring = next(each for each in (tmp_path / "all").iterdir() if each.name.startswith("ring"))
    assert (ring / "attnsim.3.et").exists()
