"""FFNified mixers: products and halos by hand, and beside attention as the length grows."""

from __future__ import annotations

from collections import Counter

import pytest

from cost_models.convolution import VARIANTS, FfnifiedBlock
from cost_models.hardware import load_hardware
from cost_models.topology import load_topology
from simulator.engines.traffic import Traffic
from simulator.layers.ffnified import Strips
from simulator.program.program import Program
from simulator.request import SimulationRequest
from simulator.simulate import simulate
from simulator.steps.mixers import mixer_costs, mixer_setup, record_ffnified
from traces.errors import InputError


@pytest.mark.parametrize("stage", range(4))
def test_products_of_a_block_are_those_of_the_network(stage: int) -> None:
    net = VARIANTS["ffnet-2"]
    side = 384 // 4 >> stage
    block, program = net.block(stage), Program(mixer_setup(side * side, net.channels[stage], 2, 2))
    record_ffnified(program.setup, block, Strips(side), program, training=False)
    traffic = Traffic(program.setup)
    program.replay(traffic)
    assert traffic.flop == 2 * block.multiply_adds(side * side)


def test_halos_of_a_block() -> None:
    """An interior rank sends (r1 + r2 + r3) rows to each side, forward and again backward."""
    block, width = FfnifiedBlock(32, 7, 3), 16
    program = Program(mixer_setup(width * 64, 32, 4, 4))
    record_ffnified(program.setup, block, Strips(width), program)
    traffic = Traffic(program.setup)
    program.replay(traffic)
    side = (3 + 3 + 1) * width * 32 * 2
    assert traffic.sent_bytes.tolist() == [2 * side, 4 * side, 4 * side, 2 * side]
    kinds = Counter(operation.kind for operation in program.operations)
    assert (kinds["exchange"], kinds["depthwise"], kinds["depthwise_dx"], kinds["depthwise_dw"]) == (12, 3, 3, 3)


def test_a_strip_lower_than_the_halo_is_refused() -> None:
    """At 384 x 384, stage 4 has 12 rows: with 7 x 7 kernels four ranks are the most."""
    block = VARIANTS["ffnet-2"].block(3)
    record_ffnified(mixer_setup(144, 704, 4, 4), block, Strips(12), Program(mixer_setup(144, 704, 4, 4)))
    with pytest.raises(InputError, match="a strip is lower than the halo: got 2 rows, expected at least 3"):
        record_ffnified(mixer_setup(144, 704, 6, 6), block, Strips(12), Program(mixer_setup(144, 704, 6, 6)))


def test_beside_attention_as_the_length_grows() -> None:
    """Linear against quadratic: doubling the length doubles the mixer's time at most, attention's nearly fourfold."""
    topology, profile = load_topology("dgx-h100", 8), load_hardware("h100-sxm")
    lengths = [2**17, 2**18, 2**19, 2**20]
    mixer = mixer_costs(topology, profile, 7, 4096, lengths)
    assert all(b.time_s < 2.05 * a.time_s for a, b in zip(mixer, mixer[1:], strict=False))
    assert len({each.bytes_sent for each in mixer}) == 1, "halos do not grow"
    attention = [
        simulate(SimulationRequest(heads=32, head_dim=128, seq_len=n, gpus=8, topology=topology, schedule="ring",
                                   pass_="forward", timeline=False)).time_s for n in lengths
    ]  # fmt: skip
    ratios = [a / b.time_s for a, b in zip(attention, mixer, strict=True)]
    assert ratios == sorted(ratios) and ratios[-1] > 4 * ratios[0]
    assert mixer[0].flop == 2 * 2**17 * 4096 * (4096 + 14)
