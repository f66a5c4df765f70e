"""Hops that start late: hidden behind one wave of the kernel, not behind the kernel."""

import pytest

from cost_models.hardware import load_hardware
from simulator.replay.attention import Machine, Problem, Times
from simulator.replay.late import with_late_hops

PROBLEM = Problem(1, 32, 8, 128, 65536)


@pytest.fixture(scope="module")
def machine():
    return Machine("dgx-a100", load_hardware("a100-80"), "a100-80", "flash2")


def test_a_hop_costs_what_is_longer_than_a_wave(machine):
    hop = machine.hop_s(8, 1, 2 * 2 * 8192 * 8 * 128)
    waves = 8192 * 32 / 128 / (108 * 2)
    late = with_late_hops(machine, Times(8 * 3e-3, 8 * 9e-3), PROBLEM, 8, 8)
    assert late.forward_s == pytest.approx(8 * 3e-3 + 7 * (hop - 3e-3 / waves))
    assert late.both_s - late.forward_s > 8 * 6e-3


def test_kernels_of_one_wave_hide_their_hops_as_before(machine):
    short = Problem(1, 4, 4, 128, 8192)
    times = Times(1.0, 3.0)
    assert with_late_hops(machine, times, short, 8, 8) == times


def test_no_ring_no_hops(machine):
    assert with_late_hops(machine, Times(1.0, 2.0), PROBLEM, 8, 1) == Times(1.0, 2.0)


def test_hops_that_outlast_their_kernel_cost_no_more_than_the_kernel(machine):
    """Then the hop hides the kernel: both one after the other, less a wave."""
    step = 1e-5
    late = with_late_hops(machine, Times(8 * step, 24 * step), PROBLEM, 8, 8)
    assert late.forward_s < 2 * 8 * step
