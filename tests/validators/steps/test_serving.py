"""Prefill in chunks, packed and latent caches, several tokens: executed, they equal a plain model's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cost_models.masks import parse_mask
from cost_models.packing import FORMS
from simulator.program.program import Program
from simulator.steps.inference import record_decode, record_prefill
from tests.validators.executors.cases import mask_matrix
from tests.validators.steps.cases import LATENT, StepCase
from validators.executors.loopback import Loopback, execute
from validators.executors.packing import pack, unpack
from validators.executors.shards import Globals, cut
from validators.transformer import attend, cached, latent, prefill, rms_norm, rotate

TOLERANCE = 1e-12
LONG = 48


def reference(case: StepCase, ids: Tensor | None = None) -> Globals:
    ids = case.tokens()["ids"][:, 0] if ids is None else ids
    length = ids.shape[1]
    allowed = mask_matrix(parse_mask(case.mask, case.seq_len), case.seq_len)[:length, :length]
    return prefill(case.shape, case.weights(), ids, allowed)


def run_prefill(case: StepCase, wanted: Globals | None = None) -> Loopback:
    program = Program(case.plan.world)
    record_prefill(case.plan, program)
    caches = {name: each.clone() for name, each in (wanted or {}).items() if name != "logits"}
    for each in caches.values():
        each[:, case.plan.options.cached_prefix :] = torch.nan
    return execute(program, {**case.weights(), **caches, "ids": case.tokens()["ids"].double()})


def check_last_logits(case: StepCase, done: Loopback, wanted: Tensor) -> None:
    """Some context parallel rank has the last token; tensor parallel ones have parts of the words."""
    grid = case.plan.grid
    words = case.shape.vocab // grid.tp
    found = dict.fromkeys(range(grid.tp), False)
    for rank, got in enumerate(done.shards["logits 0"]):
        if grid.coordinate("pp")[rank] == grid.pp - 1:
            part = int(grid.coordinate("tp")[rank])
            want = wanted[:, part * words : (part + 1) * words]
            found[part] |= bool((got[:, 0, 0] - want).abs().max() < TOLERANCE)
    assert all(found.values())


def check_caches(case: StepCase, done: Loopback, wanted: Globals, form: str | None = None) -> None:
    """Every rank's rows, and together all tokens of all heads."""
    grid, names = case.plan.grid, ("latents",) if case.shape.mla else ("keys", "values")
    layers = case.shape.layers // grid.pp
    for index in range(case.shape.layers):
        for name in names:
            buffer, want = done.buffers[f"{name} 0.{index}"], wanted[f"{name} {index}"]
            tokens = 0
            for rank in range(grid.n_ranks):
                if grid.coordinate("pp")[rank] != index // layers:
                    continue
                got = done.shards[f"{name} 0.{index}"][rank]
                heads = want.shape[2] // grid.tp if not case.shape.mla else 1
                first = int(grid.coordinate("tp")[rank]) * heads if not case.shape.mla else 0
                own = want[:, :, first : first + heads]
                own = pack(own, FORMS[form]).double() if form else own
                assert (got - cut(own, replace(buffer, slices=()), rank)).abs().max() < TOLERANCE
                tokens += got.shape[1] * got.shape[2]
            assert tokens % case.seq_len == 0 and tokens >= case.seq_len * want.shape[2]


CHUNKED = [
    StepCase("flash", 1, {"prefill_chunk": 20}, seq_len=LONG),
    StepCase("ring", 2, {"prefill_chunk": 16}, batch=2, seq_len=LONG),
    StepCase("ring:partition=striped", 4, {"prefill_chunk": 16}, seq_len=LONG),
    StepCase("burst:partition=contiguous", 4, {"prefill_chunk": 16, "tp": 2, "pp": 2}, seq_len=LONG),
    StepCase("burst:ring=double", 4, {"prefill_chunk": 16}, seq_len=LONG, ranks_per_node=2),
    StepCase("allgather", 2, {"prefill_chunk": 16}, batch=2, seq_len=LONG),
    StepCase("allgather:head-group=1,partition=contiguous", 2, {"prefill_chunk": 32}, seq_len=LONG),
    StepCase("ulysses", 2, {"prefill_chunk": 16, "tp": 1}, batch=2, seq_len=LONG),
    StepCase("ulysses", 4, {"prefill_chunk": 16}, seq_len=LONG),
    StepCase("usp:ulysses=2,ring=2", 4, {"prefill_chunk": 16}, seq_len=LONG),
    StepCase("loongtrain:head=2,context=2", 4, {"prefill_chunk": 24}, batch=2, seq_len=LONG),
    StepCase("ring", 2, {"prefill_chunk": 12}, seq_len=LONG, mask="sliding-window:window=7,causal=true"),
    StepCase("ring", 2, {"prefill_chunk": 16, "tp_version": 3, "tp": 2}, seq_len=LONG, mask="causal"),
    StepCase("ring:circulate=q", 2, {"prefill_chunk": 16}, batch=2, seq_len=LONG),
    StepCase("ring:circulate=q", 4, {"cached_prefix": 16, "prefill_chunk": 16, "tp": 2}, seq_len=LONG),
    StepCase("ring:circulate=q,partition=striped", 4, {"prefill_chunk": 16}, seq_len=LONG),
    StepCase("ring:circulate=q", 2, {"prefill_chunk": 16, "mla": "absorbed"}, seq_len=LONG, shape=LATENT),
    StepCase("ring:circulate=q", 2, {"prefill_chunk": 12}, seq_len=LONG, mask="sliding-window:window=7,causal=true"),
    StepCase("usp:ulysses=2,ring=4,circulate=q", 8, {"prefill_chunk": 16}, seq_len=LONG),
    StepCase("ring", 2, {"cached_prefix": 24}, seq_len=LONG),
    StepCase("ulysses", 2, {"cached_prefix": 16, "prefill_chunk": 8, "tp": 1}, seq_len=LONG),
    StepCase("usp:ulysses=2,ring=2", 4, {"cached_prefix": 16, "prefill_chunk": 16}, seq_len=LONG),
    StepCase("ring", 4, {"prefill_chunk": 16, "tp": 2}, seq_len=LONG, shape=LATENT),
    StepCase("ring", 2, {"prefill_chunk": 16, "mla": "absorbed"}, seq_len=LONG, shape=LATENT),
    StepCase("ulysses", 2, {"prefill_chunk": 16, "mla": "absorbed"}, seq_len=LONG, shape=LATENT),
    StepCase("ring", 2, {"mla": "absorbed"}, seq_len=LONG, shape=LATENT),
    StepCase("ring", 2, {}, seq_len=LONG, shape=LATENT),
    StepCase("ring", 2, {"cached_prefix": 16, "mla": "expanded"}, seq_len=LONG, shape=LATENT),
]  # fmt: skip


@pytest.mark.parametrize("case", CHUNKED, ids=str)
def test_chunks_and_prefixes_are_the_whole_prompt(case: StepCase) -> None:
    wanted = reference(case)
    done = run_prefill(case, wanted if case.plan.options.cached_prefix else None)
    check_last_logits(case, done, wanted["logits"])
    check_caches(case, done, wanted)


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("spec", ["ring", "ring:circulate=q", "ulysses", "allgather"])
def test_a_packed_prompt_attends_to_what_is_packed(form: str, spec: str) -> None:
    """Every chunk attends to rounded keys and values, its own too: the reference is a plain model that rounds them."""
    case = StepCase(spec, 2, {"prefill_chunk": 16, "kv_dtype": form}, batch=2, seq_len=LONG)
    done = run_prefill(case)
    x = case.weights()["embed_tokens"][case.tokens()["ids"][:, 0]]
    wanted = rounded_model(case, x, form)
    check_last_logits(case, done, wanted["logits"])
    check_caches(case, done, wanted, form)


def rounded_model(case: StepCase, x: Tensor, form: str) -> Globals:
    """Prefill of a plain model whose attention sees keys and values as a packed cache holds them."""
    w, shape, found = case.weights(), case.shape, {}
    allowed = mask_matrix(parse_mask(case.mask, case.seq_len), case.seq_len)
    for index in range(shape.layers):
        at = f"layers.{index}."
        n = rms_norm(x, w[at + "input_norm"])
        rows = cached(shape, w, at, n)
        found |= {f"{name} {index}": each for name, each in rows.items()}
        k, v = [unpack(pack(each, FORMS[form]), FORMS[form], each.dtype) for each in rows.values()]
        q = rotate((n @ w[at + "q_proj"].T).unflatten(2, (shape.heads, -1)), shape.head_dim)
        x = x + attend(q, k, v, allowed).flatten(2) @ w[at + "o_proj"].T
        n = rms_norm(x, w[at + "post_norm"])
        h = torch.nn.functional.silu(n @ w[at + "gate_proj"].T) * (n @ w[at + "up_proj"].T)
        x = x + h @ w[at + "down_proj"].T
    return {**found, "logits": rms_norm(x[:, -1], w["norm"]) @ w["lm_head"].T}


DECODED = [
    StepCase("ring", 1, {"new_tokens": 3}),
    StepCase("ring", 2, {"new_tokens": 4, "tp": 2, "cuda_graphs": True}, batch=2),
    StepCase("ring", 8, {"new_tokens": 3, "pp": 2, "microbatches": 2, "dp": 2, "stage_link": "1ms,8Mbit/s"}, batch=4),
    StepCase("ring", 4, {"new_tokens": 2, "tp": 2, "kv_block": 3}, batch=2, shape=LATENT),
    StepCase("ring", 2, {"new_tokens": 2, "mla": "expanded"}, batch=2, shape=LATENT),
    StepCase("ring", 4, {"tp": 2, "microbatches": 2, "new_tokens": 2, "overlap_microbatches": True}, batch=4),
    StepCase("ring", 4, {"kv_dtype": "int8"}, batch=2),
    StepCase("ring", 2, {"kv_dtype": "int4", "tp": 2}, batch=2),
    StepCase("ring", 2, {"kv_dtype": "fp8", "new_tokens": 2}, batch=2),
    StepCase("ring", 2, {"kv_dtype": "int8", "new_tokens": 2}, batch=2, shape=LATENT),
    StepCase("ring", 2, {"kv_dtype": "int8", "mla": "expanded"}, batch=2, shape=LATENT),
]


@pytest.mark.parametrize("case", DECODED, ids=str)
def test_decoding_is_greedy_generation(case: StepCase) -> None:
    """Tokens that come one after the other are those that a plain model finds likeliest, and their rows are kept."""
    options, shape, weights = case.plan.options, case.shape, case.weights()
    form = FORMS[options.kv_dtype] if options.kv_dtype else None
    context = case.tokens()["ids"][:, 0, : case.seq_len - options.new_tokens + 1]
    ids, caches = context, {}
    with torch.no_grad():
        for step in range(options.new_tokens):
            found = reference(case, ids) if form is None else with_rounded_context(case, ids, context.shape[1] - 1)
            caches = {name: each for name, each in found.items() if name != "logits"} if step == 0 else caches
            logits, ids = found["logits"], torch.cat([ids, found["logits"].argmax(dim=-1, keepdim=True)], dim=1)
    inputs = {}
    for name, rows in caches.items():
        whole = torch.full((rows.shape[0], case.seq_len, *rows.shape[2:]), torch.nan, dtype=torch.float64)
        whole[:, : context.shape[1] - 1] = rows[:, : context.shape[1] - 1]
        inputs[name] = pack(whole.nan_to_num(), form).double() if form else whole
    program = Program(case.plan.world)
    record_decode(case.plan, program)
    done = execute(program, {**weights, **inputs, "last ids": context[:, None, -1:].double()})
    grid, words = case.plan.grid, shape.vocab // case.plan.grid.tp
    for microbatch in range(options.microbatches):
        for rank in range(grid.n_ranks):
            first = (int(grid.coordinate("dp")[rank]) * options.microbatches + microbatch) * case.plan.micro_batch
            rows = slice(first, first + case.plan.micro_batch)
            word = int(grid.coordinate("tp")[rank]) * words
            if grid.coordinate("pp")[rank] == grid.pp - 1:
                got = done.shards[f"logits {microbatch}"][rank][:, 0, 0]
                assert (got - logits[rows, word : word + words]).abs().max() < TOLERANCE
            if grid.coordinate("pp")[rank] == 0:
                assert done.shards[f"ids {microbatch}"][rank].flatten().tolist() == ids[rows, -1].tolist()


def with_rounded_context(case: StepCase, ids: Tensor, context: int) -> Globals:
    """A plain model's logits after its last token, all rows of the cache rounded, from a context that was not."""
    exact, w, shape = reference(case, ids), case.weights(), case.shape
    form = FORMS[str(case.plan.options.kv_dtype)]
    cached_rows = {}
    x = w["embed_tokens"][ids[:, context:]]
    for index in range(shape.layers):
        at = f"layers.{index}."
        n = rms_norm(x, w[at + "input_norm"])
        padded = torch.cat([torch.zeros(n.shape[0], context, n.shape[2], dtype=n.dtype), n], dim=1)
        new = cached(shape, w, at, padded)
        rows = {
            name: torch.cat([exact[f"{name} {index}"][:, :context], each[:, context:]], dim=1)
            for name, each in new.items()
        }
        cached_rows |= {f"{name} {index}": each for name, each in rows.items()}
        x = x + attend_to(case, at, padded, {k: unpack(pack(r, form), form, r.dtype) for k, r in rows.items()}, context)
        n = rms_norm(x, w[at + "post_norm"])
        h = torch.nn.functional.silu(n @ w[at + "gate_proj"].T) * (n @ w[at + "up_proj"].T)
        x = x + h @ w[at + "down_proj"].T
    return {**cached_rows, "logits": rms_norm(x[:, -1], w["norm"]) @ w["lm_head"].T}


def attend_to(case: StepCase, at: str, n: Tensor, rows: Globals, context: int) -> Tensor:
    """The attention sublayer of the tokens after a context, from given rows of a cache."""
    w, shape = case.weights(), case.shape
    allowed = torch.ones(n.shape[1], n.shape[1], dtype=torch.bool).tril()[context:]
    if shape.mla:
        q = latent(shape, shape.mla, w, at, n)[0]
        low, shared = rows["latents"].split([shape.mla.kv_lora, shape.mla.rope], dim=-1)
        expanded = (low[:, :, 0] @ w[at + "kv_b_proj"].T).unflatten(2, (shape.heads, -1))
        k, v = expanded.split([shape.mla.nope, shape.v_head_dim], dim=-1)
        k = torch.cat([k, shared.expand(-1, -1, shape.heads, -1)], dim=-1)
    else:
        q, k, v = rotate((n @ w[at + "q_proj"].T).unflatten(2, (shape.heads, -1)), shape.head_dim), *rows.values()
    return attend(q[:, context:], k, v, allowed).flatten(2) @ w[at + "o_proj"].T


@pytest.mark.parametrize("name", list(FORMS))
def test_packing_keeps_its_bound(name: str) -> None:
    """Of values, and so of attention: scores move by |q| |dk| / sqrt(D), weights by that exponent, values by dv."""
    form, generator = FORMS[name], torch.Generator().manual_seed(3)
    q, k, v = torch.randn(3, 1, 40, 2, 32, generator=generator, dtype=torch.float64)
    k[:, :, 0] *= torch.logspace(-3, 3, 32, dtype=torch.float64)
    rounded = [unpack(pack(each, form), form, torch.float64) for each in (k, v)]
    errors = []
    for exact, stored in zip((k, v), rounded, strict=True):
        scale = exact.abs().amax(dim=-1, keepdim=True) / form.largest
        bound = scale / 2 if form.whole else torch.maximum(exact.abs() * 2.0**-4, scale * 2.0**-10)
        error = (stored - exact).abs()
        assert (error <= bound * (1 + 1e-6) + exact.abs() * 2.0**-23).all()
        assert error.max() > 0.2 * bound.max(), "the bound is not idle"
        errors.append(error)
    allowed = torch.ones(40, 40, dtype=torch.bool).tril()
    moved = (attend(q, *rounded, allowed) - attend(q, k, v, allowed)).abs()
    score = torch.einsum("bqhd,bkhd->bqkh", q.abs(), errors[0]).amax(dim=2)[..., None] / 32**0.5
    assert (moved <= torch.expm1(2 * score) * v.abs().max() + errors[1].max()).all()


def test_packed_rows_in_the_program_s_own_dtypes() -> None:
    """Bytes are bytes in bf16 Programs, too: what a GPU would hold."""
    case = StepCase("ring", 2, {"kv_dtype": "int8", "new_tokens": 2}, batch=2)
    program, inputs = case.decoding(), case.context()
    exact, done = execute(program, inputs), Loopback(program, inputs, dtype=None)
    program.replay(done)
    assert done.shards["keys 0.0"][0].dtype == torch.uint8 and done.shards["logits 0"][0].dtype == torch.bfloat16
    wanted, got = exact.shards["logits 0"][0], done.shards["logits 0"][0].double()
    assert 0 < (got - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_halves_of_bytes_hold_every_code() -> None:
    codes = torch.arange(-7, 8, dtype=torch.float64)
    values = torch.cat([codes, torch.tensor([7.0], dtype=torch.float64)])
    assert torch.equal(unpack(pack(values, FORMS["int4"]), FORMS["int4"], torch.float64), values)
    assert pack(values, FORMS["int4"]).shape == (12,)
    assert unpack(pack(torch.zeros(4, 8), FORMS["int8"]), FORMS["int8"], torch.float32).eq(0).all()
