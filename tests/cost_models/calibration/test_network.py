"""Links fitted to records whose truth is known: parameters come back, and predictions of sizes left out."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cost_models.calibration.network import LinkFit, fit_links, fit_pairs, topologies_of
from cost_models.calibration.pair import HostOfPair, render_pair, render_pair_report
from cost_models.hardware import HardwareProfile, load_hardware
from cost_models.network import communicator, estimate_collective_s, estimate_exchange_s
from cost_models.network.terms import NetworkTerms, Terms, terms_of
from cost_models.topology import ClusterTopology, load_topology
from cost_models.topology.link_types import PAIRS, host_topology, link_type_of
from traces.errors import InputError
from traces.records import CalibrationRecord
from validators.bench.network import COLLECTIVES, network_plan

TOPOLOGIES = {(link, 2): load_topology(name, 2) for link, name in PAIRS.items()}
CURVES = {
    "nvlink": {"latency_s": 8e-6, "ramp_s": 2e-5, "ramp_bytes": 8e6, "efficiency": 0.7, "channel_bytes_per_s": 19e9},
    "shm": {"latency_s": 2.2e-5, "ramp_s": 4e-5, "ramp_bytes": 2e6, "efficiency": 0.65},
    "socket": {"latency_s": 9e-5, "ramp_s": 1e-4, "ramp_bytes": 5e5, "efficiency": 0.6},
}
TERMS = {
    "nvlink": NetworkTerms(3e-6, 4e-6, 0.75, "truth"), "shm": NetworkTerms(8e-6, 9e-6, 0.6, "truth"),
    "socket": NetworkTerms(2e-5, 4e-5, 0.7, "truth"),
}  # fmt: skip


def truth() -> HardwareProfile:
    profile = load_hardware("h200-sxm")
    links = {kind: profile.links[kind].model_copy(update=curve) for kind, curve in CURVES.items()}
    return profile.model_copy(update={"links": {**profile.links, **links}})


def seconds(topology: ClusterTopology, operation: str, size: int, hops: int) -> float:
    profile, terms = truth(), TERMS[topology.route(0, 1).kind]
    if operation in COLLECTIVES:
        return estimate_collective_s(topology, profile, operation, (0, 1), size, terms=Terms(terms, terms))
    flows = ([0, 1], [1, 0]) if operation == "exchange" else ([0], [1])
    return hops * float(estimate_exchange_s(topology, profile, *flows, size).max())


def records(links: tuple[str, ...], noise: float, every: int = 2) -> list[CalibrationRecord]:
    random, made = np.random.default_rng(3), []
    for link in links:
        for case in network_plan(2, link, 28):
            if case.kind == "network" and int(case.parameters["bytes"]).bit_length() % 2 >= every - 1:  # type: ignore[arg-type]
                p = case.parameters
                took = seconds(TOPOLOGIES[link, 2], str(p["operation"]), int(p["bytes"]), int(p["hops"]))  # type: ignore[arg-type]
                samples = tuple(float(took * each) for each in np.exp(noise * random.standard_normal(5)))
                made.append(CalibrationRecord("network", p, "measured", samples, "here"))
    return made


@cache
def fits() -> dict[str, LinkFit]:
    found = fit_links(
        records(("nvlink", "channels-1", "channels-4", "socket"), 0.005), TOPOLOGIES, load_hardware("h200-sxm")
    )
    return {each.kind: each for each in found}


@pytest.mark.parametrize("kind", ["nvlink", "socket"])
def test_parameters_come_back(kind: str) -> None:
    fit = fits()[kind]
    for name, value in CURVES[fit.kind].items():
        assert fit.curve[name].value == pytest.approx(value, rel=0.25 if name.startswith("ramp") else 0.03), name
    for name in ("step_s", "efficiency"):
        assert fit.terms[name].value == pytest.approx(getattr(TERMS[fit.kind], name), rel=0.05), name
    assert set(fit.left_out) == {"exchange", "one-way", *COLLECTIVES}
    assert all(errors.median < 0.02 for errors in fit.left_out.values())
    assert fit.trains is not None and fit.trains.median < 0.02


def test_disturbed_measurements_pull_little() -> None:
    good = records(("shm",), 0.005)
    bad = [replace(each, samples_s=tuple(9 * s for s in each.samples_s)) if n % 12 == 0 else each
           for n, each in enumerate(good)]  # fmt: skip
    (fit,) = fit_links(bad, TOPOLOGIES, load_hardware("h200-sxm"))
    assert fit.curve["efficiency"].value == pytest.approx(CURVES["shm"]["efficiency"], rel=0.05)


def test_the_file_is_a_profile_that_costs_as_was_measured(tmp_path: Path) -> None:
    """Links of more than two ranks."""
    file = tmp_path / "node.toml"
    file.write_text(render_pair([], list(fits().values()), "h200-sxm", "records"))
    profile = load_hardware(file)
    assert profile.base == "h200-sxm" and profile.sources["links.socket.step_s"].basis == "calibrated"
    for link in ("nvlink", "channels-4", "socket"):
        topology = TOPOLOGIES[link, 2]
        for size in (2**14, 3 * 2**19, 2**27):
            want = seconds(topology, "exchange", size, 1)
            assert estimate_exchange_s(topology, profile, [0, 1], [1, 0], size)[0] == pytest.approx(want, rel=0.03)
            gathered = estimate_collective_s(topology, profile, "all_gather", (0, 1), size)
            assert gathered == pytest.approx(seconds(topology, "all_gather", size, 1), rel=0.03)
        assert terms_of(profile, communicator(topology, (0, 1))).intra.source.startswith("records: ")
    report = render_pair_report([], list(fits().values()))
    assert "| all_to_all |" in report and "trains of hops" in report


def test_a_pair_costs_as_was_measured_on_its_link_type(tmp_path: Path) -> None:
    """What NCCL is told chooses what is priced: each link type has its own figures, also sizes between those fitted."""
    links = ("nvlink", "channels-2", "shm", "socket")
    pairs = fit_pairs(records(links, 0.002, every=1), TOPOLOGIES, load_hardware("h200-sxm"))
    assert [each.link for each in pairs] == sorted(links)
    assert all(fit.left_out.median < 0.04 for each in pairs for fit in each.operations.values())  # type: ignore[union-attr]
    host = HostOfPair({"first_s": 2e-5}, {"kinds": {"merge": 3e-5}}, "records", calls={"exchange_s": 7e-5},
                      call_errors={"shm": 0.07}, calls_reference="runs")  # fmt: skip
    file = tmp_path / "h200-nvlink-pair.toml"
    file.write_text(render_pair(pairs, [], "h200-sxm", "records", host))
    profile = load_hardware(file)
    assert (
        profile.sources["kernels.cudnn.forward.overhead_s"]
        == load_hardware("h200-sxm").sources["kernels.cudnn.forward.overhead_s"]
    )
    assert profile.host.exchange_s == 7e-5 and profile.links["shm"].call_error == 0.07
    for link in links:
        topology = host_topology(2, "h200-sxm", link, TOPOLOGIES[link, 2].nccl)
        assert link_type_of(topology.nccl, topology.route(0, 1).kind) == link
        for size in (2**14, 3 * 2**20, 2**27, 2**31):
            flows = [0, 1], [1, 0]
            want = seconds(topology, "exchange", size, 1)
            assert estimate_exchange_s(topology, profile, *flows, size)[0] == pytest.approx(want, rel=0.08), (
                link,
                size,
            )
            want = seconds(topology, "all_gather", size, 1)
            assert estimate_collective_s(topology, profile, "all_gather", (0, 1), size) == pytest.approx(want, rel=0.08)
    assert "| shm" not in (report := render_pair_report(pairs, [], host)) and "## shm, two ranks" in report
    assert "| call_error over shm | 0.07 |" in report


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(InputError, match="no link to fit"):
        fit_links(records(("shm",), 0.0)[:3], TOPOLOGIES, load_hardware("h200-sxm"))
    with pytest.raises(InputError, match="no link to fit"):
        fit_links(records(("shm",), 0.0), {}, load_hardware("h200-sxm"))


def test_links_of_larger_nodes_are_what_nccl_is_told() -> None:
    (one,), links = records(("shm",), 0.0)[:1], ("nvlink", "channels-1", "shm")
    made = [
        replace(one, parameters={**one.parameters, "ranks": ranks, "link": link}) for ranks in (2, 8) for link in links
    ]
    found = topologies_of(made, "hgx-h200", "h200-sxm")
    assert {key: each.route(0, 1).kind for key, each in found.items()} == {
        (link, ranks): "shm" if link == "shm" else "nvlink" for link in links for ranks in (2, 8)
    }
    assert communicator(found["channels-1", 8], range(8)).n_channels == 1
    assert not found["nvlink", 8].nccl.nvls_enable
