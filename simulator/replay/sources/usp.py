"""USP's (yunchang's) benchmark images: attention over 8 GPUs of one node, causal, several degrees and ring variants.

    t = max(call, simulated time),     call = a + b ring steps

Streams have no priority, so that hops wait for kernels. ``call`` is what the host needs for one call of yunchang's
code; it rules up to 8K tokens. `usp` is simulated with the ring variant as partition; ``qkvpack`` sends Q, K and V as
one message, which matters to the host only. The kernel's blocks are dispatched in order, one or two to a
multiprocessor, as CUDA does and as we measured of this kernel on an H100, whose share of a block alone is taken over:
ranks have one to three blocks per multiprocessor here, of which whole waves would be up to a third too long.

A ring of one is the same code in all three variants: its rows are three runs of one method. With packed QKV on 512
tokens these runs take 1.8, 4.0 and 5.3 ms, on 8,192 tokens all 4.2 ms, twice what a ring of two takes that has as many
all-to-alls and more kernels; nothing that the code does explains it (`yunchang/hybrid/attn_layer.py`: one all-to-all of
QKV, one of O), so it is not modelled.

Traps. ``seq_len`` is the whole sequence. Three images do not name their GPU: taken as the A100 of the fourth. In
long_ctx_*.png the first degree is the ring's (their heads allow no other), and the links are no NVLinks: rings take
the time of 10 to 15 GB/s, one number. Rows of 32K tokens and 32 heads take a fifth of the time of 128K, not a
sixteenth, with the host far away: as head dim 128 would; they contradict their label and are skipped. Head dim 32 has
no curve of its own: one efficiency; and at these lengths head dim 128 reaches less than at 8K, so it gets one too.

Source: github feifeibear/long-context-attention @56118e0 media/*.png (Apache-2.0).
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

from cost_models.hardware import HardwareProfile, load_hardware
from cost_models.topology.links import nvlink_bytes_per_s
from simulator.replay.attention import Machine, Problem, Times, value_of
from simulator.replay.fits import fitted_hardware
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA, Source

PARTITIONS = {"basic": "contiguous", "zigzag": "zigzag", "stripe": "striped"}
UNPACKED = "no_packed"
NVLINK_BYTES_PER_S = 12 * nvlink_bytes_per_s(80)


class Usp(Source):
    """Iterations per second of one call."""

    name = "usp"
    title = "USP's benchmark images, 8 GPUs of one node"

    def claims(self, row: Row) -> bool:
        """Rows of the images."""
        return "long-context-attention" in row["source"]

    def predict(self, row: Row) -> float:
        """Iterations per second."""
        gpus = row.integer("n_gpus", 64)
        ulysses, ring, variant, packed = degrees(row["method"], gpus)
        schedule = f"usp:ulysses={ulysses},ring={ring},partition={PARTITIONS[variant]}"
        problem = Problem.of(row, dtype="fp16")
        if row["table_or_figure"].startswith("media/benchmark") and (problem.heads, problem.seq_len) == (32, 32768):
            raise Skip(
                "label contradicts its value: 11 ms where 128K tokens take 63, a fifth for a sixteenth of the FLOP; "
                "head dim 128, the other value in the benchmark's script, would take 10"
            )
        machine = self._machine(row)
        times = machine.times(schedule, problem, gpus)
        call = self.fit.constants["call_s"][packed]
        floor = call["base"] + call["step"] * ring
        times = Times(max(floor, times.forward_s), max(3 * floor, times.both_s))
        return value_of(row, times, problem.forward_flop(problem.seq_len**2 / 2), gpus)

    def _machine(self, row: Row) -> Machine:
        if row["table_or_figure"].startswith("media/long_ctx"):
            return self.slow_machine
        if "A100-SXM" in row["gpu"] or "not stated" in row["gpu"]:
            return self.machine
        if row["gpu"].startswith("L20"):
            return _l20()
        raise Skip(f"no machine of {row['gpu'][:40] or 'an unnamed GPU'} is known")

    @cached_property
    def machine(self) -> Machine:
        """A100 SXM node with the fitted kernel."""
        return build_machine(fitted_hardware(DATA / f"{self.name}.hardware.toml"))

    @cached_property
    def slow_machine(self) -> Machine:
        """The same kernels over the links of long_ctx_*.png."""
        profile = fitted_hardware(DATA / f"{self.name}.hardware.toml")
        return build_machine(profile, self.fit.constants["long_ctx_bytes_per_s"])

    def method(self, row: Row) -> str:
        """Degrees and ring variant; a ring of one runs the same code in every variant: these are runs of one method."""
        method = re.sub(r"; (qkvpack|no_packed)$", "", row["method"])
        return re.sub(r"; ring variant \w+", "", method) if "ring=1;" in method else method

    def configuration(self, row: Row) -> tuple[str, ...]:
        """Methods are compared as they are packed: packing changes the host's work only."""
        columns = ("table_or_figure", "gpu", "n_gpus", "model_or_shape", "seq_len", "metric", "unit")
        return (*(row[column] for column in columns), "qkvpack" if "qkvpack" in row["method"] else UNPACKED)

    def in_fit(self, row: Row) -> bool:
        """Ulysses alone where it is longest, for the kernels; 8K tokens for the host; one ring for the slow links."""
        if row["table_or_figure"].startswith("media/long_ctx_h8"):
            return row["method"] == "ring zigzag" and row["metric"] == "forward throughput"
        if row["table_or_figure"].startswith("media/gqa"):
            return row["method"] == "USP zigzag ulysses=8"
        if not row["table_or_figure"].startswith("media/benchmark"):
            return False
        dims, method = row.dims(), row["method"]
        if row["seq_len"] == "8192":
            return ("ulysses=4 " in method or "ulysses=1 " in method) and "zigzag" in method
        longest = row["seq_len"] == "131072" and dims in ((2, 32, 32, 32), (2, 8, 8, 128))
        return longest and method == "USP ulysses=8 x ring=1; ring variant basic; no_packed"


def build_machine(profile: HardwareProfile, link_bytes_per_s: float | None = None) -> Machine:
    """8 A100 of one node; with links of another rate where one is given."""
    if link_bytes_per_s is not None:
        share = link_bytes_per_s / NVLINK_BYTES_PER_S
        slow = profile.links["nvlink"].model_copy(update={"efficiency": share})
        profile = profile.model_copy(update={"links": {**profile.links, "nvlink": slow}})
    return Machine("dgx-a100", profile, "a100-80", "flash2")


@lru_cache
def _l20() -> Machine:
    return Machine("pcie-8x", load_hardware("l20"), "l20", "flash2")


def degrees(method: str, gpus: int) -> tuple[int, int, str, str]:
    """(Ulysses degree, ring degree, ring variant, packing) of a method's name.

    >>> degrees("USP stripe (2x4)", 8), degrees("ring zigzag", 8)
    ((4, 2, 'stripe', 'no_packed'), (1, 8, 'zigzag', 'no_packed'))
    """
    variant = next((name for name in PARTITIONS if name in method), None)
    if variant is None:
        raise Skip(f"no ring variant in method {method[:60] or 'without a name'}")
    packed = "qkvpack" if "qkvpack" in method else UNPACKED
    ulysses = re.search(r"ulysses=(\d{1,4})", method)
    product = re.search(r"\((\d{1,4})x(\d{1,4})\)", method)
    if product:
        ring, heads = int(product.group(1)), int(product.group(2))
    elif ulysses and int(ulysses.group(1)):
        heads = int(ulysses.group(1))
        ring = gpus // heads
    else:
        ring, heads = gpus, 1
    return heads, ring, variant, packed


SOURCE = Usp()
