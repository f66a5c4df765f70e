"""Fine-tuning methods: what they are, by name, and their closed forms of FLOP, traffic and memory.

Interface: :func:`parse_method` and the methods' classes; the closed forms are in `cost_models.finetuning.formulas`.
"""

from cost_models.finetuning.methods import (
    METHODS,
    Adapters,
    Dpo,
    FullFineTuning,
    HalfFineTuning,
    Lora,
    Merged,
    Method,
    Orpo,
    parse_method,
)

__all__ = [
    "METHODS",
    "Adapters",
    "Dpo",
    "FullFineTuning",
    "HalfFineTuning",
    "Lora",
    "Merged",
    "Method",
    "Orpo",
    "parse_method",
]
