"""Offload: what it moves, what that costs, and what it hides; both engines agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cost_models.models import load_model
from simulator.program.operations import HostCopy, Operation
from simulator.request import SimulationRequest
from simulator.result import SimulationResult
from simulator.schedules import parse_schedule
from simulator.simulate import simulate
from simulator.steps.record import subject_of
from traces.errors import InputError
from traces.metrics import busy_ns

SHAPE = replace(load_model("llama-3.1-8b"), layers=4)
STEP = SimulationRequest(model=SHAPE, seq_len="32k", gpus=2, topology="dgx-h100", schedule="ring", layers="model",
                         checkpoint="full", loss_chunks=8, zero=1, interference=False)  # fmt: skip


def run(**options: object) -> SimulationResult:
    return simulate(replace(STEP, **options))


def copied(**options: object) -> dict[str, int]:
    """Bytes per rank, by kind."""
    request = replace(STEP, **options)
    found: dict[str, int] = {}

    class Copies:
        def allocate(self, buffer: object) -> None: ...
        def release(self, buffer: object) -> None: ...
        def finish(self, outputs: object) -> None: ...

        def operation(self, operation: Operation) -> None:
            if isinstance(operation.work, HostCopy):
                found[operation.kind] = found.get(operation.kind, 0) + int(operation.work.bytes)

    subject_of(parse_schedule(request.schedule), request.resolve()).record(Copies())
    return found


def test_activations_are_the_input_of_every_layer_but_the_last() -> None:
    tokens, result = 32768 // 2, run(offload="activations")
    inputs = (SHAPE.layers - 1) * tokens * SHAPE.hidden * 2
    assert copied(offload="activations") == {"offload": inputs, "fetch": inputs}
    assert result.host_memory_bytes == inputs
    assert run().host_memory_bytes == 0


def test_attention_results_that_are_kept_go_too() -> None:
    tokens = 32768 // 2
    kept = (SHAPE.layers - 1) * tokens * (SHAPE.hidden * 2 + SHAPE.heads * (SHAPE.head_dim * 2 + 4))
    assert copied(offload="activations", checkpoint="attention") == {"offload": kept, "fetch": kept}


def test_optimizer_states_are_twelve_bytes_of_each_ranks_share() -> None:
    states = 12 * SHAPE.n_parameters // 2
    assert copied(offload="optimizer") == {"offload": states, "fetch": states}
    result = run(offload="optimizer")
    assert result.host_memory_bytes == states
    assert result.peak_memory_bytes < run().peak_memory_bytes - states // 3


def test_copies_of_activations_hide_behind_long_layers_and_not_behind_a_slow_link() -> None:
    plain, hidden = run().time_s, run(offload="activations").time_s
    assert hidden == pytest.approx(plain, rel=2e-3)
    assert run(offload="activations", what_if="pcie=0.02").time_s > 1.5 * plain


def test_optimizer_takes_as_long_as_copies_that_wait_for_each_other() -> None:
    """States of a unit come once those before the last have left: the head comes, and leaves while two of the four
    layers come; the other two come; the embedding comes and leaves. Updates add to that at most what they take."""
    end, states = 12 * SHAPE.vocab * SHAPE.hidden / 2, 12 * SHAPE.n_parameters / 2
    copies_s = (4 * end + (states - 2 * end) / 2) / 55.2e9
    assert copies_s < run(offload="optimizer").other_s < copies_s + run().other_s
    assert run(offload="optimizer", what_if="pcie=0.1").other_s == pytest.approx(10 * copies_s, rel=2e-3)


@pytest.mark.parametrize("interference", [False, True])
def test_engines_agree_and_copies_are_their_own_category(interference: bool) -> None:
    both = [run(offload="all", engine=engine, interference=interference) for engine in ("maxplus", "des")]
    assert both[0].time_s == pytest.approx(both[1].time_s, rel=1e-3 if interference else 0)
    for result in both:
        assert busy_ns(result.timeline, 0, "copy") > 0


def test_what_layers_keep_takes_no_memory_of_the_gpu() -> None:
    def peak(layers: int, **options: object) -> int:
        model = replace(SHAPE, layers=layers)
        return run(seq_len="256k", model=model, method="lora:rank=8", **options).peak_memory_bytes

    kept = 4 * 131072 * SHAPE.hidden * 2
    weights = peak(8, offload="activations") - peak(4, offload="activations")
    assert peak(8) - peak(4) - weights == pytest.approx(kept, rel=0.01)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"offload": "activations", "checkpoint": "none"}, "needs checkpointing"),
        ({"offload": "disk"}, "unknown offload"),
        ({"offload": "optimizer", "pass_": "prefill"}, "for training steps"),
        ({"offload": "optimizer", "layers": "layer", "zero": 0, "loss_chunks": None}, "does not go with layers layer"),
    ],
)
def test_what_does_not_go_is_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=why):
        run(**options)
