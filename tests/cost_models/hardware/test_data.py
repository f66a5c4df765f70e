"""The profiles that come with the toolkit: all there, whole, physically sensible, and a source for every number."""

import pytest

from cost_models.hardware import GPU_OF, HARDWARE_NAMES, load_hardware
from cost_models.topology.gpus import model_of_hardware

FAMILIES = {"a100-40": "a100-80", "a800": "a100-80", "h800": "h100-sxm", "h200-sxm": "h100-sxm"}


@pytest.fixture(params=HARDWARE_NAMES)
def profile(request):
    return load_hardware(request.param)


def test_every_number_has_a_source_of_its_own(profile):
    unnamed = [term for term, source in profile.sources.items() if "names no source" in source.reference]
    assert not unnamed
    assert {"sm_count", "host.kernel_s", "links.net.efficiency", "gemm.overhead_s"} <= set(profile.sources)
    assert len(profile.sources) > 100


def test_compute_capability_agrees_with_the_topology_table(profile):
    model = model_of_hardware(GPU_OF.get(profile.name, profile.name))
    assert model is not None
    assert profile.sm_arch == model.sm


def test_peaks_follow_from_multiprocessors_and_clock(profile):
    flop_per_sm_and_cycle = profile.peak("bf16") / profile.sm_count / profile.clock_hz
    nominal = {80: 2048, 90: 4096, 100: 8192, 89: 1024 if profile.name == "l40s" else 512}[profile.sm_arch]
    assert flop_per_sm_and_cycle == pytest.approx(nominal, rel=0.02)


def test_attention_curves_lie_below_peak_and_backward_below_forward(profile):
    for curve in profile.kernels.values():
        forward, backward = (curve.direction(name).efficiency_at(128) for name in ("forward", "backward"))
        assert 0.05 < backward <= forward < 1


def test_default_kernel_is_the_fastest_exact_one(profile):
    shares = {name: curve.forward.efficiency_at(128) for name, curve in profile.kernels.items() if name != "flash3"}
    assert shares[profile.default_kernel] == max(shares.values())


@pytest.mark.parametrize(("name", "base"), FAMILIES.items())
def test_relatives_share_the_chip(name, base):
    one, other = load_hardware(name), load_hardware(base)
    assert (one.sm_count, one.l2_bytes, one.peak_flop_per_s) == (other.sm_count, other.l2_bytes, other.peak_flop_per_s)


def test_relatives_differ_where_their_boards_do():
    assert load_hardware("h200-sxm").hbm_bytes_per_s > load_hardware("h100-sxm").hbm_bytes_per_s
    assert load_hardware("a100-40").memory_bytes < load_hardware("a100-80").memory_bytes
    assert "flash3" not in load_hardware("b200").kernels


def test_what_was_measured_on_another_gpu_is_an_estimate_here():
    own = load_hardware("h100-sxm").sources["kernels.flash3.forward.efficiency.128"]
    borrowed = load_hardware("h800").sources["kernels.flash3.forward.efficiency.128"]
    assert (own.basis, borrowed.basis) == ("published", "estimated")
    assert borrowed.reference == f"as h100-sxm: {own.reference}"
