"""Inference through `simulate`: what chunks, packed and latent caches, graphs and far stages must do; refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cost_models.hardware import load_hardware
from cost_models.models import load_model
from cost_models.packing import FORMS
from cost_models.wide_area import parse_link
from simulator.compare import compare
from simulator.request import SimulationRequest
from simulator.result import Refused, SimulationResult
from simulator.simulate import simulate
from traces.errors import InputError

LLAMA = load_model("llama-3.1-8b")
SMALL = replace(LLAMA, layers=4, vocab=32000)
DEEPSEEK = load_model("deepseek-v3")
LATENT = replace(DEEPSEEK, layers=2, vocab=32000, moe=None)
BASE: dict[str, Any] = {"layers": "model", "topology": "dgx-h100", "schedule": "ring", "engine": "maxplus", "gpus": 8,
                        "model": SMALL, "seq_len": "64k", "timeline": False}  # fmt: skip
TOKENS = 65536


def run(pass_: str, **options: Any) -> SimulationResult:
    return simulate(SimulationRequest(**(BASE | {"pass_": pass_} | options)))


@pytest.mark.parametrize("schedule", ["ring", "ulysses", "usp:ulysses=2,ring=4", "allgather"])
def test_chunks_compute_the_same_and_hold_less(schedule: str) -> None:
    whole, chunked = (run("prefill", schedule=schedule, prefill_chunk=size) for size in (None, "8k"))
    assert chunked.flop_total == whole.flop_total and chunked.pairs_total == whole.pairs_total
    assert chunked.peak_memory_bytes < whole.peak_memory_bytes
    assert chunked.time_s > whole.time_s


def test_traffic_of_chunks() -> None:
    """A ring passes the cache on for every chunk; with heads scattered, ranks keep what arrives: the prompt once."""
    chunks = 8
    kv = TOKENS * 2 * SMALL.kv_heads * SMALL.head_dim * 2 * SMALL.layers
    ring, ulysses = (run("prefill", schedule=name, prefill_chunk="8k") for name in ("ring", "ulysses"))
    assert ring.bytes_sent_per_rank[0] == 7 * kv // 8 // chunks * sum(range(1, chunks + 1))
    assert ulysses.bytes_sent_per_rank == run("prefill", schedule="ulysses").bytes_sent_per_rank
    packed = run("prefill", prefill_chunk="8k", kv_dtype="int8")
    assert packed.bytes_sent_per_rank[0] * 2 * SMALL.head_dim == ring.bytes_sent_per_rank[0] * (SMALL.head_dim + 4)


@pytest.mark.parametrize("chunks", [1, 4, 32])
def test_traffic_where_queries_go_round(chunks: int) -> None:
    """Queries, and back O and LSE: (P-1) c/P (2 H D e + 4 H) a chunk, whatever is cached; keys: (P-1) n/P 2 K D e."""
    size, heads, dim = TOKENS // chunks, SMALL.heads, SMALL.head_dim
    both = [run("prefill", prefill_chunk=size, schedule=name) for name in ("ring:circulate=q", "ring")]
    queries, keys = (each.bytes_sent_per_rank[0] for each in both)
    assert queries == 7 * SMALL.layers * TOKENS // 8 * (2 * heads * dim * 2 + 4 * heads)
    kv_chunk = 7 * SMALL.layers * size // 8 * 2 * SMALL.kv_heads * dim * 2
    assert keys == kv_chunk * sum(range(1, chunks + 1))
    assert both[0].pairs_total == both[1].pairs_total and both[0].flop_total == both[1].flop_total
    assert (queries < keys) == (chunks > 2 * heads // SMALL.kv_heads)  # n/c = (chunks + 1)/2 on average


def test_queries_of_a_short_question_after_a_long_prefix_go_round_faster() -> None:
    options = {"seq_len": "1M", "cached_prefix": 2**20 - 4096, "gpus": 16, "model": LLAMA}
    keys, queries = (run("prefill", schedule=name, **options) for name in ("ring", "ring:circulate=q"))
    assert queries.time_s < keys.time_s and queries.bytes_sent_per_rank[0] < keys.bytes_sent_per_rank[0] / 10
    assert queries.peak_memory_bytes <= keys.peak_memory_bytes


def test_retrieved_passages_are_a_longer_prefill() -> None:
    """Passages of r tokens before a question of n: linear products of n + r tokens, attention (n + r)^2 / 2."""
    question, passages = 1024, 8 * 512
    tokens = question + passages
    plain, augmented = (run("prefill", gpus=1, schedule="flash", seq_len=size) for size in (question, tokens))
    shape = SMALL
    matrices = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    matrices += 3 * shape.hidden * shape.intermediate

    def flop(n: int) -> int:
        attention = 4 * shape.head_dim * shape.heads * n * (n + 1) // 2
        return shape.layers * (2 * n * matrices + attention) + 2 * shape.hidden * shape.vocab

    assert (plain.flop_total, augmented.flop_total) == (flop(question), flop(tokens))
    reused = run("prefill", gpus=1, schedule="flash", seq_len=tokens, cached_prefix=passages)
    pairs = tokens * (tokens + 1) // 2 - passages * (passages + 1) // 2
    assert reused.pairs_total == pairs, "passages that are cached are attended to, and not computed"
    saved = 2 * passages * matrices + 4 * shape.head_dim * shape.heads * passages * (passages + 1) // 2
    assert augmented.flop_total - reused.flop_total == shape.layers * saved
    assert reused.time_s < augmented.time_s / 2


@pytest.mark.parametrize("form", list(FORMS))
def test_packed_caches_take_their_bytes(form: str) -> None:
    options: dict[str, Any] = {"gpus": 2, "batch": 64}
    plain, packed = (run("decode", kv_dtype=each, **options) for each in (None, form))
    rows = 64 * TOKENS // 2 * 2 * SMALL.kv_heads * SMALL.layers
    saved = rows * (2 * SMALL.head_dim - FORMS[form].row_bytes(SMALL.head_dim))
    assert plain.peak_memory_bytes - packed.peak_memory_bytes == pytest.approx(saved, rel=1e-3)
    rate = load_hardware("h100-sxm").hbm_bytes_per_s
    assert plain.compute_s - packed.compute_s > 0.9 * saved / rate, "they are read so, too"


def test_a_latent_cache_holds_576_values_a_token() -> None:
    options: dict[str, Any] = {"model": LATENT, "gpus": 1, "schedule": "flash", "seq_len": "128k"}
    short, long = (run("decode", **{**options, "seq_len": size}).peak_memory_bytes for size in ("64k", "128k"))
    assert long - short == TOKENS * 576 * 2 * LATENT.layers
    absorbed, expanded = (run("decode", mla=each, **options) for each in ("absorbed", "expanded"))
    assert run("decode", **options).time_s == absorbed.time_s, "absorbed is the default"
    assert expanded.time_s > 20 * absorbed.time_s
    assert expanded.peak_memory_bytes > absorbed.peak_memory_bytes + 128 * 320 * 2 * 2 * TOKENS
    packed = run("decode", kv_dtype="fp8", **options)
    assert absorbed.peak_memory_bytes - packed.peak_memory_bytes == 2 * TOKENS * LATENT.layers * (1152 - 580)


def test_absorbed_prefill_sends_less_and_computes_more() -> None:
    """A ring passes on 576 + 512 values a token, not 128 (192 + 128); a pair costs 2 (576 + 512), not 2 (192 + 128)."""
    expanded, absorbed = (run("prefill", model=LATENT, gpus=4, seq_len="16k", mla=each) for each in (None, "absorbed"))
    assert absorbed.bytes_sent_per_rank[0] * 128 * 320 == expanded.bytes_sent_per_rank[0] * 1088
    pairs = 16384 * 16385 // 2
    more = LATENT.layers * 2 * 128 * pairs * (1088 - 320)
    # Keys and values are not made of the rows; queries and outputs go through the same matrix instead.
    assert absorbed.flop_total - expanded.flop_total == more


def test_graphs_launch_a_token_at_once() -> None:
    options = {"gpus": 1, "schedule": "flash", "seq_len": "1k"}
    eager, graphs = (run("decode", **options, cuda_graphs=each) for each in (False, True))
    assert graphs.compute_s == pytest.approx(eager.compute_s, rel=1e-9)
    assert graphs.time_s - graphs.compute_s < 5e-6 < eager.time_s - eager.compute_s
    assert any("launches by the host set the time" in each for each in eager.warnings)
    assert not any("launches by the host" in each for each in graphs.warnings)
    busy = run("decode", gpus=1, schedule="flash", batch=64)
    assert not any("launches by the host" in each for each in busy.warnings), "kernels take longer than launches"


def test_far_stages_add_their_links() -> None:
    """The time of a token has as many hops as stages: the number of the next one goes back to the first."""
    options: dict[str, Any] = {"gpus": 4, "pp": 4, "seq_len": "4k", "cuda_graphs": True}
    near, far = (run("decode", stage_link=each, **options) for each in ("0ms,1000Gbit/s", "40ms,100Mbit/s"))
    link, hidden = parse_link("40ms,100Mbit/s"), 2 * SMALL.hidden
    hops = 4 * link.latency_s + (3 * hidden + 8) / link.bytes_per_s
    assert far.time_s - near.time_s == pytest.approx(hops, rel=1e-3)
    two = run("decode", stage_link="40ms,100Mbit/s", new_tokens=2, **options)
    assert two.time_s == pytest.approx(2 * far.time_s, rel=0.02)
    several = run("decode", stage_link="40ms,100Mbit/s", new_tokens=8, batch=4, microbatches=4, **options)
    assert several.time_s == pytest.approx(8 * far.time_s, rel=0.1), "four sequences keep four stages busy"
    crowd = run("decode", stage_link="40ms,100Mbit/s", new_tokens=8, batch=16, microbatches=16, **options)
    assert crowd.time_s < 9 * far.time_s, "what is under way does not wait for a stage to be ready"
    prompt = run("prefill", stage_link="40ms,100Mbit/s", **options | {"cuda_graphs": False})
    assert prompt.time_s > 3 * (4096 * hidden / link.bytes_per_s + link.latency_s)
    chunks = run("prefill", stage_link="40ms,100Mbit/s", prefill_chunk=512, **options | {"cuda_graphs": False})
    assert chunks.time_s < 0.6 * prompt.time_s, "stages send one chunk while they compute the next"


def test_engines_agree_on_far_stages() -> None:
    options: dict[str, Any] = {
        "gpus": 4,
        "pp": 4,
        "seq_len": "4k",
        "stage_link": "5ms,1Gbit/s",
        "batch": 2,
        "new_tokens": 2,
        "microbatches": 2,
    }
    times = [run("decode", engine=engine, **options).time_s for engine in ("maxplus", "des")]
    assert times[0] == pytest.approx(times[1], rel=1e-6)


def test_replicas_serve_as_many_times_the_sequences() -> None:
    one, two = (run("decode", gpus=gpus, dp=dp, batch=32 * dp, schedule="flash") for gpus, dp in ((1, 1), (2, 2)))
    assert two.time_s == one.time_s and two.peak_memory_bytes == one.peak_memory_bytes
    assert two.flop_total == 2 * one.flop_total and not any(two.bytes_sent_per_rank)


def test_quantised_experts() -> None:
    shape = replace(DEEPSEEK, layers=4, vocab=32000)
    options: dict[str, Any] = {
        "model": shape,
        "gpus": 8,
        "dp": 8,
        "ep": 8,
        "batch": 8,
        "seq_len": "4k",
        "cuda_graphs": True,
    }
    plain, packed = (run("decode", weight_bits=bits, **options) for bits in (None, 8))
    experts = 3 * 7168 * 2048 * 256 // 8
    assert plain.peak_memory_bytes - packed.peak_memory_bytes > experts
    read = 8 * 8 * 3 * 7168 * 2048  # the experts that 8 tokens visit
    assert plain.compute_s - packed.compute_s > 0.5 * read / 8 / 3.35e12


def test_every_rank_reads_all_experts_that_tokens_visit() -> None:
    """One expert layer, 256 tokens: a rank's 32 experts are read whole."""
    shape = replace(DEEPSEEK, layers=4, vocab=32000)
    result = run("decode", model=shape, gpus=8, dp=8, ep=8, batch=256, seq_len="4k", cuda_graphs=True)
    experts = (result.breakdown or {})["compute/experts/forward"]
    assert experts / 1e9 > 3 * 7168 * 2048 * 2 * 32 / 3.35e12


@pytest.mark.parametrize(
    ("pass_", "options", "message"),
    [
        ("prefill", {"schedule": "apb", "prefill_chunk": "8k"}, "apb cannot take a prompt in chunks: its hosts hold"),
        ("prefill", {"schedule": "minference", "prefill_chunk": "8k"}, "chooses columns and diagonals by the last"),
        ("prefill", {"schedule": "magi", "cached_prefix": "8k"}, "magi cannot take a prompt in chunks"),
        ("prefill", {"prefill_chunk": "8k", "mask": "full"}, "needs a mask that is causal"),
        ("prefill", {"prefill_chunk": 100}, "ring cannot spread a chunk of 100 tokens"),
        ("prefill", {"prefill_chunk": "many"}, "prefill_chunk is not a whole number"),
        ("prefill", {"cached_prefix": "64k"}, "leaves nothing of the prompt"),
        ("prefill", {"prefill_chunk": "8k", "model": LATENT, "schedule": "ulysses"}, "scatters heads, and latent rows"),
        ("prefill", {"kv_block": 16}, "kv_block does not go with pass prefill"),
        ("prefill", {"cuda_graphs": True}, "cuda_graphs does not go with pass prefill"),
        ("decode", {"prefill_chunk": "8k"}, "prefill_chunk does not go with pass decode"),
        ("decode", {"kv_dtype": "int2"}, "unknown kv_dtype"),
        ("decode", {"mla": "absorbed"}, "about latent attention"),
        ("decode", {"stage_link": "1ms,1Gbit/s"}, "stage_link needs pipeline stages"),
        ("decode", {"overlap_microbatches": True, "tp": 2}, "come in pairs"),
        ("decode", {"overlap_microbatches": True, "microbatches": 2, "batch": 2}, "nothing of a layer is communicated"),
        ("step", {"overlap_microbatches": True}, "does not go with pass step"),
        ("decode", {"stage_link": "fast", "pp": 2}, "stage_link is not a link"),
        ("decode", {"new_tokens": 0}, "new_tokens is not a number of tokens"),
        ("decode", {"new_tokens": 10000}, "new tokens are more than"),
        ("step", {"kv_dtype": "int8"}, "kv_dtype does not go with pass step"),
        ("step", {"new_tokens": 2}, "new_tokens does not go with pass step"),
    ],
)  # fmt: skip
def test_refused(pass_: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(pass_, **options)


def test_inference_only_schedules_name_a_remedy_that_works() -> None:
    for name in ("apb", "star", "minference"):
        with pytest.raises(InputError, match="ask for the forward pass of a layer, or for a model's prefill"):
            run("both", schedule=name, layers="layer")
        assert run("forward", schedule=name, layers="layer").time_s > 0
        assert run("prefill", schedule=name).time_s > 0


def test_compare_says_which_schedules_take_chunks() -> None:
    request = SimulationRequest(**(BASE | {"schedule": None, "pass_": "prefill", "prefill_chunk": "16k"}))
    outcomes = compare(request)
    ran = {each.schedule.split(":")[0] for each in outcomes if isinstance(each, SimulationResult)}
    assert ran == {"ring", "burst", "allgather", "ulysses", "usp", "loongtrain"}
    assert any("ring:" in each.schedule and "circulate=q" in each.schedule for each in outcomes)
    reasons = {each.schedule.split(":")[0]: each.reason for each in outcomes if isinstance(each, Refused)}
    assert all("in chunks" in reasons[name] for name in ("magi", "lightseq", "apb", "star", "minference"))
