"""Names of methods, and their closed forms against the figures of the facts and of papers."""

from __future__ import annotations

import pytest

from cost_models.finetuning import METHODS, parse_method
from cost_models.finetuning.formulas import (
    added_weights,
    gradient_bytes,
    speed_up,
    step_flop,
    stored_bytes,
    trained_weights,
)
from cost_models.models import ModelShape, load_model
from traces.errors import InputError

LLAMA = load_model("llama-3.1-8b")
GPT3 = ModelShape("gpt-3", 96, 12288, 96, 96, 128, 128, 32768, 50257)
"""175 B weights: its feed-forward has two matrices of 4 x 12288, here three of 8/3 as many features."""


@pytest.mark.parametrize("name", METHODS)
def test_names_round_trip(name: str) -> None:
    method = parse_method(name)
    assert parse_method(str(method)) == method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sft", "unknown method"),
        ("lora:rank=0", "rank is not a positive whole number"),
        ("lora:targets=q+x", "targets are not matrices"),
        ("lora:targets=q+q", "targets are not matrices"),
        ("lora:size=3", "lora has no option 'size'"),
        ("dpo:reference=adapters", "without adapters"),
        ("dpo:reference=other", "unknown reference"),
        ("merged:kind=sum", "unknown kind"),
        ("qlora:double=maybe", "neither true nor false"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_method(text)


@pytest.mark.parametrize(("tokens", "gain"), [(2**13, 1.39), (2**15, 1.24), (2**17, 1.09), (2**19, 1.03)])
def test_lora_gains_less_the_longer_the_sequence(tokens: int, gain: float) -> None:
    """Without the adapters' own products, (3 Flin + 3.5 Fatt) / (2 Flin + 3.5 Fatt); they take a little of it."""
    assert speed_up(parse_method("lora:rank=1"), LLAMA, tokens) == pytest.approx(gain, abs=0.006)
    assert speed_up(parse_method("lora:rank=64,targets=all"), LLAMA, tokens) < gain


def test_lora_on_gpt_3() -> None:
    """LoRA paper, 4.2: 4.7 M weights for rank 1 of q and v; 43.1 tokens/s where full has 32.5 (as if recomputed)."""
    assert GPT3.n_parameters == pytest.approx(175e9, rel=0.01)
    assert GPT3.layers * added_weights(parse_method("lora:rank=1"), GPT3) == 4_718_592
    recomputed = speed_up(parse_method("lora:rank=4"), GPT3, 2048, "full")
    assert recomputed == pytest.approx(43.1 / 32.5, rel=0.01)
    checkpoint_bytes = 2 * GPT3.layers * added_weights(parse_method("lora:rank=4"), GPT3)
    assert checkpoint_bytes == pytest.approx(35e6, rel=0.1), "350 GB become 35 MB"


def test_bytes_per_weight() -> None:
    """The guide, 6.3.3: 96 bits per weight of full fine-tuning without a master copy, 5.2 of QLoRA."""
    full, qlora = parse_method("full"), parse_method("qlora:rank=16")
    assert stored_bytes(full, LLAMA) == 16 * LLAMA.n_parameters
    ends = 2 * LLAMA.vocab * LLAMA.hidden
    in_layers = stored_bytes(qlora, LLAMA) - 2 * ends
    assert 8 * in_layers / (LLAMA.n_parameters - ends) == pytest.approx(5.2, abs=0.4)
    assert parse_method("qlora").bits == pytest.approx(4.127, abs=1e-3)  # type: ignore[attr-defined]
    assert parse_method("qlora:double=false").bits == 4.5  # type: ignore[attr-defined]


def test_dora_adds_a_length_per_row() -> None:
    lora, dora = (added_weights(parse_method(f"{name}:rank=8"), LLAMA) for name in ("lora", "dora"))
    assert dora - lora == 4096 + 1024


@pytest.mark.parametrize(("kind", "rank"), [("concatenation", 48), ("linear", 16), ("svd", 16)])
def test_merged_adapters(kind: str, rank: int) -> None:
    assert parse_method(f"merged:count=3,rank=16,kind={kind}").low_rank == (rank, ("q", "v"))


def test_half_trains_half() -> None:
    half, full = parse_method("half"), parse_method("full")
    assert gradient_bytes(half, LLAMA, 8) == pytest.approx(gradient_bytes(full, LLAMA, 8) * 0.565, rel=0.01)
    core = 3 * (step_flop(full, LLAMA, 8192) - step_flop(half, LLAMA, 8192))
    assert core == pytest.approx(1.5 * 32 * 2 * 8192 * (LLAMA.n_parameters / 32 - 2 * 4096 * 128256 / 32), rel=0.01)


def test_preferences_cost_two_answers_and_a_reference() -> None:
    """Section 5 of the facts: DPO over supervised training 2.67 in linear parts, 2.57 in attention."""
    full, dpo, orpo = (parse_method(name) for name in ("full", "dpo", "orpo"))
    assert step_flop(orpo, LLAMA, 1024) == 2 * step_flop(full, LLAMA, 1024)
    short = step_flop(dpo, LLAMA, 16) / step_flop(full, LLAMA, 16)
    long = step_flop(dpo, LLAMA, 2**26) / step_flop(full, LLAMA, 2**26)
    assert (short, long) == (pytest.approx(8 / 3, rel=1e-3), pytest.approx(9 / 3.5, rel=2e-3))
    assert step_flop(parse_method("dpo:reference=stored"), LLAMA, 1024) == step_flop(orpo, LLAMA, 1024)
    assert stored_bytes(dpo, LLAMA) == 18 * LLAMA.n_parameters
    assert trained_weights(parse_method("dpo:rank=16"), LLAMA) == 6_815_744
