"""Steps of a model in a pipeline, stages whole and interleaved: ``python -m benchmarks.pipelines``.

Llama-3.1-8B at 8k tokens, a microbatch of one sequence, on one node of H100, full checkpointing, 16 loss chunks.

    bubble  = S t / t_1 - 1          t_1 the time of one stage with all layers, of as many microbatches: what comes out
    ideal   = (S - 1) / (v m)        (Narayanan et al. 2021, arXiv 2104.04473, section 2.2)

The end of the model (head and loss: as much work as one and a half layers) lies on one stage, and makes what comes out
larger.
"""

from __future__ import annotations

from functools import cache

from simulator.request import SimulationRequest
from simulator.result import SimulationResult
from simulator.simulate import simulate

FORM = "{:>6}{:>14}{:>8}{:>10}{:>9}{:>8}{:>10}{:>12}"
CASES = [(2, 8, 1), (2, 8, 2), (4, 8, 1), (4, 8, 2), (4, 8, 4), (4, 16, 1), (4, 16, 2), (8, 16, 1), (8, 16, 2)]


@cache
def step(stages: int, microbatches: int, virtual: int = 1) -> SimulationResult:
    """A step in so many stages."""
    return simulate(
        SimulationRequest(
            model="llama-3.1-8b", seq_len="8k", batch=microbatches, microbatches=microbatches, gpus=stages, pp=stages,
            virtual_stages=virtual, topology="dgx-h100", layers="model", schedule="flash", checkpoint="full",
            loss_chunks=16, timeline=False,
        )
    )  # fmt: skip


def row(stages: int, microbatches: int, virtual: int) -> str:
    """A line of the table."""
    done, one = step(stages, microbatches, virtual), step(1, microbatches)
    bubble, ideal = done.time_s * stages / one.time_s - 1, (stages - 1) / (virtual * microbatches)
    sent, memory = f"{max(done.bytes_sent_per_rank) / 1e9:.2f}", f"{done.peak_memory_bytes / 1e9:.1f}"
    shares = f"{bubble:.1%}", f"{ideal:.1%}"
    return FORM.format(stages, microbatches, virtual, f"{done.time_s:.3g}", *shares, sent, memory)


def main() -> None:
    """Print the table."""
    print(FORM.format("stages", "microbatches", "parts", "s a step", "bubble", "ideal", "GB sent", "GB at most"))
    for case in CASES:
        print(row(*case))


if __name__ == "__main__":
    main()
