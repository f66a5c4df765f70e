"""Layers and models through `simulate` and `compare`: what must hold of the results, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cost_models.models import load_model
from simulator.compare import compare
from simulator.request import SimulationRequest
from simulator.result import SimulationResult
from simulator.simulate import simulate
from simulator.steps.pipeline import in_flight
from traces.errors import InputError

BASE: dict[str, Any] = {
    "model": "llama-3.1-8b", "seq_len": "32k", "gpus": 8, "topology": "dgx-h100", "timeline": False,
    "engine": "maxplus",
}  # fmt: skip
PAIRS = 32768 * 32769 // 2


def run(**options: Any) -> SimulationResult:
    return simulate(SimulationRequest(**(BASE | {"schedule": "ring", "layers": "model"} | options)))


def linear_flop(tokens: int) -> int:
    """Of the projections of all layers, forward."""
    shape = load_model("llama-3.1-8b")
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    return 2 * tokens * shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def attention_flop() -> int:
    return 4 * 128 * 32 * PAIRS * 32


@cache
def pipelined(stages: int, microbatches: int, virtual: int = 1, **options: Any) -> SimulationResult:
    """Sixteen layers in a pipeline, where nothing cools meanwhile; the messages are nearly free."""
    model = replace(load_model("llama-3.1-8b"), layers=16, vocab=1024)
    pipeline = {"pp": stages, "virtual_stages": virtual, "gpus": stages, "what_if": "nvlink=1000"} | options
    return run(model=model, schedule="flash", seq_len=8192, batch=microbatches, microbatches=microbatches,
               topology="dgx-a100", **pipeline)  # fmt: skip


@pytest.mark.parametrize(
    ("stages", "microbatches", "virtual"),
    [(2, 4, 1), (2, 16, 1), (4, 8, 1), (8, 8, 1), (2, 4, 2), (2, 4, 4), (4, 8, 2), (4, 8, 4)],
)
def test_a_pipeline_has_its_bubble_and_no_more(stages: int, microbatches: int, virtual: int) -> None:
    """(S - 1) / (v m) of the time without one, which is an S-th of one stage's; ends and launches are 0.7 % besides."""
    one = pipelined(1, microbatches).time_s
    bubble = pipelined(stages, microbatches, virtual, interference=False).time_s * stages / one - 1
    assert bubble == pytest.approx((stages - 1) / (virtual * microbatches), abs=0.008)


@pytest.mark.parametrize("virtual", [1, 2, 4])
def test_messages_wait_beside_no_computation(virtual: int) -> None:
    """A receive kernel that waits holds SMs: issued when the sender begins, it slowed two stages by 3 to 10 %."""
    alone = pipelined(2, 4, virtual, interference=False, what_if="").time_s
    beside = pipelined(2, 4, virtual, what_if="").time_s
    assert alone <= beside < 1.025 * alone


def test_interleaving_costs_messages_and_memory() -> None:
    """Each part sends; and more microbatches are under way, in parts (`pipeline.in_flight`)."""
    plain, both = pipelined(4, 8), pipelined(4, 8, 2)
    message = 8192 * 4096 * 2
    assert list(plain.bytes_sent_per_rank) == [8 * message, 16 * message, 16 * message, 8 * message]
    assert list(both.bytes_sent_per_rank) == [24 * message, 32 * message, 32 * message, 24 * message]
    held = (both.peak_memory_bytes - plain.peak_memory_bytes) / (in_flight(0, 4, 8, 2) / 2 - in_flight(0, 4, 8))
    deeper = pipelined(4, 8, 4)
    more = (deeper.peak_memory_bytes - plain.peak_memory_bytes) / (in_flight(0, 4, 8, 4) / 4 - in_flight(0, 4, 8))
    assert held == pytest.approx(more, rel=0.02), "what a stage's layers keep of a microbatch"


@pytest.mark.parametrize(
    ("options", "linears", "attentions", "heads"),
    [
        ({"zero": 3}, 3, 3.5, 3),
        ({"zero": 3, "checkpoint": "full"}, 4, 4.5, 3),
        ({"checkpoint": "attention"}, 4, 3.5, 3),
        ({"tp": 2, "dp": 2, "batch": 2}, 6, 7, 6),
        ({"tp": 2, "pp": 2, "batch": 4, "microbatches": 4}, 12, 14, 12),
        ({"loss_chunks": 8}, 3, 3.5, 3),
        ({"pass_": "prefill"}, 1, 1, 0),
    ],
)
def test_flop_of_a_step(options: dict[str, Any], linears: int, attentions: float, heads: int) -> None:
    """Section 2 of the fine-tuning facts: 3 Flin + 3.5 Fatt, a forward more where everything is recomputed."""
    result, shape = run(**options), load_model("llama-3.1-8b")
    head = 2 * shape.hidden * shape.vocab
    want = linears * linear_flop(32768) + int(attentions * attention_flop()) + heads * head * 32768
    last_tokens = 8 * head if options.get("pass_") == "prefill" else 0
    assert result.flop_total == want + last_tokens
    assert result.pairs_total == PAIRS
    total = result.forward_s + result.backward_s + result.other_s
    assert total == pytest.approx(result.time_s, abs=2e-9)


def test_a_layer_both_ways() -> None:
    result = run(layers="layer")
    assert result.inputs["pass"] == "both"
    assert result.flop_total * 32 == 3 * linear_flop(32768) + int(3.5 * attention_flop())
    backward, forward = run(layers="layer", pass_="backward"), run(layers="layer", pass_="forward")
    assert forward.flop_total + backward.flop_total == result.flop_total
    assert forward.backward_s == 0 == backward.forward_s


def test_zero_stages_trade_memory_for_communication() -> None:
    results = [run(zero=zero, checkpoint="full", loss_chunks=8) for zero in range(4)]
    memory = [result.peak_memory_bytes for result in results]
    assert memory == sorted(memory, reverse=True) and len(set(memory)) == 4
    sent = [result.bytes_sent_per_rank[0] for result in results]
    assert sent[0] == sent[1] == sent[2], "an all-reduce is a reduce-scatter and an all-gather"
    shape = load_model("llama-3.1-8b")
    layers = shape.n_parameters - 2 * shape.vocab * shape.hidden - shape.hidden
    gathered_twice = 2 * (layers + shape.vocab * shape.hidden)
    assert sent[3] - sent[0] == gathered_twice * 7 // 8, "all but the head, which backward needs at once"


def test_inputs_reproduce_the_run() -> None:
    result = run(tp=2, tp_version=3, zero=1, checkpoint="full", pass_="step")
    again = {("pass_" if name == "pass" else name): value for name, value in result.inputs.items()}
    assert simulate(SimulationRequest(**again, timeline=False)).to_json() == result.to_json()


def test_more_of_everything_takes_longer() -> None:
    assert run(pass_="prefill").time_s < run(pass_="prefill", seq_len="64k").time_s
    assert run(checkpoint="none", zero=3).time_s < run(checkpoint="attention", zero=3).time_s
    assert run(checkpoint="attention", zero=3).time_s < run(checkpoint="full", zero=3).time_s
    assert run(pass_="decode").time_s < run(pass_="decode", seq_len="1M", batch=2).time_s


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tp": 3}, "not divisible by tp x dp x pp"),
        ({"tp": 16, "gpus": 16}, "heads of llama-3.1-8b are not divisible"),
        ({"dp": 2}, "batch is not divisible"),
        ({"pp": 2, "batch": 1}, "fewer microbatches than pipeline stages"),
        ({"virtual_stages": 2}, "virtual stages need pipeline stages"),
        ({"pp": 2, "virtual_stages": 2, "batch": 3, "microbatches": 3}, "not a multiple of the pipeline stages"),
        ({"pp": 2, "virtual_stages": 3, "batch": 2, "microbatches": 2}, "pipeline stages x virtual stages"),
        ({"pp": 2, "virtual_stages": 2, "pass_": "prefill"}, "virtual_stages does not go with pass prefill"),
        ({"pp": 3, "batch": 3, "microbatches": 3, "gpus": 6}, "layers are not divisible by the pipeline stages"),
        ({"zero": 4}, "unknown zero"),
        ({"checkpoint": "some"}, "unknown checkpoint"),
        ({"placement": "tp-cp"}, "placement is not an order"),
        ({"schedule": "apb"}, "for inference only"),
        ({"pass_": "forward"}, "pass does not go with layers model"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(**options)


def test_compare_lists_approximate_schedules_for_prefill_only() -> None:
    small = {"layers": "model", "model": replace(load_model("llama-3.1-8b"), layers=2)}
    request = SimulationRequest(**(BASE | small | {"pass_": "prefill"}))
    assert any(not each.exact for each in compare(request) if isinstance(each, SimulationResult))
    step = compare(SimulationRequest(**(BASE | small | {"zero": 3, "checkpoint": "full"})))
    results = [each for each in step if isinstance(each, SimulationResult)]
    assert results and all(each.exact for each in results)


def test_engines_agree_on_a_pipeline(tmp_path: Path) -> None:
    """Four stages and two microbatch streams: groups of sends that leave other stages out."""
    config = {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4,
              "intermediate_size": 512, "vocab_size": 1024}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    options = {"model": str(tmp_path), "seq_len": "4k", "pp": 4, "dp": 2, "batch": 8, "microbatches": 4}
    maxplus, des = (run(**options, engine=engine) for engine in ("maxplus", "des"))
    assert des.flop_total == maxplus.flop_total
    assert des.time_s == pytest.approx(maxplus.time_s, rel=0.05)


def test_quantised_weights_speed_up_decoding_and_not_prefill() -> None:
    """Weight-only: decoding reads a quarter of the layers' bytes, on the GPU; prefill is bound by compute."""
    whole, packed = (run(pass_="decode", weight_bits=bits, gpus=1, schedule="flash") for bits in (None, 4))
    layers = 2 * (load_model("llama-3.1-8b").n_parameters - 2 * 128256 * 4096 - 65 * 4096)
    assert whole.peak_memory_bytes - packed.peak_memory_bytes == layers * 3 // 4
    assert whole.compute_s - packed.compute_s > 0.7 * layers * 3 / 4 / 3.35e12
    same = [run(pass_="prefill", weight_bits=bits).time_s for bits in (None, 4)]
    assert same[0] == pytest.approx(same[1], rel=1e-6)


def test_pages_waste_the_rest_of_a_block() -> None:
    options = {"pass_": "decode", "gpus": 1, "schedule": "flash", "seq_len": 1000, "batch": 3}
    paged, plain = (run(**options, kv_block=block).peak_memory_bytes for block in (16, None))
    rest = 3 * 8 * 32 * 8 * 128 * 2 * 2
    assert paged - plain == rest + 3 * 63 * 4, "8 tokens of 3 sequences: K and V of 8 heads, 32 layers; tables"
    with pytest.raises(InputError, match="kv_block does not go with pass step"):
        run(kv_block=16)


FP8: dict[str, Any] = {"seq_len": "16k", "gpus": 4, "zero": 1, "loss_chunks": 8, "engine": "maxplus",
                       "interference": False, "fp8": True}  # fmt: skip


def test_fp8_products_take_half_and_casts_something() -> None:
    plain, fp8 = run(**FP8 | {"fp8": False}), run(**FP8)
    parts, exact = fp8.breakdown or {}, plain.breakdown or {}
    before, after = [sum(each[f"compute/{kind}/backward"] for kind in ("linear_dx", "linear_dw"))
                    for each in (exact, parts)]  # fmt: skip
    assert 0.5 < after / before < 0.6, "the datasheet's peak is twice that of bf16; prologues and memory do not shrink"
    assert all(parts[f"compute/{kind}/{phase}"] for kind in ("amax", "quantise") for phase in ("forward", "backward"))
    assert fp8.time_s < plain.time_s and fp8.flop_total == plain.flop_total
    assert ["none in FP8 was measured" in str(each.warnings) for each in (plain, fp8)] == [False, True]
    assert fp8.provenance["terms"]["matrix products"]["basis"] == "datasheet"
    width = [each.uncertainty.high_s / each.uncertainty.low_s for each in (plain, fp8)]
    assert width[1] > width[0]


def test_fp8_keeps_half_of_what_products_keep_and_casts_of_weights() -> None:
    """Of inputs of q, k and v, of gate and up, and of down one byte instead of two; o is kept for attention besides.

    The matrices of layers come once and transposed, while all layers wait for their backward.
    """
    plain, fp8 = run(**FP8 | {"fp8": False, "seq_len": "64k"}), run(**FP8 | {"seq_len": "64k"})
    shape, tokens = load_model("llama-3.1-8b"), 16384
    kept = shape.layers * tokens * (2 * shape.hidden + shape.intermediate - shape.hidden)
    casts = 2 * (shape.n_parameters - 2 * shape.vocab * shape.hidden)
    assert fp8.peak_memory_bytes - plain.peak_memory_bytes == pytest.approx(casts - kept, abs=0.03 * casts)


def test_fp8_casts_go_with_the_last_backward() -> None:
    """Where the end of the step decides memory, they are gone."""
    plain, fp8 = [run(**FP8 | {"fp8": fp8, "seq_len": "2k", "zero": 0}) for fp8 in (False, True)]
    assert fp8.peak_memory_bytes < 1.02 * plain.peak_memory_bytes, "kept, they would be 11 %"


def test_weights_of_inference_are_in_fp8() -> None:
    options: dict[str, Any] = {"pass_": "decode", "gpus": 1, "schedule": "flash", "seq_len": "8k", "cuda_graphs": True}
    plain, fp8 = run(**options), run(**options, fp8=True)
    shape = load_model("llama-3.1-8b")
    matrices = shape.n_parameters - 2 * shape.vocab * shape.hidden
    assert plain.peak_memory_bytes - fp8.peak_memory_bytes == pytest.approx(matrices, rel=0.01)
    assert fp8.time_s < plain.time_s


def test_fp8_is_refused_where_the_gpu_has_none() -> None:
    with pytest.raises(InputError, match="a100-80 has no matrix units for fp8"):
        run(**FP8 | {"topology": "dgx-a100"})
