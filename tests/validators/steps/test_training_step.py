"""A recorded training step, executed on all ranks, equals autograd and torch.optim.AdamW on the whole model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.validators.steps.cases import (
    DEEPSEEK,
    EXPERTS,
    LATENT,
    SHAPE,
    TIED,
    UNGATED,
    StepCase,
    reference_step,
    total_loss,
    weight_errors,
)

TOLERANCE = 1e-11
CASES = [
    StepCase("ring", 1),
    StepCase("ring", 2),
    StepCase("burst:partition=striped", 2, {"checkpoint": "full"}),
    StepCase("ulysses", 2, {"checkpoint": "attention"}, mask="full"),
    StepCase("ring", 2, {"checkpoint": "attention", "loss_chunks": 3}),
    StepCase("ring", 2, {"tp": 2}),
    StepCase("burst:partition=striped", 2, {"checkpoint": "sequence"}, batch=2),
    StepCase("ring:partition=striped", 4, {"checkpoint": "sequence", "tp": 2, "zero": 3}),
    StepCase("ring", 2, {"tp": 2, "tp_version": 3, "loss_chunks": 2}),
    StepCase("ring", 4, {"tp": 2, "tp_version": 3, "zero": 3}, batch=2),
    StepCase("ulysses", 4, {"tp": 2, "placement": "cp-tp-dp-pp"}),
    *[StepCase("ring", 4, {"dp": 2, "zero": zero, "microbatches": 2}, batch=4) for zero in range(4)],
    StepCase("ring", 4, {"dp": 2, "zero": 3, "placement": "dp-tp-cp-pp"}, batch=2),
    StepCase("ring", 2, {"pp": 2, "microbatches": 2}, batch=2),
    StepCase("burst", 8, {"pp": 2, "tp": 2, "microbatches": 3, "zero": 1, "checkpoint": "full"}, batch=3),
    StepCase("ring", 8, {"pp": 2, "dp": 2, "microbatches": 2, "zero": 3, "placement": "pp-cp-tp-dp"}, batch=4),
    StepCase("ulysses", 8, {"tp": 2, "dp": 2, "zero": 2, "tp_version": 3, "loss_chunks": 4}, batch=2, mask="full"),
    StepCase("burst:ring=double", 8, {"tp": 2, "checkpoint": "attention"}, ranks_per_node=4),
]


FOUR = replace(SHAPE, name="four", layers=4)
EIGHT = replace(EXPERTS, name="eight", layers=8)
INTERLEAVED_CASES = [
    StepCase("ring", 2, {"pp": 2, "virtual_stages": 2, "microbatches": 2}, batch=2, shape=FOUR),
    StepCase("ring", 4, {"pp": 2, "virtual_stages": 2, "microbatches": 4, "zero": 3, "dp": 2}, batch=8, shape=FOUR),
    StepCase("burst", 8, {"pp": 4, "virtual_stages": 2, "microbatches": 4, "zero": 2, "checkpoint": "full"}, batch=4,
             shape=EIGHT),
    StepCase("ring", 8, {"pp": 2, "virtual_stages": 2, "microbatches": 2, "tp": 2, "offload": "all", "zero": 1,
                         "checkpoint": "attention", "placement": "pp-cp-tp-dp"}, batch=2, shape=FOUR),
]  # fmt: skip


OFFLOAD_CASES = [
    StepCase("ring", 1, {"offload": "all", "checkpoint": "full"}),
    StepCase("burst:partition=striped", 2, {"offload": "activations", "checkpoint": "attention"}),
    StepCase("burst:partition=striped", 2, {"offload": "activations", "checkpoint": "sequence"}, batch=2),
    StepCase("ring", 4, {"offload": "optimizer", "zero": 3, "dp": 2, "microbatches": 2}, batch=4),
    StepCase(
        "ring", 8, {"offload": "all", "checkpoint": "full", "zero": 1, "pp": 2, "microbatches": 3, "tp": 2}, batch=3
    ),
    StepCase("ring", 2, {"offload": "all", "checkpoint": "full", "method": "lora:rank=2,targets=all"}),
]


METHOD_CASES = [
    StepCase("ring", 2, {"method": "lora:rank=3"}),
    StepCase("ring", 2, {"method": "lora:rank=3,targets=all", "checkpoint": "full"}),
    StepCase("ring", 4, {"method": "qlora:rank=3", "tp": 2, "zero": 3}, batch=2),
    StepCase("ulysses", 4, {"method": "lora:rank=2,targets=all", "tp": 2, "tp_version": 3}),
    StepCase("burst", 2, {"method": "lora:rank=2,targets=k+o+down", "loss_chunks": 2, "checkpoint": "attention"}),
    StepCase("ring", 4, {"method": "lora:rank=2,targets=all", "pp": 2, "microbatches": 2, "zero": 2}, batch=2),
    StepCase("ring", 2, {"method": "dora:rank=3,targets=all"}),
    StepCase("ring", 2, {"method": "adapters:size=5", "zero": 3}),
    StepCase("ring", 4, {"method": "dora:rank=3,targets=all", "tp": 2, "zero": 1}, batch=2),
    StepCase("ulysses", 4, {"method": "dora:rank=2,targets=q+o+down", "tp": 2, "tp_version": 3, "checkpoint": "full"}),
    StepCase("ring", 4, {"method": "adapters:size=6", "tp": 2, "zero": 3}, batch=2),
    StepCase("ring", 4, {"method": "adapters:size=4", "tp": 2, "tp_version": 3, "checkpoint": "full"}),
    StepCase("ring", 2, {"method": "half:seed=1"}),
    StepCase("ring", 2, {"method": "dpo"}),
    StepCase("ring", 4, {"method": "dpo:reference=stored", "dp": 2, "microbatches": 2}, batch=4),
    StepCase("ring", 4, {"method": "dpo:rank=2,targets=all", "tp": 2, "zero": 3}, batch=2),
    StepCase("ulysses", 2, {"method": "dpo:reference=model", "zero": 3, "checkpoint": "full"}, batch=2),
    StepCase("burst", 4, {"method": "orpo", "tp": 2, "tp_version": 3}),
    StepCase("ring", 2, {"method": "orpo:rank=3"}, batch=2),
]


MODEL_CASES = [
    StepCase("ring", 2, shape=LATENT),
    StepCase("ulysses", 4, {"tp": 2, "checkpoint": "full"}, shape=LATENT),
    StepCase("ring", 4, {"tp": 2, "tp_version": 3, "zero": 3}, batch=2, shape=LATENT),
    *[StepCase("ring", 2, {"zero": zero}, shape=TIED) for zero in range(4)],
    StepCase("ring", 1, shape=TIED),
    StepCase("ring", 4, {"dp": 2, "tp": 2, "microbatches": 2, "zero": 2, "loss_chunks": 2}, batch=4, shape=TIED),
    StepCase("ring", 4, {"tp": 2, "tp_version": 3, "offload": "optimizer"}, shape=TIED),
    StepCase("ring", 2, {"method": "lora:rank=2", "zero": 3}, shape=TIED),
    StepCase("ring", 2, shape=UNGATED),
    StepCase("ring", 4, {"tp": 2, "zero": 3, "checkpoint": "full"}, shape=UNGATED),
    StepCase("ring", 2, {"method": "lora:rank=2,targets=all"}, shape=UNGATED),
    StepCase("ring", 2, {"method": "dora:rank=2,targets=all"}, shape=UNGATED),
    StepCase("ring", 1, shape=EXPERTS),
    StepCase("ring", 2, {"routing": "zipf:exponent=1.5,seed=3"}, batch=2, shape=EXPERTS),
    StepCase("ring", 2, {"ep": 2, "routing": "zipf:exponent=1.5,seed=3", "capacity": 1.2}, shape=EXPERTS),
    StepCase("burst", 4, {"ep": 2, "zero": 3, "dp": 2, "checkpoint": "full"}, batch=2, shape=EXPERTS),
    StepCase("ring", 4, {"ep": 4, "zero": 1, "routing": "zipf"}, shape=EXPERTS),
    StepCase("ring", 8, {"ep": 2, "tp": 2, "pp": 2, "microbatches": 2, "zero": 2}, batch=2, shape=EXPERTS),
    StepCase("ring", 4, {"ep": 2, "dp": 2, "microbatches": 2, "routing": "zipf:seed=5"}, batch=4, shape=DEEPSEEK),
    StepCase("ring", 4, {"tp": 2, "ep": 2, "tp_version": 3}, shape=DEEPSEEK),
    StepCase("ring", 2, {"method": "lora:rank=2,targets=q+o", "ep": 2}, shape=EXPERTS),
]


@pytest.mark.parametrize("case", CASES + INTERLEAVED_CASES + OFFLOAD_CASES + METHOD_CASES + MODEL_CASES, ids=str)
def test_equals_autograd(case: StepCase) -> None:
    done = case.execute()
    loss, wanted = reference_step(case)
    assert abs(total_loss(case, done) - loss.sum().item()) < 1e-10 * loss.sum().item()
    wrong = {name: error for name, error in weight_errors(done, wanted).items() if not error < TOLERANCE}
    assert not wrong
