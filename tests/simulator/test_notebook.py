"""What a notebook shows of results."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import attnsim
from simulator.result import Comparison, Refused
from tests.simulator.examples import example_result


def _text(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))


def test_a_result_is_its_tables_and_warnings() -> None:
    result = replace(example_result(), warnings=("links are [estimated]",))
    text = _text(result._repr_html_())
    assert result.schedule in text and "peak memory" in text and "warning: links are [estimated]" in text


def test_a_comparison_lists_what_ran_and_what_did_not() -> None:
    result = example_result()
    text = _text(Comparison([result, Refused("flash", "needs <one> GPU")])._repr_html_())
    assert "Exact" in text and "Refused" in text and "needs <one> GPU" in text
    assert "flash" in _text(Comparison([Refused("flash", "needs one GPU")])._repr_html_())


def test_compare_returns_one() -> None:
    outcomes = attnsim.compare(heads=8, head_dim=64, seq_len="8k", gpus=2, topology="dgx-h100")
    assert isinstance(outcomes, Comparison) and outcomes == list(outcomes)
    assert "ring" in outcomes._repr_html_()
