"""One token of many models on many GPUs, beside the least time that its bytes take: ``python -m benchmarks.decoding``.

    least = (weights that the tokens need + cached rows) of a GPU / memory's rate,  summed over pipeline stages

On DGX H100, with CUDA graphs. Weights are those of the layers and the head; of experts those that a step's tokens visit
where they spread evenly; of the embedding only rows are read. The table is in docs/inference.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from cost_models.hardware import load_hardware
from cost_models.models import ModelShape, load_model
from cost_models.units import format_count, parse_count
from simulator.request import SimulationRequest
from simulator.result import SimulationResult
from simulator.simulate import simulate

ELEMENT_BYTES = 2


@dataclass(frozen=True)
class Case:
    """A step of decoding."""

    model: str
    gpus: int
    seq_len: str
    batch: int = 1
    tp: int = 1
    dp: int = 1
    ep: int = 1
    overlapped: bool = False
    fp8: bool = False

    @property
    def layout(self) -> str:
        """Ranks by axis, those of one left out."""
        cp = self.gpus // (self.tp * self.dp)
        axes = {"tp": self.tp, "cp": cp, "dp": self.dp, "ep": self.ep}
        named = [f"{name}{size}" for name, size in axes.items() if size > 1]
        named += ["fp8"] * self.fp8 + ["in turn"] * self.overlapped
        return " ".join(named) or "-"

    def result(self) -> SimulationResult:
        """What the simulator says."""
        return simulate(
            SimulationRequest(
                model=self.model, schedule="ring", gpus=self.gpus, seq_len=self.seq_len, batch=self.batch, tp=self.tp,
                dp=self.dp, ep=self.ep, topology="dgx-h100", layers="model", pass_="decode", cuda_graphs=True,
                timeline=False, microbatches=1 + self.overlapped, overlap_microbatches=self.overlapped,
                fp8=self.fp8,
            )
        )  # fmt: skip

    def least_s(self) -> float:
        """The bytes of the fullest GPU over the rate of its memory."""
        shape, moe = load_model(self.model), load_model(self.model).moe
        experts = 0
        if moe:
            experts = (shape.layers - moe.first_dense) * 3 * shape.hidden * moe.intermediate * moe.experts
        visited = min(1.0, self.batch * moe.top_k / moe.experts) if moe else 0.0
        others = shape.n_parameters - experts - shape.vocab * shape.hidden
        weights = others / self.tp + experts * visited / self.ep / self.tp
        weights = weights / 2 if self.fp8 else weights
        return ELEMENT_BYTES * (weights + self._cached(shape)) / load_hardware("h100-sxm").hbm_bytes_per_s

    def _cached(self, shape: ModelShape) -> float:
        """Values of the cache on a GPU: latent rows are on every tensor parallel rank."""
        cp, tokens = self.gpus // (self.tp * self.dp), parse_count(self.seq_len)
        row = shape.mla.kv_lora + shape.mla.rope if shape.mla else 2 * shape.kv_heads * shape.head_dim / self.tp
        return self.batch / self.dp * tokens / cp * row * shape.layers


LENGTHS = ("8k", "128k", "1M")
CASES = [
    *[Case("llama-3.1-8b", gpus, size, tp=tp) for gpus, tp in ((1, 1), (8, 1), (8, 8), (16, 8)) for size in LENGTHS],
    Case("llama-3.1-8b", 1, "8k", batch=32),
    *[Case("llama-3.1-70b", gpus, length, tp=8) for gpus in (8, 16, 64) for length in LENGTHS],
    Case("llama-3.1-70b", 8, "8k", batch=64, tp=8),
    *[Case("deepseek-v3", 64, length, batch=64, dp=64, ep=64) for length in LENGTHS],
    *[Case("deepseek-v3", 64, length, batch=64, dp=8, ep=64) for length in LENGTHS],
    *[Case("deepseek-v3", 64, length, batch=8, dp=8, ep=64) for length in LENGTHS],
    Case("deepseek-v3", 64, "8k", batch=2048, dp=64, ep=64),
    *[Case("deepseek-v3", 64, "4k", 8192, dp=64, ep=64, fp8=True, overlapped=both) for both in (False, True)],
]  # fmt: skip


def main() -> None:
    """Print the table."""
    head = ("model", "GPUs", "as", "context", "batch", "ms", "least", "x", "tokens/s", "GiB a GPU")
    print(f"{head[0]:<14}{head[1]:>5}  {head[2]:<22}", *[f"{each:>9}" for each in head[3:]])
    for case in CASES:
        result, least = case.result(), case.least_s()
        numbers = (
            format_count(parse_count(case.seq_len)), str(case.batch), f"{1e3 * result.time_s:.1f}",
            f"{1e3 * least:.1f}", f"{result.time_s / least:.1f}", f"{case.batch / result.time_s:,.0f}",
            f"{result.peak_memory_bytes / 2**30:.0f}" + ("" if result.fits else " (no)"),
        )  # fmt: skip
        print(f"{case.model:<14}{case.gpus:>5}  {case.layout:<22}", *[f"{each:>9}" for each in numbers])


if __name__ == "__main__":
    main()
