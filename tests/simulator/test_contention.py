"""The engine that a request gets, and the links that a result names."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from simulator.report import write_result_report
from simulator.request import SimulationRequest
from simulator.result import SaturatedLink, SimulationResult, SlowedTransfer
from simulator.simulate import simulate
from simulator.tables import simulate_tables
from tests.simulator.examples import example_result


def simulated(topology: str, engine: str, gpus: int = 16) -> SimulationResult:
    return simulate(
        SimulationRequest(
            model="llama-3.1-8b",
            seq_len="32k",
            gpus=gpus,
            topology=topology,
            schedule="burst:ring=double",
            engine=engine,
        )
    )


def test_auto_takes_simpy_where_links_are_shared_and_names_them() -> None:
    result = simulated("pcie-8x", "auto")
    assert result.engine == "des" and not any("shared" in text for text in result.warnings)
    assert result.saturated_links
    times = [each.saturated_s for each in result.saturated_links]
    assert times == sorted(times, reverse=True) and 0 < times[0] <= result.time_s
    for each in result.saturated_links:
        assert all(0 < slowed.slowed_s <= each.saturated_s for slowed in each.slowed)


def test_auto_takes_maxplus_where_they_are_not_and_both_engines_agree() -> None:
    auto, des = simulated("dgx-h100", "auto"), simulated("dgx-h100", "des")
    assert (auto.engine, des.engine) == ("maxplus", "des")
    assert auto.time_s == pytest.approx(des.time_s, rel=2e-3) and not auto.saturated_links and not des.saturated_links
    assert not any("shared" in text for text in auto.warnings)


def test_maxplus_says_what_it_neglects() -> None:
    result = simulated("pcie-8x", "maxplus")
    assert result.engine == "maxplus" and any("links are shared" in text for text in result.warnings)
    assert result.time_s == pytest.approx(simulated("pcie-8x", "des").time_s, rel=0.25)


def test_interference_is_on_unless_asked_otherwise() -> None:
    options = {"model": "llama-3.1-8b", "seq_len": "32k", "gpus": 8, "topology": "dgx-h100", "schedule": "burst"}
    on, off = simulate(SimulationRequest(**options)), simulate(SimulationRequest(**options, interference=False))
    assert on.engine == off.engine == "maxplus" and on.time_s > off.time_s
    assert (on.inputs["interference"], off.inputs["interference"]) == (True, False)
    by_des = simulate(SimulationRequest(**options, engine="des"))
    assert by_des.time_s == pytest.approx(on.time_s, rel=2e-3)


def test_saturated_links_are_a_table() -> None:
    slowed = tuple(SlowedTransfer(f"inter {r}->{r + 8}", 0.001) for r in range(6))
    result = example_result(saturated_links=(SaturatedLink("leaf:0->spine", 0.002, slowed),))
    console = Console(width=140, color_system=None)
    with console.capture() as capture:
        for table in simulate_tables(result):
            console.print(table)
    text = capture.get()
    assert "leaf switch 0 → spine switch" in text and "2 ms" in text and "inter 0->8" in text and "and 2 more" in text


def test_saturated_links_are_in_the_report(tmp_path: Path) -> None:
    result = simulated("pcie-8x", "auto")
    write_result_report(tmp_path / "report.html", result)
    text = (tmp_path / "report.html").read_text().replace("<wbr>", "")
    assert "Saturated links" in text and result.saturated_links[0].link.replace(">", "&gt;") in text
