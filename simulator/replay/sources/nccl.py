r"""nccl-tests and their like: collectives of NCCL on whole machines, time by size.

The time in microseconds is compared; where only a rate is published, it follows from it (nccl-tests,
doc/PERFORMANCE.md: busbw = bytes / t times 2(n - 1)/n for all-reduce, (n - 1)/n for all-gather, reduce-scatter and
all-to-all, else 1). ``bytes`` is the whole vector: n chunks of an all-gather.

Sends (``sendrecv``) go from every rank to the next, over the links of the GPU's profile.

Predicted is the collective alone on an idle machine, with the fit of that machine (`cost_models.network.terms`), or of
another one with GPUs of that generation. Two jobs that share a machine are predicted together. Copies by copy engines
and machines whose wiring is not stated are skipped.

The pairs of RTX 4090 were started by ``mpirun -np 2``, each job for itself. Open MPI binds two processes to the first
two cores of the host (mpirun manual of Open MPI 4.1: up to two by core), so that the buffers of every job lie on NUMA
node 0; the jobs had the GPUs 1,2 and 3,4 of five (launch_mul_tenant.sh and nccl_trace.log in the repository of the
rows), on NUMA nodes 2, 1, 0 and 7.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cost_models.hardware import LinkCurve, load_hardware
from cost_models.network import Communicator, communicator, estimate_collective, estimate_exchange_s
from cost_models.network.algorithms import channel_bytes_per_s
from cost_models.network.terms import NCCL_TERMS, MachineFit, NetworkTerms, Terms, machine_fits, terms_of
from cost_models.network.together import Job, estimate_together
from cost_models.network.tuner import RING_BASE_US, choose
from cost_models.topology import ClusterTopology, NcclSettings, load_topology
from cost_models.topology.nccl_settings import OLDEST_VERSION
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA, Source
from traces.errors import InputError

COLLECTIVES = {
    "all_gather": "all_gather", "all_reduce": "all_reduce", "alltoall": "all_to_all", "all_to_all": "all_to_all",
    "reduce_scatter": "reduce_scatter", "broadcast": "broadcast", "reduce": "reduce",
    "sendrecv": "sendrecv",
}  # fmt: skip
LARGEST_RANKS, LARGEST_BYTES = 2**14, 2**50
OWN = "this project"
"""Source of what was measured on two H100 of our own, whose sends H100's link is fitted to."""
CHANNEL_ROW = "li-plus/playground", 2**27
"""Source and bytes of the send by which the rate of a channel of A100 was found."""


@dataclass(frozen=True)
class Wiring:
    """A kind of machine: how its GPU is called in the rows, its topology and GPU, and its NICs in Gb/s a node.

    ``pair_numa`` is the NUMA node to which the processes of jobs on two GPUs were bound.
    """

    pattern: str
    topology: str
    hardware: str
    net_gb_per_s: float = 0.0
    pair_numa: str | None = None


WIRINGS = (
    Wiring(r"GB[23]00", "gb200-nvl72", "b200", 4 * 400),
    Wiring(r"\bB[23]00", "hgx-b200", "b200", 8 * 400),
    Wiring(r"H200", "hgx-h200", "h200-sxm", 8 * 400),
    Wiring(r"H800", "dgx-h100", "h800", 8 * 400),
    Wiring(r"H100", "dgx-h100", "h100-sxm", 8 * 400),
    Wiring(r"A800", "dgx-a100", "a800", 8 * 200),
    Wiring(r"A100.*40GB", "dgx-a100", "a100-40", 8 * 200),
    Wiring(r"A100", "dgx-a100", "a100-80", 8 * 200),
    Wiring(r"RTX 4090 \(x4, EPYC Rome NPS4\)", str(DATA / "epyc_4x4090.xml"), "rtx4090", pair_numa="0"),
)


class Nccl(Source):
    """Time of a collective."""

    name = "nccl"
    title = "NCCL collectives: A100, H100, B200, GB200, RTX 4090"

    def claims(self, row: Row) -> bool:
        """All rows of collectives and transfers."""
        return bool(row["collective"])

    def published(self, row: Row) -> tuple[float, str]:
        """Microseconds."""
        self.kind(row)
        if row["time_us"].strip():
            return row.number("time_us"), "us"
        size = row.integer("bytes", LARGEST_BYTES)
        if row["algbw_GBps"].strip():
            return size / row.number("algbw_GBps") / 1e3, "us"
        return bus_factor(row["collective"], self.ranks(row)) * size / row.number("busbw_GBps") / 1e3, "us"

    def method(self, row: Row) -> str:
        """The machine; sizes from 1 MiB on, where bandwidth counts, apart from those below."""
        size = row["bytes"].strip()
        nodes = "" if row["nodes"].strip() in ("", "1") else f" x {row['nodes'].strip()} nodes"
        if nodes and (stated := re.search(r"NCCL [0-9.]+", row["notes"])):
            nodes += f", {stated[0]}"  # logs of one machine with several versions differ by up to two
        large = size.isdecimal() and int(size) >= 2**20
        sends = "sends, " if row["collective"] == "sendrecv" else ""
        return f"{sends}{row['gpu'].removeprefix('NVIDIA ')}{nodes}, {'from' if large else 'below'} 1 MiB"

    def configuration(self, row: Row) -> tuple[str, ...]:
        """Every row by itself: nothing is ranked."""
        return tuple(row.fields.values())

    def predict(self, row: Row) -> float:
        """Microseconds with the fit of the machine."""
        return self.predict_with(row, None)

    def predict_with(self, row: Row, terms: NetworkTerms | None) -> float:
        """Microseconds with given terms of the slower kind of link instead of the machine's."""
        kind, topology, hardware, ranks = self.read(row)
        profile = load_hardware(hardware)
        size = row.integer("bytes", LARGEST_BYTES)
        if kind == "sendrecv":
            flows = estimate_exchange_s(topology, profile, ranks, np.roll(ranks, -1), size)
            return float(flows.max()) * 1e6
        per_rank = size / len(ranks) if kind == "all_gather" else size
        chosen = self._terms(row, topology, hardware, ranks, terms)
        if _shares_machine(row):
            jobs = [Job(kind, ranks + first, per_rank) for first in range(0, topology.n_ranks, len(ranks))]
            return estimate_together(topology, profile, jobs, chosen)[0].seconds * 1e6
        return estimate_collective(topology, profile, kind, ranks, per_rank, terms=chosen).seconds * 1e6

    def predict_unfitted(self, row: Row) -> float:
        """Microseconds by NCCL's own estimate; where it has none (all-to-all), by its constants."""
        kind, topology, hardware, ranks = self.read(row)
        return unfitted_us(topology, hardware, kind, tuple(ranks.tolist()), row.integer("bytes", LARGEST_BYTES))

    def _terms(
        self, row: Row, topology: ClusterTopology, hardware: str, ranks: NDArray[np.int64], given: NetworkTerms | None
    ) -> Terms:
        comm = communicator(topology, ranks)
        usual = terms_of(load_hardware(hardware), comm)
        own = given or (fit.terms if (fit := self.machine(row)) else None)
        if own is None:
            return usual
        return Terms(own, usual.inter) if comm.n_nodes == 1 else Terms(usual.intra, own)

    def machine(self, row: Row) -> MachineFit | None:
        """The fit of the very machine that was measured."""
        between = row["nodes"].strip() not in ("", "1")
        fits = (fit for fit in machine_fits() if (fit.link in ("net", "socket")) == between)
        return next((fit for fit in fits if fit.of_row(row.fields)), None)

    def fitted_on(self, row: Row) -> str | None:
        """Rows of the machine, or of one of its generation."""
        if row["collective"] == "sendrecv":
            return "links of the GPU's profile: sends of two H100, and what one channel of A100 carries"
        fit = self.machine(row)
        return fit.terms.source if fit else "other machines with GPUs of this generation, as cost_models/network/data"

    def in_fit(self, row: Row) -> bool:
        """Whether the machine's fit names this row, or, of sends, a channel's rate was found by it."""
        if row["collective"] == "sendrecv":
            of_a100 = row["source"].startswith(CHANNEL_ROW[0]) and row["bytes"].strip() == str(CHANNEL_ROW[1])
            return of_a100 or row["source"].startswith(OWN)
        fit = self.machine(row)
        return fit is not None and fit.uses(row.fields)

    def kind(self, row: Row) -> str:
        """Collective of a row; else it is skipped."""
        if row["collective"] not in COLLECTIVES:
            raise Skip(f"not an NCCL collective that is modelled: {row['collective'][:40] or 'none named'}")
        return COLLECTIVES[row["collective"]]

    def ranks(self, row: Row) -> int:
        """Ranks of all nodes."""
        return row.integer("gpus", LARGEST_RANKS)

    def read(self, row: Row) -> tuple[str, ClusterTopology, str, NDArray[np.int64]]:
        """(collective, machines, GPU, ranks) of a row that can be predicted."""
        kind = self.kind(row)
        if "with_tuner" in row["source"]:
            raise Skip("a tuner plugin chose the algorithm")
        wiring = next((each for each in WIRINGS if re.search(each.pattern, row["gpu"])), None)
        if wiring is None or re.search(r"direct|\bNV4\b|bridge", row["link"]):
            raise Skip(f"the wiring of the machine is not stated: {row['gpu'][:60] or 'no GPU'}")
        nodes, count = row.integer("nodes", 4096), self.ranks(row)
        if "nvl72" in wiring.topology:
            nodes = -(-count // 72)  # what counts is the NVLink domain, not its trays
        if nodes > 1:
            _check_nics(row["nic"], wiring)
        if count < 2 or count % nodes:
            raise Skip(f"{count} ranks on {nodes} nodes")
        jobs = 2 if _shares_machine(row) else 1
        host_numa = wiring.pair_numa if count == 2 else None
        try:
            topology = _topology(wiring.topology, wiring.hardware, jobs * count, nodes, host_numa, _version(row))
        except InputError as error:
            raise Skip(str(error)) from None
        return kind, topology, wiring.hardware, np.arange(count)


def _shares_machine(row: Row) -> bool:
    """Whether another job does the same on the GPUs that come next."""
    return "at the same time" in row["notes"] or "/tenant" in row["source"]


def bus_factor(collective: str, n: int) -> float:
    """Bus bandwidth over bytes / time.

    >>> bus_factor("all_reduce", 8)
    1.75
    """
    if n < 2:
        raise Skip("one rank sends nothing")
    share = (n - 1) / n
    kind = COLLECTIVES.get(collective)
    return {"all_reduce": 2 * share, "broadcast": 1.0, "reduce": 1.0, "sendrecv": 1.0, None: 1.0}.get(kind, share)


def _check_nics(text: str, wiring: Wiring) -> None:
    """Skip a cluster with other NICs than the preset's, where they are stated."""
    found = re.search(r"(\d+)\s*x\s*(\d+)\s*G", text)
    if found and int(found[1]) * int(found[2]) != wiring.net_gb_per_s:
        raise Skip(f"other NICs than {wiring.topology}'s: {text[:60]}")


@lru_cache(maxsize=64)
def _topology(
    name: str, hardware: str, count: int, nodes: int, host_numa: str | None, version: tuple[int, int] | None
) -> ClusterTopology:
    nccl = NcclSettings(version=version) if version else None
    return load_topology(name, count, nodes, hardware, nccl, host_numa=host_numa)


def _version(row: Row) -> tuple[int, int] | None:
    """NCCL's, where it is stated and not older than what is modelled."""
    stated = re.search(r"NCCL (\d+)\.(\d+)", row["notes"])
    return max((int(stated[1]), int(stated[2])), OLDEST_VERSION) if stated else None


@lru_cache(maxsize=4096)
def unfitted_us(topology: ClusterTopology, hardware: str, kind: str, ranks: tuple[int, ...], size: int) -> float:
    """NCCL's own estimate of its choice, microseconds."""
    comm = communicator(topology, ranks)
    if kind == "sendrecv":
        profile, source = load_hardware(hardware), np.array(ranks)
        bare = profile.model_copy(update={"links": {each: _bare(each, comm) for each in profile.links}})
        return float(estimate_exchange_s(topology, bare, source, np.roll(source, -1), size).max()) * 1e6
    if kind == "all_to_all":
        terms = Terms(NCCL_TERMS[comm.intra_kind], NCCL_TERMS[comm.inter_kind])
        found = estimate_collective(topology, load_hardware(hardware), kind, ranks, size, terms=terms)
        return found.seconds * 1e6
    return choose(comm, kind, size).time_us(size)


def _bare(kind: str, comm: Communicator) -> LinkCurve:
    """A send by NCCL's constants: a ring's base and one hop, all of the link, half of what a ring's channel copies."""
    hop_s = RING_BASE_US[2] * 1e-6 + NCCL_TERMS[kind].step_s
    half = channel_bytes_per_s(comm) / 2
    return LinkCurve(latency_s=hop_s, ramp_s=0, ramp_bytes=1, efficiency=1, channel_bytes_per_s=half)


SOURCE = Nccl()
