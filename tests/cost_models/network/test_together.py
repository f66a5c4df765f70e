"""Jobs that share a machine: halved where they meet, alone where they do not."""

from pytest import approx

from cost_models.hardware import load_hardware
from cost_models.network import estimate_collective_s
from cost_models.network.together import Job, estimate_together
from cost_models.topology import load_topology

GPU = load_hardware("l40s")
SIZE = 2**28


def together(topology, *groups):
    return estimate_together(topology, GPU, [Job("all_reduce", group, SIZE) for group in groups])


def test_one_job_is_the_collective():
    topology = load_topology("pcie-8x")
    (alone,) = together(topology, [0, 4])
    assert (alone.seconds, alone.bottleneck) == (
        approx(estimate_collective_s(topology, GPU, "all_reduce", [0, 4], SIZE)),
        "",
    )


def test_pairs_across_the_sockets_share_the_link_between_them():
    topology = load_topology("pcie-8x")
    (alone,) = together(topology, [0, 4])
    one, other = together(topology, [0, 4], [2, 6])
    assert one.seconds == other.seconds
    assert 1.4 * alone.seconds < one.seconds <= 2 * alone.seconds
    assert {one.bottleneck, other.bottleneck} <= {"cpu:0.0->cpu:0.1", "cpu:0.1->cpu:0.0"}


def test_pairs_on_their_own_switches_do_not_meet():
    topology = load_topology("pcie-8x")
    assert [each.seconds for each in together(topology, [0, 1], [4, 5])] == [together(topology, [0, 1])[0].seconds] * 2
