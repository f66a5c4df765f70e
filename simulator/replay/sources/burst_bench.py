"""BurstEngine's kernel bench: attention of 40 and 32 heads over 32 A800, causal, 256K and 512K tokens.

Its scripts set CUDA_DEVICE_MAX_CONNECTIONS=1, and Burst's streams have a high priority: communication starts beside
kernels.

Throughputs count 2 B S^2 H D forward (half the square) and 3.5 times that for both passes. Nodes have 8 GPUs and 4 HCAs
(NCCL_IB_HCA); neither their rate nor NVLink's is stated. The flat ring's forward (31 hops of 168 MB in 0.248 s) takes
21 GB/s over the node boundary, more than one channel carries (14 GB/s): sends have two, as NCCL 2.22 gives them where
eight NICs are seen, not four.

Traps. Rows of bench.md's Megatron contradict their own throughputs; exp_data.csv does not say how many heads it has;
the README labels LoongTrain's rows with a quarter of their length (kernel_perf.csv, the plotted file, has the right
one). Some rows are runs of the same configuration: each counts. USP with ring-first placement takes twice the time of
head-first at both lengths, which no communication does: its context is taken as not balanced (it needs the input in
another order); that is inferred from its own rows, which therefore are left out of the error.

Source: github thunlp/BurstEngine @426eb7a evaluation/kernel_bench (Apache-2.0).
"""

from __future__ import annotations

from functools import cached_property

from cost_models.hardware import HardwareProfile
from simulator.replay.attention import MAX_GPUS, TWO_CHANNELS, Machine, Problem, value_of
from simulator.replay.fits import fitted_hardware
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA, Source

USP = "usp:ulysses=8,ring={ring}"
SCHEDULES = {
    "BurstAttention striped double_ring": "burst:ring=double,partition=striped",
    "BurstAttention zigzag double_ring": "burst:ring=double,partition=zigzag",
    "BurstAttention zigzag flat ring": "burst:ring=flat,partition=zigzag",
    "BurstAttention (double ring, bwd opt)": "burst:ring=double,partition=zigzag",
    "BurstAttention (double_ring=True,opt_bwd=True)": "burst:ring=double,partition=zigzag",
    "BurstAttention zigzag double_ring opt_bwd": "burst:ring=double,partition=zigzag",
    "LoongTrain-DoubleRing": "loongtrain:head=1,context={gpus},window=8",
    "LoongTrain-DoubleRing (zigzag)": "loongtrain:head=1,context={gpus},window=8",
    "LoongTrain-USP": USP,
    "USP (Head First Placement)": USP,
    "USP (Ring First Placement)": USP + ",placement=context-first,partition=contiguous",
    "Megatron-CP / TransformerEngine P2P ring (RingAttention+Flash)": "ring:grad=bf16",
    "Megatron CP RingAttn": "ring:grad=bf16",
}
"""Schedules by method; 8 GPUs a node."""

TOPOLOGY = "dgx-a100:ports=4"


class BurstBench(Source):
    """Times and throughputs of distributed attention on A800."""

    name = "burst-bench"
    title = "BurstEngine's kernel bench, 32 A800"

    def claims(self, row: Row) -> bool:
        """Rows of the bench, and the times of its profiled runs."""
        if "BurstEngine" not in row["source"] or "kernel_bench" not in row["source"]:
            return False
        return "torch profiler" not in row["table_or_figure"]

    def predict(self, row: Row) -> float:
        """Time or throughput."""
        if row["table_or_figure"] == "exp_data.csv":
            raise Skip("the number of heads is not recorded")
        if "internally inconsistent" in row["notes"]:
            raise Skip("the source's times contradict its throughputs")
        if row["method"] not in SCHEDULES:
            raise Skip(f"no schedule for {row['method'][:60] or 'an unnamed method'}")
        if "flat" in row["method"] and row["metric"] != "forward_time":
            raise Skip("the flat ring's runs do not say whether O or D circulates in backward")
        gpus = row.integer("n_gpus", MAX_GPUS)
        schedule = SCHEDULES[row["method"]].format(gpus=gpus, ring=max(gpus // 8, 1))
        problem = Problem.of(row, dtype="fp16" if "Burst" in row["method"] else "bf16")
        pairs = problem.seq_len**2 / 2
        return value_of(row, self.machine.times(schedule, problem, gpus), problem.forward_flop(pairs), gpus)

    @cached_property
    def machine(self) -> Machine:
        """A800 nodes, with the fitted kernels and network."""
        return build_machine(fitted_hardware(DATA / f"{self.name}.hardware.toml"))

    def method(self, row: Row) -> str:
        """Families of methods, whose names differ by file."""
        name = row["method"]
        if "Burst" in name:
            return "Burst, flat ring" if "flat" in name else f"Burst, {'striped' if 'striped' in name else 'zigzag'}"
        if "USP" in name:
            return "USP, ring first" if "Ring First" in name else "USP, head first"
        return "LoongTrain" if "LoongTrain" in name else "Megatron"

    def configuration(self, row: Row) -> tuple[str, ...]:
        """Methods are compared across files."""
        return tuple(row[column] for column in ("n_gpus", "model_or_shape", "seq_len", "metric", "unit"))

    def in_fit(self, row: Row) -> bool:
        """Burst's profiled run (512K), the flat ring's forward, and all of ring-first USP."""
        if "Ring First" in row["method"]:
            return True
        if row["table_or_figure"] == "same log, timed result":
            return "Burst" in row["method"] and row["unit"] == "ms"
        return "flat" in row["method"] and row["metric"] == "forward_time"


def build_machine(profile: HardwareProfile) -> Machine:
    """A800 nodes."""
    return Machine(TOPOLOGY, profile, "a800", "flash2", TWO_CHANNELS, communication_first=True)


SOURCE = BurstBench()
