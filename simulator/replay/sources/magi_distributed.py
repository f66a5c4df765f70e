"""MagiAttention's distributed benchmark on H100: eight mechanisms, four masks, 8K tokens per GPU (digitised bars).

    throughput = FLOP / (P t),    FLOP = 4 pairs H D forward, 2.5 times that backward,    t of the slowest rank

Nodes have 8 GPUs; what joins them is not stated: taken as the 400 Gb/s a GPU of a DGX H100, nothing is fitted. (One
flow of a ring takes the time of 20 GB/s, half of that; collectives reach more.) FA3 and FFA have flash-attention 3's
curve of the published H100 and one efficiency per direction: backward's fitted to the kernel benchmark
(`magi_kernels`), forward's here, as in calls of 10 ms and more FA3 reaches less than there, and FFA more.

Native group collectives are `magi`'s: rows cross to a node once, and no kernels pack them; that they hold 48 SMs is not
modelled.

Rings of this benchmark (TransformerEngine's, with FA3) gather the rows of Q, K and V that are no padding by index in
every step and scatter O and the LSE back; so do the ring parts of USP and LoongTrain. Read and written are

    forward 2 (2 Q + K + V),    backward 2 (4 Q + 2 (K + V)) bytes a step,    exposed

MagiAttention's kernel leaves 8 SMs free (MAGI_ATTENTION_FFA_FORWARD_SM_MARGIN, as the benchmark sets
CUDA_DEVICE_MAX_CONNECTIONS=8), so that its communication starts beside it; that of the others waits for kernels.

Traps. Document lengths are not published, only their mean density and number: `documents`, at most 40 of them, have
the density; its error is that of all document rows, +-20 to 40 %. All-gather's backward with documents takes far more
than its bytes and FLOP; nobody can explain it: skipped.

Source: SandAI-org/MagiAttention docs/source/blog/cp_benchmark.md and exps/dist_attn @2c64135 (Apache-2.0); +-3 TFLOP/s.
"""

from __future__ import annotations

from functools import cached_property

from cost_models.hardware import HardwareProfile
from cost_models.kernels import estimate_elementwise_s
from cost_models.masks import parse_mask
from simulator.replay.attention import TWO_CHANNELS, Machine, Problem, Times
from simulator.replay.documents import zipf_lengths
from simulator.replay.fits import fitted_hardware
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA, Source

PER_NODE = 8
SCHEDULES = {
    "Ulysses": "ulysses",
    "Ring P2P": "ring:partition={partition},grad=bf16",
    "Ring All-Gather": "allgather:partition={partition}",
    "USP": "usp:ulysses={heads},ring={ring},partition={partition},grad=bf16",
    "LoongTrain": "loongtrain:head={heads},context={ring},partition={partition},grad=bf16",
    "Megatron HybridCP": "hybrid-cp",
    "MagiAttention (AlltoAll-v)": "magi:chunk=2048,stages=2",
    "MagiAttention (native group collectives)": "magi:chunk=2048,stages=2,transport=native",
}
MASKS = {
    "full_mask": ("full", "contiguous"),
    "causal_mask": ("causal", "zigzag"),
    "varlen_full_mask": ("document:lengths={lengths}", "document-zigzag"),
    "varlen_causal_mask": ("document:lengths={lengths},causal=true", "document-zigzag"),
}
FITTED = {"fa3": "Ulysses", "ffa": "MagiAttention (AlltoAll-v)"}
"""Method whose row each kernel's forward is fitted to."""

DOCUMENTS = {65536: (39, 0.117), 131072: (74, 0.100), 262144: (149, 0.071), 524288: (297, 0.053), 1048576: (578, 0.035)}
"""Mean number and density of the documents, by length of the sequence."""


class MagiDistributed(Source):
    """Throughput per GPU."""

    name = "magi-distributed"
    title = "MagiAttention's distributed benchmark, H100"

    def claims(self, row: Row) -> bool:
        """Rows of the distributed charts."""
        return "MagiAttention" in row["source"] and row["table_or_figure"].startswith("distributed/")

    def predict(self, row: Row) -> float:
        """TFLOP/s per GPU."""
        mask_name, backward, gpus = self._read(row)
        problem = Problem.of(row, _mask(mask_name, row.integer("seq_len", 2**21)))
        times = self._times(row["method"], problem, mask_name, gpus)
        flop = problem.forward_flop(parse_mask(problem.mask, problem.seq_len).area(problem.seq_len))
        if backward:
            return 2.5 * flop / gpus / (times.both_s - times.forward_s) / 1e12
        return flop / gpus / times.forward_s / 1e12

    def _read(self, row: Row) -> tuple[str, bool, int]:
        parts = row["table_or_figure"].split("/")
        if len(parts) != 4 or parts[2] not in MASKS or parts[3] not in ("fwd", "bwd"):
            raise Skip(f"no mask and direction in table_or_figure {row['table_or_figure'][:60]}")
        if row["gpu"] != "H100":
            raise Skip(f"no fitted kernels on {row['gpu'][:40] or 'an unnamed GPU'}")
        if row["method"] not in SCHEDULES:
            raise Skip(f"no schedule for {row['method'][:60] or 'an unnamed method'}")
        if row["method"] == "Ring All-Gather" and "varlen" in parts[2] and parts[3] == "bwd":
            raise Skip("all-gather's backward with documents is unexplained: far more than its bytes and FLOP take")
        return parts[2], parts[3] == "bwd", row.integer("n_gpus", 1024)

    def _times(self, method: str, problem: Problem, mask_name: str, gpus: int) -> Times:
        heads = min(gpus, PER_NODE)
        ring = max(gpus // PER_NODE, 1)
        schedule = SCHEDULES[method].format(heads=heads, ring=ring, partition=MASKS[mask_name][1])
        times = self.machines[method.startswith("Magi")].times(schedule, problem, gpus)
        whole = gpus if method == "Ring P2P" or "varlen" not in mask_name else 0
        steps = {"Ring P2P": whole, "Megatron HybridCP": whole, "USP": ring, "LoongTrain": ring}.get(method, 0)
        copies = self._padding_s(problem, gpus, heads if method in ("USP", "LoongTrain") else 1)
        return Times(times.forward_s + steps * copies[0], times.both_s + steps * sum(copies))

    def _padding_s(self, problem: Problem, gpus: int, heads: int) -> tuple[float, float]:
        """Gathering and scattering rows in one step, forward and backward."""
        tokens = problem.batch * problem.seq_len // gpus * heads
        q = 2 * tokens * problem.heads // heads * problem.head_dim
        kv = 4 * tokens * max(problem.kv_heads // heads, 1) * problem.head_dim
        moved = (2 * q + kv, 4 * q + 2 * kv)
        forward, backward = (float(estimate_elementwise_s(self.hardware, each, each, "gather")) for each in moved)
        return forward, backward

    @cached_property
    def machines(self) -> dict[bool, Machine]:
        """By whether it is MagiAttention's own kernel."""
        return build_machines(self.hardware)

    @cached_property
    def hardware(self) -> HardwareProfile:
        """H100 with the fitted kernels."""
        return fitted_hardware(DATA / f"{self.name}.hardware.toml")

    def in_fit(self, row: Row) -> bool:
        """Two rows, for the forward of FA3 and of FFA in long calls."""
        fields = (row["table_or_figure"], row["n_gpus"])
        return row["method"] in FITTED.values() and fields == ("distributed/h100/full_mask/fwd", "8")


def build_machines(profile: HardwareProfile) -> dict[bool, Machine]:
    """Nodes with FA3, and (True) with MagiAttention's FFA, which leaves communication its multiprocessors."""
    return {
        False: Machine("dgx-h100", profile, "h100-sxm", "fa3", TWO_CHANNELS),
        True: Machine("dgx-h100", profile, "h100-sxm", "ffa", communication_first=True),
    }


def _mask(name: str, seq_len: int) -> str:
    text = MASKS[name][0]
    if "{" not in text:
        return text
    if seq_len not in DOCUMENTS:
        raise Skip(f"no number and density of documents is known for {seq_len} tokens")
    return text.format(lengths="+".join(map(str, zipf_lengths(seq_len, *DOCUMENTS[seq_len], largest=0.25))))


SOURCE = MagiDistributed()
