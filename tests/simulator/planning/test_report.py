"""Reports of plans and sweeps: figures of what varies, and every number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import attnsim
from traces.display import format_ns

BASE = ("--heads", "8", "--kv-heads", "8", "--head-dim", "64", "--topology", "dgx-h100", "--workers", "1")


def run(tmp_path: Path, *arguments: str) -> tuple[str, object]:
    html, data = tmp_path / "report.html", tmp_path / "data.json"
    with pytest.raises(SystemExit, match="0"):
        attnsim.main([*arguments, *BASE, "--html", str(html), "--json", str(data)])
    return html.read_text(encoding="utf-8"), json.loads(data.read_text())


def test_a_sweep_draws_curves_over_what_varies(tmp_path: Path) -> None:
    html, rows = run(tmp_path, "sweep", "--over", "gpus=2 4", "--over", "schedule=ring ulysses", "--seq-len", "8k")
    assert "Scaling" in html and "perfect scaling" in html and "Which schedule is quickest" not in html
    assert isinstance(rows, list)
    for row in rows:
        assert format_ns(row["time_s"] * 1e9) in html


def test_a_sweep_of_lengths_and_links_draws_the_crossover_map(tmp_path: Path) -> None:
    axes = ("--over", "seq-len=4k 8k", "--over", "schedule=ring ulysses", "--over", "what-if=nvlink=0.1 nvlink=2")
    html, _ = run(tmp_path, "sweep", *axes, "--gpus", "4")
    assert "Which schedule is quickest" in html and "NVLink bandwidth" in html
    assert "what_if=nvlink=0.1" in html


def test_a_plan_draws_its_front_and_lists_what_was_dropped(tmp_path: Path) -> None:
    html, found = run(tmp_path, "plan", "--gpus", "2", "--seq-len", "8k", "--layers",
                      "attention")  # fmt: skip
    assert "Time against memory" in html and "Pareto front" in html
    assert isinstance(found, dict)
    assert format_ns(found["candidates"][0]["time_s"] * 1e9) in html
