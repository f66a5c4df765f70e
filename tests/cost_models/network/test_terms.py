"""Terms: of the fitted machine, of its generation, NCCL's where there are none, calibrated ones first."""

from dataclasses import replace

import pytest

from cost_models.hardware import load_hardware
from cost_models.network import communicator
from cost_models.network.terms import NCCL_TERMS, fitted, machine_fits, terms_of
from cost_models.topology import load_topology


def test_generations_share_fits():
    assert fitted("h200-sxm", "nvlink") == fitted("h100-sxm", "nvlink")
    assert fitted("a800", "nvlink") == fitted("a100-80", "nvlink") != fitted("h800", "nvlink")


def test_nccls_constants_where_nothing_was_fitted():
    pcie = load_topology("pcie-8x", 2, gpu="l40s")
    assert terms_of(load_hardware("l40s"), communicator(pcie, [0, 1])).intra == NCCL_TERMS["pcie"]
    assert NCCL_TERMS["net"].step_s == pytest.approx(14e-6)


def test_what_was_calibrated_comes_first():
    profile = load_hardware("h100-sxm")
    calibrated = profile.model_copy()
    sources = dict(profile.sources)
    sources["links.nvlink.latency_s"] = replace(sources["links.nvlink.latency_s"], basis="calibrated")
    calibrated._sources = sources
    comm = communicator(load_topology("dgx-h100"), range(8))
    before, after = terms_of(profile, comm).intra, terms_of(calibrated, comm).intra
    assert after.efficiency == profile.links["nvlink"].efficiency != before.efficiency
    assert after.start_s + after.step_s < profile.links["nvlink"].latency_s


def test_three_numbers_and_named_rows_per_machine():
    for fit in machine_fits():
        assert 0 <= fit.terms.start_s <= 50e-6
        assert 0 < fit.terms.step_s <= 60e-6
        assert 0.3 <= fit.terms.efficiency <= 1
        assert fit.machine in fit.terms.source
    kinds = [(name, fit.link) for fit in machine_fits() for name in fit.hardware]
    assert len(kinds) == len(set(kinds))


def test_a_users_file_has_the_network_of_the_gpu_that_it_completes(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text('base = "a100-80"\nmemory_bytes = 40000000000\n')
    comm = communicator(load_topology("dgx-a100"), range(8))
    assert terms_of(load_hardware(mine), comm) == terms_of(load_hardware("a100-80"), comm)
    assert terms_of(load_hardware(mine), comm).intra != NCCL_TERMS["nvlink"]
