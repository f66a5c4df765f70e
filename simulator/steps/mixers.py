"""FFNified attention as a Program of its own, and beside attention as the length grows.

A mixer with kernel k over a sequence of n tokens in C features does 2 n C^2 + 4 n k C FLOP and exchanges (k - 1) C e
bytes per neighbour and convolution; attention does 4 n^2 C (half of it causal) and moves n-sized keys. They meet at
n = k for the cores alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cost_models.convolution import FfnifiedBlock
from cost_models.hardware import HardwareProfile
from cost_models.masks import parse_mask
from cost_models.topology import ClusterTopology
from cost_models.workload import AttentionWorkload
from simulator.costing import CostModel
from simulator.engines.maxplus import MaxPlus
from simulator.engines.traffic import Traffic
from simulator.fanout import Fanout
from simulator.layers.ffnified import Strips, block_weights, ffnified_block, token_mixer
from simulator.layers.net import Net, Slot, Var
from simulator.program.partition import Layout
from simulator.program.partitioners import build_partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Sink


@dataclass(frozen=True)
class MixerCost:
    """What a mixer costs at one length."""

    seq_len: int
    time_s: float
    flop: int
    bytes_sent: int


def mixer_setup(positions: int, channels: int, ranks: int, ranks_per_node: int, batch: int = 1) -> Setup:
    """Ranks and positions of an image; its attention is not used."""
    workload = AttentionWorkload(batch, positions, 1, 1, channels, channels, "bf16", parse_mask("full", positions))
    return Setup(workload, ranks, ranks_per_node)


def record_ffnified(
    setup: Setup, block: FfnifiedBlock, strips: Strips, sink: Sink, *, training: bool = True, whole: bool = True
) -> None:
    """Record a block (or its token mixer alone) on strips of an image, forward, and backward if ``training``."""
    r = Recorder(setup, sink)
    net, weights = Net(r, training=training), block_weights(block, strips, "")
    for each in weights.values():
        each.tensor = each.new_tensor(r, is_input=True)
    layout = Layout.home(build_partition("contiguous", setup.workload.seq_len, setup.n_ranks))
    tensor = r.tensor("x", layout, 1, block.channels, "bf16", is_input=True)
    x = Var(tensor, Slot() if training else None)
    mix = ffnified_block if whole else token_mixer
    y = mix(net, block, strips, weights, x)
    outputs = {"y": y.tensor}
    if training:
        assert x.slot is not None and y.slot is not None
        r.phase = "backward"
        y.slot.grad = r.like(y.tensor, "dy", layout=layout, is_input=True)
        net.backward()
        outputs["dx"] = x.slot.take()
        outputs |= {f"d {each.name}": each.grad for each in weights.values() if each.grad is not None}
    r.close(outputs)


def mixer_costs(
    topology: ClusterTopology, profile: HardwareProfile, kernel: int, channels: int, lengths: Iterable[int],
    *, training: bool = False,
) -> list[MixerCost]:  # fmt: skip
    """A causal FFNified token mixer over sequences of some lengths, spread over all ranks of a cluster."""
    found = []
    costs = CostModel(topology, profile, profile.default_kernel)
    for seq_len in lengths:
        setup = mixer_setup(seq_len, channels, topology.n_ranks, topology.ranks_per_node)
        engine, traffic = MaxPlus(topology.n_ranks, costs), Traffic(setup)
        block, strips = FfnifiedBlock(channels, kernel, kernel), Strips(1, causal=True, flat=True)
        record_ffnified(setup, block, strips, Fanout(engine, traffic), training=training, whole=False)
        found.append(MixerCost(seq_len, engine.makespan_ns / 1e9, traffic.flop, int(traffic.sent_bytes.max())))
    return found
