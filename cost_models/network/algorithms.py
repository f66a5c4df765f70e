r"""How long NCCL's algorithms take: steps, each a latency or the moving of its bytes, whichever is longer.

Ring, Simple (the data in n parts, each of which moves on s times; B the ring's bandwidth, L what the channels copy):

    t = start + base + s step(m / n / B) + step(m / n / L),        step(x) = (latency^1.5 + x^1.5)^(2/3)

A step waits for its predecessor's flags while bytes of the step before still move, so the two overlap in part: the
exponent would be 1 if they did not and infinite if they did; 1.5 is what all fitted rows of NVLink machines together
ask for (1 and 3 are about as much worse). The last term is each rank's own part, copied inside the GPU by the same
channels.
LL and LL128 send flags with the data and pipeline by lines: start + latency + m / bandwidth, as NCCL has it. LL128
handles one part more than it sends (the first is only sent, the last only received), each for a hop's latency, and its
channels carry c of it all, so

    t = start + base + (s + 1) latency + max(s m / n / B, (s + 1) m / n / c)

which is 385 and 462 GB/s of bus bandwidth on 2 and 3 B200 where 384 and 479 were measured (nccl#2343; NCCL plans 640).
NVLS moves loops of (heads x channels) chunks through reduce-scatter, reduction and gather: two loops fill the pipeline.

    t = start + base + (loops + 2) step(loop / B)

Sends to all ranks (all-to-all) run over the channels of each peer, in waves of one chunk per channel; a send uses half
of its channel's warps, the receive the other half:

    t = start + base + waves step(wave / rate) + (last chunk copied out),  rate = min(link, channels x half a channel)

Sources: NVIDIA/nccl 2.30.7 src/device/*.h (steps), src/enqueue.cc (chunks), src/graph/tuning.cc (latencies, bandwidths,
rate of a channel); the form of `step` is ours, checked in `attnsim replay nccl`.
"""

from __future__ import annotations

from math import ceil

from cost_models.network.communicator import KIB, STAGED_KINDS, Communicator
from cost_models.network.terms import NCCL_TERMS, NetworkTerms, Terms
from cost_models.network.tuner import (
    CHANNEL_GB_PER_S,
    LL_MAX,
    NVLS_EFFICIENCY,
    PROTOCOLS,
    RING_BASE_US,
    ROOTED,
    TREE_BASE_US,
    Choice,
    architecture,
    hop_us,
    ring_steps,
)
from cost_models.topology.links import GB_PER_S

_US = 1e-6
_BASE_S = RING_BASE_US[0] * _US
LINES = ("LL", "LL128")
"""Protocols whose flags come with the data."""
LINES_BASE_US = {"Ring": RING_BASE_US, "Tree": TREE_BASE_US}
_NVLS_CHUNKS = ((64, 128 * KIB, 64 * KIB), (8, 64 * KIB, 32 * KIB), (2, 32 * KIB, 16 * KIB))
_NVLS_TREE_CHUNKS = ((4, 128 * KIB, 64 * KIB), (1, 64 * KIB, 32 * KIB))
_P2P_BATCH = 8
_OVERLAP = 1.5
KEPT = 1.45
"""How much longer a channel takes for what it sends and keeps than for what it only sends: one channel of two H100
gathers at 15.2 GB/s, scatters at 18.3 and reduces to all at 21.0, where alone it copies 36.7 GB/s."""


def channel_bytes_per_s(comm: Communicator) -> float:
    """What one channel (one SM) copies."""
    return CHANNEL_GB_PER_S[architecture(comm.sm)] * GB_PER_S


def collective_s(
    comm: Communicator, terms: Terms, choice: Choice, kind: str, n_bytes: float, share: float = 1.0
) -> float:
    """Seconds of a collective done as chosen.

    Parameters
    ----------
    n_bytes : of the whole vector.
    share : of the bandwidth that links which are slower than NCCL believes leave.
    """
    if choice.algorithm in ("NVLS", "NVLSTree"):
        return _nvls_s(comm, terms, choice, n_bytes, share)
    if choice.algorithm == "Ring" and choice.protocol == "Simple":
        return _ring_s(comm, terms, kind, n_bytes, share)
    if choice.protocol in LINES and choice.algorithm in LINES_BASE_US:
        return _lines_s(comm, terms, choice, kind, n_bytes, share)
    rate = choice.gb_per_s * GB_PER_S * terms.efficiency(comm) * share
    return _start_s(comm, terms) + choice.latency_us * _US + n_bytes / rate


def _lines_s(comm: Communicator, terms: Terms, choice: Choice, kind: str, n_bytes: float, share: float) -> float:
    """A kernel starts as soon whatever the protocol, so the base is that of LL for both.

    The tuner's rates are those of all channels that the rings have, however few of them the user allows.
    """
    base_us = LINES_BASE_US[choice.algorithm]
    latency_us = choice.latency_us - base_us[PROTOCOLS.index(choice.protocol)] + base_us[0]
    efficiency = 1.0 if choice.protocol == "LL" else terms.efficiency(comm)
    used = min(comm.n_channels / (2 * len(comm.ring.channels)), 1.0)
    moving_s = n_bytes / (choice.gb_per_s * GB_PER_S * efficiency * min(share, used))
    if choice.algorithm == "Ring" and choice.protocol == "LL128" and kind not in ROOTED:
        latency_us += hop_us(comm, "Ring", 1)[0]
        parts = ring_steps(kind, comm.n_ranks) + 1
        carried = used * len(comm.ring.channels) * channel_bytes_per_s(comm) * efficiency
        moving_s = max(moving_s, parts * n_bytes / comm.n_ranks / carried)
    return _start_s(comm, terms) + latency_us * _US + moving_s


def _start_s(comm: Communicator, terms: Terms) -> float:
    return terms.intra.start_s + (terms.inter.start_s if comm.n_nodes > 1 else 0.0)


def _step_s(terms: NetworkTerms, seconds: float) -> float:
    return float((terms.step_s**_OVERLAP + seconds**_OVERLAP) ** (1 / _OVERLAP))


def _ring_s(comm: Communicator, terms: Terms, kind: str, n_bytes: float, share: float) -> float:
    own_channels = channel_bytes_per_s(comm) * comm.n_channels
    rate = min(_bus_gb_per_s(comm, terms) * GB_PER_S * share, own_channels)
    if kind in ROOTED:
        return _chain_s(comm, terms, n_bytes, rate)
    steps, twice = ring_steps(kind, comm.n_ranks), 2 if kind == "all_reduce" else 1
    between = 0 if comm.n_nodes == 1 else twice * (comm.n_nodes - 1)
    part = n_bytes / comm.n_ranks
    kept = {"all_gather": 1.0, "all_reduce": 0.5}.get(kind, 0.0)
    bytes_s = (1 - kept) * part / rate + kept * part / min(rate, own_channels / KEPT)
    inside_s, between_s = (_step_s(each, bytes_s) for each in (terms.intra, terms.inter))
    moving_s = (steps - between) * inside_s + between * between_s
    return _start_s(comm, terms) + _BASE_S + moving_s + _step_s(terms.intra, part / own_channels)


def _bus_gb_per_s(comm: Communicator, terms: Terms) -> float:
    """What the rings carry: NCCL's speeds, or through host memory what the links of a node do."""
    planned = len(comm.ring.channels) * min(_rates(comm))
    staged = comm.intra_kind in STAGED_KINDS and comm.n_nodes == 1
    return min((comm.staged.wires_gb_per_s if staged else planned) * terms.efficiency(comm), comm.staged.host_gb_per_s)


def _rates(comm: Communicator) -> tuple[float, ...]:
    return (comm.ring.intra_gb_per_s,) if comm.n_nodes == 1 else (comm.ring.intra_gb_per_s, comm.ring.inter_gb_per_s)


def _chain_s(comm: Communicator, terms: Terms, n_bytes: float, rate: float) -> float:
    """Broadcast, or reduce, along the ring: slices follow each other; the first one takes a hop to each rank."""
    inside, between = (NCCL_TERMS[kind].step_s for kind in (comm.intra_kind, comm.inter_kind))
    fill_s = (comm.n_ranks - comm.n_nodes) * inside + (comm.n_nodes - 1) * between
    return _start_s(comm, terms) + _BASE_S + fill_s + n_bytes / rate


def _nvls_s(comm: Communicator, terms: Terms, choice: Choice, n_bytes: float, share: float) -> float:
    """Two loops fill the pipeline, and between nodes two more for every level of the tree.

    The share of the link that NVLS reaches is NCCL's own; that of rings is not meant for it.
    """
    pieces = comm.nvls_channels * len(comm.nvls.channels)
    chunk = 64 * KIB if comm.n_nodes >= 4 else 128 * KIB
    for loops, from_bytes, to_bytes in _NVLS_CHUNKS if comm.n_nodes == 1 else _NVLS_TREE_CHUNKS:
        if n_bytes < loops * pieces * from_bytes:
            chunk = min(chunk, to_bytes)
    loop = min(pieces * chunk, n_bytes)
    loops = ceil(n_bytes / (pieces * chunk))
    levels = (comm.n_nodes - 1).bit_length() if choice.algorithm == "NVLSTree" else min(comm.n_nodes - 1, 1)
    tree = choice.algorithm == "NVLSTree"
    rate = (_nvls_tree_gb_per_s(comm) if tree else choice.gb_per_s) * GB_PER_S * share
    inside_s, between_s = (_step_s(each, loop / rate) for each in (terms.intra, terms.inter))
    return _start_s(comm, terms) + _BASE_S + (loops + 2) * inside_s + 2 * levels * between_s


def _nvls_tree_gb_per_s(comm: Communicator) -> float:
    """Of NVLSTree: what the switches do, or the NICs; in two trees each carries the data once each way, or twice."""
    heads = len(comm.nvls.channels)
    inside = 2 * comm.nvls.intra_gb_per_s * NVLS_EFFICIENCY[architecture(comm.sm)] * (heads - 1)
    ports = len(comm.ring.channels) * comm.ring.inter_gb_per_s * (2 if comm.n_nodes == 2 else 1)
    return min(inside, ports) * comm.n_ranks / ring_steps("all_reduce", comm.n_ranks)


def all_to_all_s(comm: Communicator, terms: Terms, part_bytes: float, busiest_s: float) -> float:
    """Seconds of sends of ``part_bytes`` from every rank to every other.

    Parameters
    ----------
    busiest_s : time in which the busiest link carries its share of all sends, at full capacity.
    """
    channels = comm.send_channels(part_bytes)
    peers = comm.n_ranks - 1
    half_channel = channel_bytes_per_s(comm) / 2
    used = min(channels * peers, comm.p2p_channels)
    sending_s = max(busiest_s / terms.efficiency(comm), peers * part_bytes / (used * half_channel))
    slow = terms.intra if comm.n_nodes == 1 else terms.inter
    start_s = _start_s(comm, terms) + _BASE_S
    if comm.n_nodes == 1 and comm.sends_lines(part_bytes):
        rate = LL_MAX[architecture(comm.sm)][0] * GB_PER_S * min(used / comm.n_channels, 1)
        return start_s + max(2 * sending_s, peers * part_bytes / rate)
    chunk = min(part_bytes, channels * comm.p2p_chunk_bytes)
    turns = max(1.0, peers * channels / (_P2P_BATCH * comm.p2p_channels))  # of peers, several to a channel
    waves = turns * part_bytes / chunk
    return start_s + waves * _step_s(slow, sending_s / waves) + chunk / (2 * half_channel * channels)
