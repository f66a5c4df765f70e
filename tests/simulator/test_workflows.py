"""Workflows: the facts' phases and memory, whichever the options; mixers beside attention; commands for both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import attnsim
from cost_models.finetuning.rollouts import forward_flop, memory_expert_flop, ppo_flop, training_flop
from cost_models.models import load_model
from simulator.request import SimulationRequest
from simulator.steps.beside import mixers_beside_attention
from simulator.workflows import held_bytes, run_workflow
from traces.errors import InputError

SHAPE = replace(load_model("llama-3.1-8b"), layers=4, vocab=4096)
REQUEST = SimulationRequest(model=SHAPE, seq_len=2048, gpus=4, topology="dgx-h100", schedule="ring", zero=3)


def head_flop(tokens: int) -> int:
    return 2 * tokens * SHAPE.hidden * SHAPE.vocab


def test_ppo_generates_scores_and_trains_as_the_closed_form_says() -> None:
    found = run_workflow("ppo:answer=2k,epochs=3", replace(REQUEST, tp=4))  # context parallel ranks decode alike
    phases = {each.name: each for each in found.phases}
    assert [each.times for each in found.phases] == [1, 2048, 2, 2, 3, 3]
    want = ppo_flop(SHAPE, SHAPE, 2048, 2048, epochs=1)
    scored = 2 * (phases["score: actor and reference"].flop + phases["score: critic and reward"].flop)
    assert scored + 4 * head_flop(4096) == pytest.approx(want.scoring, rel=2e-3)  # the last token's head only
    trained = phases["train: actor"].flop + phases["train: critic"].flop
    assert trained == pytest.approx(2 * training_flop(SHAPE, 4096), rel=2e-3) == pytest.approx(want.training, rel=2e-3)
    written = phases["actor: prefill"].flop + head_flop(2048) + 2048 * phases["actor: decode"].flop
    assert written == pytest.approx(forward_flop(SHAPE, 4096), rel=0.02)
    assert found.time_s == pytest.approx(sum(each.times * each.time_s for each in found.phases))


def test_ppo_holds_four_models_and_less_with_a_small_critic(tmp_path: Path) -> None:
    found = run_workflow("ppo:answer=1k", REQUEST)
    held = 2 * held_bytes(replace(REQUEST, layers="model")) + 2 * 2 * SHAPE.n_parameters
    assert 2 * 14 / 4 * SHAPE.n_parameters <= held - 4 * SHAPE.n_parameters < 2 * 14 / 4 * SHAPE.n_parameters + 1e6
    assert found.peak_memory_bytes > held
    small = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "num_hidden_layers": 2,
             "num_attention_heads": 4, "intermediate_size": 1024, "vocab_size": 4096}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(small))
    less = run_workflow(f"ppo:answer=1k,critic={tmp_path / 'config.json'}", REQUEST)
    assert less.peak_memory_bytes < 0.7 * found.peak_memory_bytes
    assert less.time_s < found.time_s


def test_agents_read_the_answers_before() -> None:
    found = run_workflow("agents:answer=512,layers=2,agents=4", replace(REQUEST, zero=0))
    alone = run_workflow("agents:answer=512,layers=1,agents=4", replace(REQUEST, zero=0))
    first, _, second, _ = found.phases
    assert second.flop / first.flop == pytest.approx(forward_flop(SHAPE, 4096) / forward_flop(SHAPE, 2048), rel=0.02)
    assert found.time_s > 2 * alone.time_s


def test_memory_experts_cost_the_retrieved_ones_and_hold_all() -> None:
    few, many = (run_workflow(f"memory:experts={count},retrieved=8,rank=4", REQUEST) for count in (8, 1024))
    assert [each.flop for each in few.phases] == [each.flop for each in many.phases]
    plain = run_workflow("memory:experts=1,retrieved=1,rank=1", REQUEST)
    more = few.phases[1].flop - plain.phases[1].flop
    assert more == SHAPE.layers * memory_expert_flop(SHAPE, 2048, 31, 1)
    assert many.phases[1].peak_memory_bytes > few.phases[1].peak_memory_bytes + 1e9


@pytest.mark.parametrize(
    ("spec", "why"),
    [("ppo:answers=3", "answers"), ("dance", "unknown workflow"), ("memory:experts=2,retrieved=3", "more experts"),
     ("agents:layers=0", "layers")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(spec: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        run_workflow(spec, REQUEST)


def test_attention_overtakes_the_mixer() -> None:
    request = SimulationRequest(model=SHAPE, seq_len="64k", gpus=4, topology="dgx-h100", schedule="ring")
    rows = mixers_beside_attention(request, 7)
    assert [row.seq_len for row in rows] == [1024 * 2**i for i in range(7)]
    assert rows[-1].mixer_flop == 64 * rows[0].mixer_flop
    assert rows[-1].attention_flop == pytest.approx(64**2 * rows[0].attention_flop, rel=2e-3)
    assert rows[-1].attention_s > 5 * rows[-1].mixer_s
    with pytest.raises(InputError, match="name a model"):
        mixers_beside_attention(replace(request, model=None, heads=8, head_dim=64), 7)


@pytest.mark.parametrize("command", [("workflow", "agents:layers=1,answer=16"), ("mixers",)])
def test_commands_write_json(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model", "llama-3.1-8b", "--seq-len", "4k", "--gpus", "2", "--topology", "dgx-h100")
    with pytest.raises(SystemExit) as exited:
        attnsim.main((*command, *options, "--schedule", "ring", "--json", "-"))
    assert not exited.value.code
    assert json.loads(capsys.readouterr().out)["schema_version"] == 1
