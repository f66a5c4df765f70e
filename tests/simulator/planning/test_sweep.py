"""Sweeps: lists and ranges of values, and their table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import attnsim
from simulator.planning.axes import parse_axes
from simulator.planning.runners import Here
from simulator.planning.sweep import run_sweep, write_table
from simulator.request import SimulationRequest
from traces.errors import InputError

BASE = SimulationRequest(heads=8, kv_heads=8, head_dim=64, seq_len="8k", gpus=4, topology="dgx-h100")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seq-len=64k..1M", [65536, 131072, 262144, 524288, 1048576]),
        ("gpus=8..32:8", [8, 16, 24, 32]),
        ("gpus=2 4 16", [2, 4, 16]),
        ("schedule=ring burst:ring=flat,grad=fp32", ["ring", "burst:ring=flat,grad=fp32"]),
        ("pass=forward backward", ["forward", "backward"]),
        ("what-if=net=0.5 net=2,flop=2", ["net=0.5", "net=2,flop=2"]),
    ],
)
def test_axes(text: str, values: list[Any]) -> None:
    assert list(parse_axes([text]).values()) == [values]


@pytest.mark.parametrize("text", ["gpus", "gpus=", "speed=1", "gpus=8..2", "gpus=0..2", "gpus=1..1M:1", "gpus=x"])
def test_bad_axes_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_axes([text])


def test_an_axis_twice_is_refused() -> None:
    with pytest.raises(InputError, match="twice"):
        parse_axes(["gpus=1", "gpus=2"])


def test_rows_are_all_combinations_in_order_and_refusals_say_why() -> None:
    axes = {"schedule": ["ring", "ulysses"], "gpus": [2, 4, 16], "what_if": ["", "nvlink=0.1"]}
    rows, complete = run_sweep(BASE, axes, Here())
    assert complete
    assert [(row["schedule"], row["gpus"]) for row in rows[::2]] == [
        ("ring", 2), ("ring", 4), ("ring", 16), ("ulysses", 2), ("ulysses", 4), ("ulysses", 16),
    ]  # fmt: skip
    single = attnsim.simulate(heads=8, kv_heads=8, head_dim=64, seq_len="8k", gpus=4, topology="dgx-h100",
                              schedule="ring", engine="maxplus")  # fmt: skip
    assert rows[2]["time_s"] == single.time_s
    assert rows[3]["time_s"] > rows[2]["time_s"]
    assert rows[-1]["time_s"] is None
    assert "8 heads are not divisible by 16 ranks" in rows[-1]["reason"]


def test_tables_round_trip(tmp_path: Path) -> None:
    rows, _ = run_sweep(BASE, {"schedule": ["ring"], "seq_len": [4096, 8192]}, Here())
    write_table(rows, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [float(row["time_s"]) for row in read] == [row["time_s"] for row in rows]
    parquet = pytest.importorskip("pyarrow.parquet")
    write_table(rows, tmp_path / "t.parquet")
    assert parquet.read_table(tmp_path / "t.parquet").to_pylist() == rows
    with pytest.raises(InputError, match="unknown kind"):
        write_table(rows, tmp_path / "t.xlsx")


def test_the_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shape = ["--heads", "8", "--head-dim", "64", "--seq-len", "8k", "--gpus", "4", "--topology", "dgx-h100"]
    for arguments in (
        ["plan", "--layers", "attention", "--top", "2", "--over", "schedule=ring ulysses", *shape],
        ["sweep", "--over", "schedule=ring ulysses", "--table", str(tmp_path / "t.csv"), *shape],
    ):
        with pytest.raises(SystemExit) as exited:
            attnsim.main([*arguments, "--workers", "1", "--json", "-"])
        assert not exited.value.code
        out, err = capsys.readouterr()
        assert json.loads(out)
        assert "points" in err or "Best by time" in err
    assert (tmp_path / "t.csv").read_text().count("\n") == 3


def test_what_varies_need_not_be_given_besides() -> None:
    shape = {"heads": 8, "head_dim": 64, "topology": "dgx-h100", "workers": 1}
    rows = attnsim.sweep({"seq_len": ["4k", "8k"], "gpus": [2], "schedule": ["ring"]}, **shape)
    assert [row["seq_len"] for row in rows] == ["4k", "8k"]
    assert rows[0]["time_s"] < rows[1]["time_s"]
