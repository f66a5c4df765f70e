"""Of tables that take a minute or more, lines are what the pages show (`scripts/refresh_docs.py`, run slow)."""

from __future__ import annotations

from pathlib import Path

import attnsim
from benchmarks import methods, pipelines

DOCS = Path(attnsim.__file__).parent / "docs"


def test_a_method_of_fine_tuning() -> None:
    assert methods.row("lora:rank=16", "8k") in (DOCS / "finetuning.md").read_text(encoding="utf-8").splitlines()


def test_a_pipeline() -> None:
    assert pipelines.row(2, 8, 2) in (DOCS / "training.md").read_text(encoding="utf-8").splitlines()
